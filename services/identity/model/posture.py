"""How an organization stands. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from services.identity.model.elevations import Elevation
from services.identity.model.sso import Domain

STALE_AFTER = timedelta(days=90)
# Of each list so many; the totals count all.
LISTED = 100


@dataclass(frozen=True, slots=True)
class WeakMember:
    """A member whose latest session had no second factor; `last_aal` is 0 where there was none."""

    member_id: UUID
    user_id: UUID
    role: str
    last_aal: int
    last_seen_at: datetime | None


@dataclass(frozen=True, slots=True)
class StaleToken:
    """An API token that can be used, and wasn't for long."""

    token_id: UUID
    display_name: str
    last_used_at: datetime | None
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class UnusedRole:
    """A custom role that no member has."""

    role_id: UUID
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Posture:
    """The facts; `sso` is OFF, OPTIONAL or ENFORCED."""

    taken_at: datetime
    members: int
    admins: int
    weak_members: Sequence[WeakMember]
    weak_members_total: int
    stale_tokens: Sequence[StaleToken]
    stale_tokens_total: int
    unused_roles: Sequence[UnusedRole]
    unused_roles_total: int
    sso: str
    missing_domains: Sequence[Domain]
    scim_tokens: int
    scim_seen_at: datetime | None
    scim_synced_at: datetime | None
    elevations: Sequence[Elevation]
    reviews_open: int
    reviews_overdue: int
    exceptions_in_force: int
    exceptions_due: int
    exceptions_expired: int
    exceptions_overdue: int
