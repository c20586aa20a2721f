"""What Admins say and see of provisioning: the roles that groups stand for, and how it goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from services._mesh.uow import Store, UnitOfWork
from services.identity.model.permissions import PermissionTable
from services.identity.model.scim.roles import GroupRole, require_sound
from services.identity.store import scim_groups, scim_tokens, scim_users
from services.identity.store.members import lock_members
from services.identity.store.roles import get_role
from services.identity.usecases.roles import require_may_give
from services.identity.usecases.scim import membership


@dataclass(frozen=True, slots=True)
class Status:
    """How provisioning goes: counts, when a directory was last let in, when it last changed anything, the roles."""

    users: int
    active_users: int
    linked_users: int
    groups: int
    last_seen_at: datetime | None
    last_sync_at: datetime | None
    roles: Sequence[GroupRole]


async def update_scim_roles(work: UnitOfWork, table: PermissionTable, roles: Sequence[GroupRole]) -> int:
    """Say anew what groups stand for, to everybody at once; returns how many got another role.

    Raises Invalid where a group is there twice, NotFound for a custom role that isn't there, Denied
    (PERMISSION_NOT_HELD) for one that holds what the caller doesn't, WrongState where no Admin would be left.
    """
    require_sound(roles)
    for each in roles:
        custom = await get_role(work.connection, each.custom_role_id) if each.custom_role_id else None
        await require_may_give(work, table, each.role, custom)
    await lock_members(work.connection, work.organization_id)
    before = await scim_groups.list_roles(work.connection)
    linked = [user.scim_id for user in await scim_users.list_linked(work.connection)]
    had = await membership.mapped_roles(work, linked)
    await scim_groups.replace_roles(work.connection, work.organization_id, roles)
    changed = await membership.apply_roles(work, had, await membership.mapped_roles(work, linked))
    work.emit(
        "identity.scim_roles.update",
        "scim/Roles",
        {"before": _told(before), "after": _told(roles), "changed_members": str(changed)},
    )
    return changed


def _told(roles: Sequence[GroupRole]) -> list[dict[str, str]]:
    return [
        {"group": each.group, "role": each.role.value, "custom_role_id": str(each.custom_role_id or "")}
        for each in roles
    ]


async def get_scim_status(reader: Store) -> Status:
    """How provisioning goes in the organization."""
    async with reader.read() as connection:
        users, active, linked = await scim_users.count_by_state(connection)
        groups = await scim_groups.count_groups(connection, None)
        seen, synced = await scim_tokens.last_uses(connection)
        roles = await scim_groups.list_roles(connection)
    return Status(users, active, linked, groups, seen, synced, roles)
