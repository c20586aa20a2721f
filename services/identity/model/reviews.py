"""Reviews: what was granted beyond the rule, looked at by somebody else than who has it. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from services._mesh.errors import Reason, WrongState


class Verdict(enum.StrEnum):
    """What came of a review."""

    JUSTIFIED = "JUSTIFIED"
    UNJUSTIFIED = "UNJUSTIFIED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """A review, of exactly one elevation. `subject_person` is whom it is about: who can't decide it."""

    review_id: UUID
    organization_id: UUID
    elevation_id: UUID | None
    subject_person: UUID
    opened_at: datetime
    due_at: datetime
    verdict: Verdict | None = None
    note: str = ""
    reviewer: str = ""
    decided_at: datetime | None = None

    @property
    def target(self) -> str:
        """What it is about, as events name it."""
        return f"elevations/{self.elevation_id}"

    def state(self, now: datetime) -> str:
        """OPEN, OVERDUE or DECIDED."""
        if self.decided_at is not None:
            return "DECIDED"
        return "OPEN" if now < self.due_at else "OVERDUE"


def require_undecided(review: Review) -> None:
    """Raise WrongState where it was decided: it is for good."""
    if review.decided_at is not None:
        raise WrongState(
            Reason.ERROR_REASON_STATE_WRONG, "The review was decided.", {"state": "DECIDED", "allowed": "OPEN, OVERDUE"}
        )


def own(review: Review) -> WrongState:
    """The problem of whoever would decide about themselves."""
    return WrongState(
        Reason.ERROR_REASON_REVIEW_OWN,
        "Somebody else must decide this review: it is about what you had.",
        {"review_id": str(review.review_id)},
    )
