"""Exceptions: what they leave alone, for how long, and when somebody looks again. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from services._mesh.errors import invalid_field

SHORTEST, LONGEST = timedelta(hours=1), timedelta(days=366)
# So long before its end it comes up for review (half of its term, where that is less), and so long after it the review
# is overdue.
NOTICE, REVIEWED_WITHIN = timedelta(days=7), timedelta(days=7)
# Of a kind, in force at once: whoever asks which are gets all of them.
MAX_IN_FORCE = 500


class ExceptionKind(enum.StrEnum):
    """What an exception is from."""

    SUPPRESSION = "SUPPRESSION"
    POLICY_OVERRIDE = "POLICY_OVERRIDE"
    ACCESS = "ACCESS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """An exception. `term_begins_at` is when it was made, or renewed last."""

    exception_id: UUID
    organization_id: UUID
    kind: ExceptionKind
    about: str
    reason: str
    owner: str
    owner_person: UUID
    reviewers: tuple[UUID, ...]
    created_at: datetime
    term_begins_at: datetime
    expires_at: datetime
    ended_at: datetime | None = None
    ended_by: str = ""

    @property
    def target(self) -> str:
        """How events name it."""
        return f"exceptions/{self.exception_id}"

    @property
    def notice_at(self) -> datetime:
        """When it comes up for review."""
        return notice_at(self.term_begins_at, self.expires_at)

    @property
    def review_due_at(self) -> datetime:
        """When its review is overdue."""
        return self.expires_at + REVIEWED_WITHIN

    def state(self, now: datetime) -> str:
        """ACTIVE, DUE, EXPIRED, OVERDUE or ENDED."""
        if self.ended_at is not None:
            return "ENDED"
        if now < self.expires_at:
            return "ACTIVE" if now < self.notice_at else "DUE"
        return "EXPIRED" if now < self.review_due_at else "OVERDUE"


def require_made(field: str, kind: ExceptionKind) -> None:
    """Raise Invalid for a kind that isn't made any more. Nothing that an action rests on can be overridden."""
    if kind is ExceptionKind.POLICY_OVERRIDE:
        raise invalid_field(
            field,
            "can't be POLICY_OVERRIDE: an action's conditions hold for everybody; change what they are about instead",
        )


def notice_at(begins_at: datetime, expires_at: datetime) -> datetime:
    """When an exception with such a term comes up for review."""
    return expires_at - min(NOTICE, (expires_at - begins_at) / 2)


def require_term(field: str, expires_at: datetime, now: datetime) -> None:
    """Raise Invalid unless a term that begins now may end then."""
    if not now + SHORTEST <= expires_at <= now + LONGEST:
        raise invalid_field(field, f"must be an hour ahead at least, and {LONGEST.days} days at most")
