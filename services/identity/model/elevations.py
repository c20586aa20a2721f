"""Break-glass: what it may reach, for how long, and when a review of it is due. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from services._mesh.errors import FieldViolation, Invalid, Reason, WrongState
from services._mesh.ids import PLATFORM

LONGEST = timedelta(minutes=60)
# Somebody else looks at it within three days of its end.
REVIEWED_WITHIN = timedelta(days=3)
# Who never has their uses reviewed gets no more of them.
MAX_UNREVIEWED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Elevation:
    """Break-glass access of one person, in one session.."""

    elevation_id: UUID
    organization_id: UUID
    holder: str
    holder_person: UUID
    session_id: str
    permissions: tuple[str, ...]
    reason: str
    begins_at: datetime
    expires_at: datetime
    review_id: UUID
    ended_at: datetime | None = None
    ended_by: str = ""

    @property
    def target(self) -> str:
        """How events name it."""
        return f"elevations/{self.elevation_id}"

    def state(self, now: datetime) -> str:
        """ACTIVE, EXPIRED or ENDED."""
        if self.ended_at is not None:
            return "ENDED"
        return "ACTIVE" if now < self.expires_at else "EXPIRED"


@dataclass(frozen=True, slots=True)
class Reach:
    """Process -> permissions that an RPC needs which break-glass may reach; a customer's and the platform's."""

    customers: Mapping[str, frozenset[str]]
    platform: Mapping[str, frozenset[str]]

    def of(self, organization_id: UUID) -> Mapping[str, frozenset[str]]:
        """What break-glass may reach in an organization, process by process."""
        return self.platform if organization_id == PLATFORM else self.customers

    def within(self, organization_id: UUID, audience: str, permissions: Sequence[str]) -> frozenset[str]:
        """Those of `permissions` that an elevation adds to a passport for `audience`."""
        return self.of(organization_id).get(audience, frozenset()) & frozenset(permissions)

    def require(self, organization_id: UUID, permissions: Sequence[str], held: frozenset[str]) -> None:
        """Raise Invalid unless break-glass may reach each of them, and the role lacks it."""
        reachable = frozenset().union(*self.of(organization_id).values())
        faults = [
            FieldViolation(f"permissions[{place}]", fault)
            for place, name in enumerate(permissions)
            if (fault := _fault(name, reachable, held))
        ]
        if faults:
            raise Invalid(
                Reason.ERROR_REASON_FIELD_INVALID, f"{faults[0].field}: {faults[0].description}", None, faults
            )


def _fault(name: str, reachable: frozenset[str], held: frozenset[str]) -> str:
    if name in held:
        return "is held by your role already: ask for what it lacks"
    if name not in reachable:
        return f"must be one that break-glass may reach here: {', '.join(sorted(reachable)) or 'there is none'}"
    return ""


def over(elevation_id: UUID) -> WrongState:
    """The problem of whoever acts, or wants to act, under an elevation that isn't in force in their session."""
    return WrongState(
        Reason.ERROR_REASON_ELEVATION_OVER,
        "This break-glass access isn't in force in this session: it expired, was ended, or is another session's.",
        {"elevation_id": str(elevation_id)},
    )
