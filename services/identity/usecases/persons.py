"""Who is responsible: the users that are one human being, and the logins that others vouch for.

Linking only ever narrows what somebody may do, so equal addresses link by themselves. Unlinking widens it, so nobody
unlinks themself.
"""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from services._mesh.context import current
from services._mesh.errors import AlreadyExists, Denied, NotFound, Reason
from services._mesh.ids import uuid7
from services._mesh.revocations import RevocationKind
from services._mesh.uow import Store, UnitOfWork
from services.identity.model.membership import Member
from services.identity.model.persons import LinkedIdentity, Login, after_split
from services.identity.store import members as members_store
from services.identity.store import persons as store
from services.identity.store.revocations import insert_revocations

# What a passport's responsible person comes from: `await responsible_person(connection, organization_id, user_id)`.
# For separation of duties against something recorded earlier, ask whether the recorded id is among
# `await users_of_person(…)`: two users may have been linked since then, and the recorded id is one of theirs.
responsible_person = store.person_of_user
users_of_person = store.users_of_person
find_linked_identity = store.find_linked_identity


async def link_member(work: UnitOfWork, member_id: UUID, same_as_member_id: UUID) -> UUID:
    """Say that two members are one human being; returns the person's id. Raises NotFound, AlreadyExists."""
    await members_store.lock_members(work.connection, work.organization_id)
    member = await members_store.get_member(work.connection, member_id)
    other = await members_store.get_member(work.connection, same_as_member_id)
    if not await link_users(work, member.user_id, other.user_id):
        raise AlreadyExists(
            Reason.ERROR_REASON_RESOURCE_EXISTS, "These members are one person already.", {"resource": "link"}
        )
    return await store.person_of_user(work.connection, work.organization_id, member.user_id)


async def link_users(work: UnitOfWork, user_id: UUID, same_as: UUID, why: str = "said by an Admin") -> bool:
    """Make two users one person; False where they are one already. The caller holds `lock_members`."""
    connection, organization_id = work.connection, work.organization_id
    before = await store.person_of_user(connection, organization_id, user_id)
    after = await store.person_of_user(connection, organization_id, same_as)
    if before == after:
        return False
    users = await store.users_of_person(connection, organization_id, before)
    await store.mark_persons(connection, organization_id, users | {after}, after, work.now)
    await _void(work, await store.users_of_person(connection, organization_id, after))
    work.emit(
        "identity.person.link",
        f"users/{user_id}",
        {"before": {"person": str(before)}, "after": {"person": str(after)}, "why": why},
    )
    return True


async def _void(work: UnitOfWork, users: Iterable[UUID]) -> None:
    """What says who they were as a person holds no longer."""
    keys = [f"{work.organization_id}/user:{user}" for user in sorted(users)]
    await insert_revocations(work.connection, RevocationKind.MEMBER.name, keys, work.wall_now)


async def link_by_address(work: UnitOfWork, member: Member) -> None:
    """Link a member to whoever has, or had, the same address here: two logins with one address are one person."""
    for other in await members_store.list_members_of_address(work.connection, member.email):
        if other.user_id != member.user_id:
            await link_users(work, member.user_id, other.user_id, "the same address")


async def unlink_member(work: UnitOfWork, member_id: UUID) -> None:
    """Say that a member is a person of their own. Raises NotFound, Denied (OWN_PERSON).

    Whoever is that person can't: they could approve what they asked for a moment later.
    """
    await members_store.lock_members(work.connection, work.organization_id)
    member = await members_store.get_member(work.connection, member_id)
    person_id = await store.person_of_user(work.connection, work.organization_id, member.user_id)
    users = await store.users_of_person(work.connection, work.organization_id, person_id)
    if len(users) == 1:
        raise NotFound("link")
    if current().responsible_person in users:
        raise Denied(
            Reason.ERROR_REASON_OWN_PERSON, "Nobody unlinks themself. Ask another Admin.", {"member_id": str(member_id)}
        )
    goes_on = after_split(users, person_id, member.user_id)
    assert goes_on is not None
    now, organization_id = work.now, work.organization_id
    await store.mark_persons(work.connection, organization_id, users - {member.user_id}, goes_on, now)
    await store.mark_persons(work.connection, organization_id, [member.user_id], member.user_id, now)
    await _void(work, users)
    work.emit(
        "identity.person.unlink",
        f"users/{member.user_id}",
        {"before": {"person": str(person_id)}, "after": {"person": str(member.user_id)}},
    )


async def link_identity(work: UnitOfWork, login: Login, user_id: UUID) -> LinkedIdentity:
    """Remember that a login of an identity provider or directory is a user; a removed one comes back.

    Raises AlreadyExists where the login is another user's: it never moves by itself.
    """
    found = await store.find_linked_identity(work.connection, work.organization_id, login)
    if found is not None and found.user_id != user_id:
        raise AlreadyExists(
            Reason.ERROR_REASON_RESOURCE_EXISTS, "This login is another user's.", {"resource": "linked_identity"}
        )
    if found is not None and found.state == "ACTIVE":
        return found
    if found is None:
        identity = LinkedIdentity(work.organization_id, uuid7(), login, user_id, "ACTIVE", work.now)
        await store.insert_linked_identity(work.connection, identity)
    else:
        identity = await store.mark_linked_identity(work.connection, found.identity_id, state="ACTIVE")
    _emit(work, "identity.login.link", identity, found.state if found else "")
    return identity


async def unlink_identity(work: UnitOfWork, login: Login) -> LinkedIdentity:
    """Forget that a login is a user, so that nobody signs in by it. Raises NotFound."""
    found = await store.find_linked_identity(work.connection, work.organization_id, login)
    if found is None or found.state != "ACTIVE":
        raise NotFound("linked_identity")
    identity = await store.mark_linked_identity(work.connection, found.identity_id, state="REMOVED")
    _emit(work, "identity.login.unlink", identity, found.state)
    return identity


def _emit(work: UnitOfWork, action: str, identity: LinkedIdentity, before: str) -> None:
    facts = {"kind": identity.login.kind.value, "user_id": str(identity.user_id)}
    work.emit(
        action,
        f"linkedIdentities/{identity.identity_id}",
        {"before": {"state": before}, "after": {"state": identity.state}, **facts},
    )


async def list_linked_identities(reader: Store, after: UUID | None, limit: int) -> list[LinkedIdentity]:
    """Active logins by id; one more than `limit` shows that there are more."""
    async with reader.read() as connection:
        return await store.list_linked_identities(connection, after, limit + 1)
