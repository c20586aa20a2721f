"""Reviews: what was granted beyond the rule, looked at by somebody else than who has it. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from services._mesh.errors import Denied, Reason, WrongState, invalid_field


class Verdict(enum.StrEnum):
    """What came of a review."""

    JUSTIFIED = "JUSTIFIED"
    UNJUSTIFIED = "UNJUSTIFIED"
    RENEW = "RENEW"
    END = "END"


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """A review, of exactly one elevation or exception. `subject_person` is whom it is about: who can't decide it."""

    review_id: UUID
    organization_id: UUID
    elevation_id: UUID | None = None
    exception_id: UUID | None = None
    subject_person: UUID
    opened_at: datetime
    due_at: datetime
    verdict: Verdict | None = None
    note: str = ""
    reviewer: str = ""
    decided_at: datetime | None = None
    renewed_until: datetime | None = None

    @property
    def target(self) -> str:
        """What it is about, as events name it."""
        return f"exceptions/{self.exception_id}" if self.exception_id else f"elevations/{self.elevation_id}"

    def state(self, now: datetime) -> str:
        """OPEN, OVERDUE or DECIDED."""
        if self.decided_at is not None:
            return "DECIDED"
        return "OPEN" if now < self.due_at else "OVERDUE"


@dataclass(frozen=True, slots=True)
class Decision:
    """What somebody says to a review; `renewed_until` goes with RENEW."""

    verdict: Verdict
    note: str
    renewed_until: datetime | None = None


def require_fitting(review: Review, decision: Decision) -> None:
    """Raise Invalid unless the verdict is one that such a review can have, with what goes with it."""
    fitting = (Verdict.RENEW, Verdict.END) if review.exception_id else (Verdict.JUSTIFIED, Verdict.UNJUSTIFIED)
    if decision.verdict not in fitting:
        raise invalid_field("verdict", f"must be {' or '.join(fitting)} for {review.target}")
    if (decision.verdict is Verdict.RENEW) != (decision.renewed_until is not None):
        raise invalid_field("renewed_until", "goes with RENEW, and with nothing else")


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


def not_asked(review: Review) -> Denied:
    """The problem of whoever isn't among those who are asked to review, and isn't an Admin."""
    return Denied(
        Reason.ERROR_REASON_PERMISSION_MISSING,
        "Others are asked to review this. An Admin may, too.",
        {"permission": "identity.review.decide", "review_id": str(review.review_id)},
    )
