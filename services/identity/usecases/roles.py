"""Custom roles, who gets which role, and who may approve before their first day is over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from services._mesh.context import current
from services._mesh.errors import AlreadyExists, Denied, Exhausted, Reason, WrongState, invalid_field
from services._mesh.ids import PLATFORM, uuid7
from services._mesh.resource_limits import ResourceLimits
from services._mesh.revocations import RevocationKind
from services._mesh.uow import Store, UnitOfWork
from services.identity.model.membership import CustomRole, Member, Role, require_etag
from services.identity.model.permissions import PermissionTable
from services.identity.model.roles import (
    APPROVER_WAIT,
    MAX_ROLES,
    assigned,
    gives,
    is_fresh,
    reads,
    require_held,
    require_known,
    require_name_free,
    require_unheld,
)
from services.identity.store import members as members_store
from services.identity.store import roles as store
from services.identity.store.revocations import insert_revocations
from services.identity.store.sso import came_by_changed_provider, is_mapped
from services.identity.usecases.elevations import end_elevations
from services.identity.usecases.endings import active_member, lose_admin, revoke_member
from services.identity.usecases.persons import responsible_person, users_of_person


async def list_roles(reader: Store, after: UUID | None, limit: int) -> list[tuple[CustomRole, int]]:
    """Custom roles by id, with how many hold each; one more than `limit` shows that there are more."""
    async with reader.read() as connection:
        return await store.list_roles(connection, after, limit + 1)


async def get_role(reader: Store, role_id: UUID) -> tuple[CustomRole, int]:
    """One custom role, and how many hold it. Raises NotFound."""
    async with reader.read() as connection:
        return await store.get_held_role(connection, role_id)


async def create_role(
    work: UnitOfWork, table: PermissionTable, name: str, description: str, permissions: Sequence[str]
) -> CustomRole:
    """Make a custom role. Raises Invalid, Denied (PERMISSION_NOT_HELD), AlreadyExists, Exhausted."""
    require_name_free(name)
    await _require_giveable(work, table, permissions)
    if await store.count_roles(work.connection) >= MAX_ROLES:
        raise Exhausted(
            Reason.ERROR_REASON_QUOTA_EXCEEDED,
            f"An organization has {MAX_ROLES} custom roles at most. Delete one that nobody needs.",
            {"limit": str(MAX_ROLES)},
        )
    made = CustomRole(work.organization_id, uuid7(), name, description, tuple(sorted(permissions)), 1, work.now)
    if not await store.insert_role(work.connection, made):
        raise AlreadyExists(
            Reason.ERROR_REASON_RESOURCE_EXISTS, f"There is a role {name} already.", {"resource": "role"}
        )
    work.emit("identity.role.create", f"roles/{made.role_id}", {"after": reads(made)})
    return made


async def _require_giveable(work: UnitOfWork, table: PermissionTable, permissions: Sequence[str]) -> None:
    require_known(table, permissions)
    require_held(permissions, (await _caller(work, table))[1])


async def _caller(work: UnitOfWork, table: PermissionTable) -> tuple[Member, frozenset[str]]:
    """The caller's membership and all that its role holds: what they were lent for a while doesn't count."""
    call = current()
    user = call.actor.removeprefix("user:")
    found = None
    if user != call.actor:
        found = await members_store.find_member_of_user(work.connection, work.organization_id, UUID(user))
    if found is None or found.state != "ACTIVE":
        raise Denied(
            Reason.ERROR_REASON_PERMISSION_MISSING, "Only members give roles.", {"permission": "identity.role.assign"}
        )
    return found, table.everywhere(work.organization_id, found.role.value, found.custom_permissions)


async def update_role(
    work: UnitOfWork, table: PermissionTable, role_id: UUID, description: str, permissions: Sequence[str], etag: str
) -> tuple[CustomRole, int]:
    """Change a custom role, and say how many hold it: what they have in hand is void at once.

    A role that may approve more than before makes fresh approvers of them.
    Raises NotFound, Conflict (ETAG_MISMATCH), Invalid, Denied (PERMISSION_NOT_HELD).
    """
    before = await store.get_role(work.connection, role_id, lock=True)
    require_etag(etag, before.etag)
    wanted = tuple(sorted(permissions)) or before.permissions
    await _require_giveable(work, table, wanted)
    after = await store.mark_role(
        work.connection, role_id, description=description or before.description, permissions=list(wanted)
    )
    gained = table.approvals.intersection(after.permissions).difference(before.permissions)
    fresh = {"approver_since": work.now, "approver_by": current().responsible_person, "confirmed_by": None}
    holders = await members_store.mark_holders(work.connection, before, after, **(fresh if gained else {}))
    await _void(work, holders)
    work.emit("identity.role.update", f"roles/{role_id}", {"before": reads(before), "after": reads(after)})
    return after, len(holders)


async def _void(work: UnitOfWork, people: Sequence[UUID]) -> None:
    keys = [f"{work.organization_id}/user:{person}" for person in people]
    await insert_revocations(work.connection, RevocationKind.MEMBER.name, keys, work.wall_now)


async def delete_role(work: UnitOfWork, role_id: UUID) -> None:
    """Delete a custom role. Raises NotFound, WrongState while somebody holds it."""
    role = await store.get_role(work.connection, role_id, lock=True)
    if await is_mapped(work.connection, role_id):
        raise WrongState(
            Reason.ERROR_REASON_STATE_WRONG,
            f"A group of an identity provider has {role.name}. Map it to another role first.",
            {"state": "MAPPED", "allowed": "mapped to by no group"},
        )
    require_unheld(role, await members_store.drop_former_holders(work.connection, role_id))
    await store.delete_role(work.connection, role_id)
    work.emit("identity.role.delete", f"roles/{role_id}", {"before": reads(role)})


@dataclass(frozen=True, slots=True)
class Assignment:
    """Which role a member is to have: one of the seven, or a custom one; and what it is limited to."""

    member_id: UUID
    role: Role | None
    custom_role_id: UUID | None
    limits: ResourceLimits
    etag: str


async def assign_role(work: UnitOfWork, table: PermissionTable, given: Assignment) -> Member:
    """Give a member a role; what they hold is void at once, and who may newly approve is a fresh approver.

    Raises NotFound, Invalid, Conflict (ETAG_MISMATCH), Denied (PERMISSION_NOT_HELD), WrongState for the last Admin.
    """
    if (given.role is None) == (given.custom_role_id is None):
        raise invalid_field("role", "say either role or custom_role_id")
    if given.role is Role.ADMIN and given.limits:
        raise invalid_field("limits", "an Admin runs the whole organization; give another role, or no limits")
    before = await active_member(work, given.member_id)
    require_etag(given.etag, before.etag)
    custom = await store.get_role(work.connection, given.custom_role_id, lock=True) if given.custom_role_id else None
    role = given.role or Role.CUSTOM
    await require_may_give(work, table, role, custom)
    await require_may_change(work, table, before.member_id)
    return await give_role(work, before, role, custom, given.limits)


async def give_role(
    work: UnitOfWork,
    before: Member,
    role: Role,
    custom: CustomRole | None,
    limits: ResourceLimits,
    given_by: UUID | None = None,
) -> Member:
    """Give a locked member a role that somebody may give (`require_may_give`): the caller, or `given_by` earlier.

    Raises WrongState for the last Admin, and for who may sign in without an enforced identity provider.
    """
    if role is not Role.ADMIN:
        await lose_admin(work, before)
    role_id = custom.role_id if custom else None
    wanted = replace(before, role=role, custom_role_id=role_id, custom_role=custom, limits=limits)
    # What they may approve beyond what they could, be it only by wider limits, is as new to them as another role.
    if wanted.role_key != before.role_key or not limits.is_within(before.limits):
        wanted = as_fresh(work, wanted, given_by)
    after = await members_store.mark_role(work.connection, before.member_id, wanted)
    await revoke_member(work, before)
    await end_elevations(work, before)
    changed = {"user_id": str(before.user_id), "before": assigned(before), "after": assigned(after)}
    work.emit("identity.role.assign", f"members/{before.member_id}", changed)
    return after


async def require_may_give(
    work: UnitOfWork, table: PermissionTable, role: Role, custom: CustomRole | None = None
) -> None:
    """Raise Denied unless the caller holds all that a role holds. An Admin may give each of the seven."""
    caller, held = await _caller(work, table)
    require_held(gives(table, caller, role, custom), held)


async def require_may_change(work: UnitOfWork, table: PermissionTable, *member_ids: UUID) -> None:
    """Raise Denied unless the caller holds all that each of these members' roles holds: nobody rules who is above them.

    Raises NotFound.
    """
    await members_store.lock_members(work.connection, work.organization_id)
    caller, held = await _caller(work, table)
    if caller.role is Role.ADMIN:
        return
    for member_id in member_ids:
        member = await members_store.get_member(work.connection, member_id)
        require_held(table.everywhere(work.organization_id, member.role.value, member.custom_permissions), held)


def as_fresh(work: UnitOfWork, member: Member, given_by: UUID | None = None) -> Member:
    """A member whose role is new to them from now on, by the caller's decision if nobody else is named."""
    giver = given_by or current().responsible_person
    return replace(member, approver_for=member.role_key, approver_since=work.now, approver_by=giver, confirmed_by=None)


