"""Whether somebody could decide again what they decided earlier. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from services._mesh.resource_limits import UNLIMITED, ResourceLimits
from services.identity.model.membership import Member
from services.identity.model.permissions import PermissionTable
from services.identity.model.roles import is_fresh


@dataclass(frozen=True, slots=True)
class EarlierDecision:
    """Who decided something, who answers for them, and the permission that it took."""

    actor: str
    person_id: UUID
    permission: str


@dataclass(frozen=True, slots=True)
class NowStanding:
    """How they stand now: HELD, NO_MEMBER or PERMISSION_LOST; and what their role is limited to."""

    state: str
    limits: ResourceLimits = UNLIMITED


def stand(table: PermissionTable, members: Sequence[Member], permission: str, now: datetime) -> NowStanding:
    """How somebody stands by their memberships; a fresh approver doesn't hold yet what a passport would withhold."""
    active = [each for each in members if each.state == "ACTIVE"]
    for each in active:
        held = table.everywhere(each.organization_id, each.role.value, each.custom_permissions)
        if permission in held and not (permission in table.approvals and is_fresh(each, now)):
            return NowStanding("HELD", each.limits)
    return NowStanding("PERMISSION_LOST" if active else "NO_MEMBER")
