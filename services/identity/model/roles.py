"""Custom roles, and what a membership amounts to: permissions, limits, and what a fresh approver waits for. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from services._mesh.errors import Denied, Reason, WrongState, invalid_field
from services._mesh.resource_limits import ResourceLimits
from services.identity.model.membership import CustomRole, Member, Role
from services.identity.model.permissions import PermissionTable

# How long somebody waits who was given a role that may approve, unless another Admin confirms them.
APPROVER_WAIT = timedelta(hours=24)
MAX_ROLES = 100
# With which one invites, and with which the platform creates an organization.
INVITE, FOUND = "identity.member.update", "identity.organization.create"
# So many further users of one person fit into a passport.
MAX_LINKED = 20
# Events name custom roles and the others side by side.
_TAKEN = frozenset({*(role.value.lower() for role in Role), "system"})


@dataclass(frozen=True, slots=True)
class Standing:
    """What a membership amounts to towards one service. `withheld`: of the role's, what a fresh approver waits for.

    `linked` are the other users that the member is as a person. `awaits_provider`: it is withheld because the
    session is of an identity provider that was changed.
    """

    role: str
    permissions: frozenset[str]
    withheld: frozenset[str]
    limits: ResourceLimits | None
    linked: frozenset[UUID] = frozenset()
    awaits_provider: bool = False


# Before an organization is chosen.
NOBODY = Standing("", frozenset(), frozenset(), None)


def standing(
    table: PermissionTable,
    member: Member,
    audience: str,
    now: datetime,
    linked: frozenset[UUID] = frozenset(),
    provider_changed_at: datetime | None = None,
) -> Standing:
    """What a member holds for `audience`; `now` is the injected clock's.

    Who is more users than a passport has room for approves nothing: that it isn't their own couldn't be told. Nor does
    a session of an identity provider that changed lately, nor does it ask for what others approve: whoever changed it
    says who somebody is, and one would be two people by it.
    """
    held = table.of(member.organization_id, member.role.value, member.custom_permissions, audience)
    waits = is_fresh(member, now) or len(linked) > MAX_LINKED
    changed = provider_changed_at is not None and provider_changed_at + APPROVER_WAIT > now
    withheld = held & table.approvals if waits or changed else frozenset[str]()
    if changed:
        withheld |= held & table.personal
    known = linked if len(linked) <= MAX_LINKED else frozenset[UUID]()
    by_provider = changed and bool(withheld)
    return Standing(member.role_name, held - withheld, withheld, member.limits or None, known, by_provider)


def is_fresh(member: Member, now: datetime) -> bool:
    """Whether a member may not approve yet. A role that was given in no known way makes an approver of nobody."""
    if member.approver_for != member.role_key or member.approver_since is None:
        return True
    return member.confirmed_by is None and member.approver_since + APPROVER_WAIT > now


def gives(table: PermissionTable, giver: Member, role: Role, custom: CustomRole | None = None) -> frozenset[str]:
    """What of a role its giver doesn't hold, so that they can't give it. An Admin may give each of the seven."""
    if giver.role is Role.ADMIN and custom is None:
        return frozenset()
    wanted = frozenset(custom.permissions if custom else ())
    organization_id = giver.organization_id
    held = table.everywhere(organization_id, giver.role.value, giver.custom_permissions)
    return (wanted or table.everywhere(organization_id, role.value, wanted)) - held


def may_invite(table: PermissionTable, inviter: Member, role: Role) -> bool:
    """Whether a member could invite somebody to a role now."""
    held = table.everywhere(inviter.organization_id, inviter.role.value, inviter.custom_permissions)
    return inviter.state == "ACTIVE" and INVITE in held and not gives(table, inviter, role)


def may_found(table: PermissionTable, founder: Member) -> bool:
    """Whether a member of the platform could create an organization now, and invite its first Admin."""
    held = table.everywhere(founder.organization_id, founder.role.value, founder.custom_permissions)
    return founder.state == "ACTIVE" and FOUND in held


def require_name_free(name: str) -> None:
    """Raise Invalid for a name that one of the other roles has."""
    if name in _TAKEN:
        raise invalid_field("name", "is the name of one of the roles that every organization has; choose another")


def require_known(table: PermissionTable, permissions: Sequence[str]) -> None:
    """Raise Invalid that names what isn't a permission of an organization's roles."""
    known = table.names
    for place, name in enumerate(permissions):
        if name not in known:
            raise invalid_field(
                f"permissions[{place}]", f"{name!r} is no permission that a role can hold; see the permission table"
            )


def require_held(wanted: Iterable[str], held: frozenset[str]) -> None:
    """Raise Denied that names what somebody would give without holding it."""
    missing = sorted(set(wanted) - held)
    if missing:
        raise Denied(
            Reason.ERROR_REASON_PERMISSION_NOT_HELD,
            f"You don't hold {missing[0]}, so you can't give it. Ask somebody who does.",
            {"permission": missing[0]},
        )


def require_unheld(role: CustomRole, holders: int) -> None:
    """Raise WrongState while somebody holds the role."""
    if holders:
        raise WrongState(
            Reason.ERROR_REASON_STATE_WRONG,
            f"{holders} members hold {role.name}. Give them another role first.",
            {"state": "HELD", "allowed": "held by nobody"},
        )


def reads(role: CustomRole) -> dict[str, object]:
    """What an event says of a role."""
    return {"name": role.name, "description": role.description, "permissions": list(role.permissions)}


def assigned(member: Member) -> dict[str, object]:
    """What an event says of a member's role and its limits."""
    return {
        "role": member.role_name,
        "custom_role_id": str(member.custom_role_id) if member.custom_role_id else "",
        "connection_ids": [str(each) for each in member.limits.connection_ids],
        "resource_tags": [f"{key}={value}" for key, value in member.limits.tags],
    }