async def confirm_approver(work: UnitOfWork, member_id: UUID, etag: str) -> Member:
    """Let a fresh approver approve. Raises NotFound, Conflict, WrongState, Denied (SECOND_PERSON_REQUIRED)."""
    before = await active_member(work, member_id)
    require_etag(etag, before.etag)
    if not is_fresh(before, work.now):
        raise WrongState(
            Reason.ERROR_REASON_STATE_WRONG, "They may approve already.", {"state": "SETTLED", "allowed": "FRESH"}
        )
    user = current().responsible_person or PLATFORM
    person = await responsible_person(work.connection, work.organization_id, user)
    users = await users_of_person(work.connection, work.organization_id, person)
    if user == PLATFORM or users & {before.user_id, before.approver_by}:
        raise Denied(
            Reason.ERROR_REASON_SECOND_PERSON_REQUIRED,
            "Neither a new approver nor who made them one can confirm it. Ask another Admin, or wait for a day.",
        )
    if before.approver_for == before.role_key and not await _is_vouched_for(work, before):
        raise Denied(
            Reason.ERROR_REASON_SECOND_PERSON_REQUIRED,
            "Nobody else who has been here for a day gave them this role, so nobody can confirm it. Wait for a day.",
        )
    settled = replace(before, approver_for=before.role_key, confirmed_by=person)
    after = await members_store.mark_role(work.connection, member_id, settled, confirmed_at=work.now)
    await revoke_member(work, before)
    work.emit(
        "identity.approver.confirm",
        f"members/{member_id}",
        {"user_id": str(before.user_id), "role": before.role_name, "before": "FRESH", "after": "SETTLED"},
    )
    return after


async def _is_vouched_for(work: UnitOfWork, member: Member) -> bool:
    """Whether somebody else gave the role, and it was surely them: two people, and not one with a guest."""
    return member.approver_by is not None and await is_settled(work, member.approver_by, but=member.user_id)


async def is_settled(work: UnitOfWork, user_id: UUID, but: UUID | None = None) -> bool:
    """Whether somebody is a member still and no newcomer, and isn't also `but`, by any of their logins.

    Nor may they have come by an identity provider that waits itself: it may have been who changed that. The caller
    holds `lock_members`.
    """
    connection, organization_id = work.connection, work.organization_id
    person = await responsible_person(connection, organization_id, user_id)
    users = await users_of_person(connection, organization_id, person)
    if but in users:
        return False
    if await came_by_changed_provider(connection, users, work.now - APPROVER_WAIT):
        return False
    found = [await members_store.find_member_of_user(connection, organization_id, user) for user in sorted(users)]
    active = [each for each in found if each is not None and each.state == "ACTIVE"]
    return bool(active) and not any(is_fresh(each, work.now) for each in active)
