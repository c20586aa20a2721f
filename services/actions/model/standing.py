"""Whether those who requested and approved an action could still do so. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from services._mesh.resource_limits import ResourceLimits
from services.actions.model.action import Action, Approval

REQUEST, APPROVE = "actions.action.request", "actions.action.approve"
_WHY = {
    "NO_MEMBER": "isn't a member any more",
    "PERMISSION_LOST": "doesn't hold the permission any more",
    "OUT_OF_REACH": "doesn't reach the resource any more",
}


@dataclass(frozen=True, slots=True)
class Decider:
    """Who decided something, who answers for them, and the permission that it took."""

    actor: str
    person: UUID
    permission: str


@dataclass(frozen=True, slots=True)
class NowStanding:
    """How they stand now, in identity's words: HELD, NO_MEMBER or PERMISSION_LOST; and what they are limited to."""

    state: str
    limits: ResourceLimits


@dataclass(frozen=True, slots=True)
class Standings:
    """Whether the organization may have work done, and how each decider stands, in the order of the question."""

    is_active: bool
    found: Sequence[NowStanding]


def asked_by(action: Action) -> Decider:
    """Who requested the action."""
    return Decider(action.requested_by, action.requester_person, REQUEST)


def deciders(action: Action, approvals: Sequence[Approval]) -> list[Decider]:
    """Whom to ask about: who requested the action first, then who approved it."""
    return [asked_by(action), *(Decider(each.decided_by, each.person, APPROVE) for each in approvals)]


def lost(action: Action, tags: Mapping[str, str], decider: Decider, now: NowStanding) -> str:
    """Why somebody's decision counts no longer, in words; empty while it does."""
    state = now.state
    if state == "HELD" and not now.limits.reach(action.connection_id, tags):
        state = "OUT_OF_REACH"
    return "" if state == "HELD" else f"{decider.actor} {_WHY.get(state, _WHY['PERMISSION_LOST'])}"
