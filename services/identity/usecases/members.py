"""Members: who belongs to an organization, and with which role. What ends when they go is in `endings`."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from services._mesh.context import current, find_current
from services._mesh.errors import AlreadyExists, Reason
from services._mesh.ids import uuid7
from services._mesh.resource_limits import ResourceLimits
from services._mesh.revocations import RevocationKind
from services._mesh.uow import Store, UnitOfWork
from services.identity.model.membership import Member, Role, require_etag
from services.identity.store import members as store
from services.identity.store.admissions import sessions_of
from services.identity.store.revocations import insert_revocation
from services.identity.usecases.elevations import end_elevations
from services.identity.usecases.endings import active_member, end_membership, lose_admin, revoke_member
from services.identity.usecases.persons import link_by_address
from services.identity.usecases.sso_sessions import end_sso_sessions


async def list_members(reader: Store, after: UUID | None, limit: int) -> list[Member]:
    """Members by id; one more than `limit` shows that there are more."""
    async with reader.read() as connection:
        return await store.list_members(connection, after, limit + 1)


async def get_member(reader: Store, member_id: UUID) -> Member:
    """One member. Raises NotFound."""
    async with reader.read() as connection:
        return await store.get_member(connection, member_id)


async def add_member(
    work: UnitOfWork,
    user_id: UUID,
    email: str,
    role: Role,
    *,
    given_by: UUID | None = None,
    confirmed_by: UUID | None = None,
) -> Member:
    """Make a person a member; one who was removed comes back. Raises AlreadyExists.

    Where the role may approve they are a fresh approver, unless somebody answers for them (`confirmed_by`).
    `given_by` is who decided on the role: the caller, if nobody else is named.
    """
    await store.lock_members(work.connection, work.organization_id)
    before = await store.find_member_of_user(work.connection, work.organization_id, user_id)
    call = find_current()
    giver = given_by or (call.responsible_person if call else None)
    # Who comes by their own sign-in has their role from nobody that is known: a default isn't their own decision.
    giver = None if giver == user_id else giver
    member = Member(
        *(work.organization_id, uuid7(), user_id, email, role, "ACTIVE", 1, work.now),
        approver_by=giver,
        confirmed_by=confirmed_by,
    )
    if not await store.insert_member(work.connection, member):
        raise AlreadyExists(
            Reason.ERROR_REASON_RESOURCE_EXISTS, "This person is a member already.", {"resource": "member"}
        )
    found = await store.find_member_of_user(work.connection, work.organization_id, user_id)
    assert found is not None
    was = {"role": before.role.value, "state": before.state} if before else {}
    is_now = {"role": found.role.value, "state": found.state}
    work.emit(
        "identity.member.add",
        f"members/{found.member_id}",
        {"before": was, "after": is_now, "user_id": str(user_id)},
    )
    await link_by_address(work, found)
    return found


async def update_member(work: UnitOfWork, member_id: UUID, role: Role, etag: str) -> Member:
    """Give a member another role; what they hold is void at once. Raises NotFound, Conflict, WrongState."""
    before = await active_member(work, member_id)
    require_etag(etag, before.etag)
    if role is not Role.ADMIN:
        await lose_admin(work, before)
    limits = before.limits if role is not Role.ADMIN else ResourceLimits()
    wanted = replace(before, role=role, custom_role_id=None, custom_role=None, limits=limits)
    if wanted.role_key != before.role_key:
        giver = current().responsible_person
        wanted = replace(wanted, approver_since=work.now, approver_by=giver, confirmed_by=None)
    after = await store.mark_role(work.connection, member_id, wanted)
    await revoke_member(work, before)
    await end_elevations(work, before)
    work.emit(
        "identity.member.update",
        f"members/{member_id}",
        {"before": {"role": before.role_name}, "after": {"role": role.value}, "user_id": str(before.user_id)},
    )
    return after


async def remove_member(work: UnitOfWork, member_id: UUID) -> None:
    """End a membership and all that rests on it. Raises NotFound, WrongState."""
    await end_membership(work, await active_member(work, member_id), "removed")


async def revoke_member_sessions(work: UnitOfWork, member_id: UUID) -> int:
    """End all sessions of a member in this organization: whoever goes on signs in anew. Returns the place in the feed.

    Raises NotFound.
    """
    member = await active_member(work, member_id)
    key = sessions_of(work.organization_id, member.actor)
    await insert_revocation(work.connection, RevocationKind.SESSION.name, key, work.wall_now)
    seq = await revoke_member(work, member)
    await end_elevations(work, member)
    await end_sso_sessions(work, member)
    work.emit("identity.session.revoke", f"members/{member_id}", {"seq": str(seq), "user_id": str(member.user_id)})
    return seq
