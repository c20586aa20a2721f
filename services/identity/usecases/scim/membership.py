"""What a directory's word means for memberships: who comes, who goes, and with which role.

Users become members when somebody signs in who is proven to be them; from then on the directory decides.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from uuid import UUID

from services._mesh.errors import WrongState
from services._mesh.uow import UnitOfWork
from services.identity.model.membership import Member, Role, fold_address
from services.identity.model.persons import Login, LoginKind
from services.identity.model.scim.roles import DEFAULT_ROLE, GivenRole, role_of
from services.identity.model.scim.users import ScimUser, comparable
from services.identity.model.sso import is_inside
from services.identity.store import scim_groups, scim_users
from services.identity.store.members import find_member_of_user, list_members_of_address, lock_members, mark_role
from services.identity.store.persons import find_linked_identity
from services.identity.store.sso import proven_domains
from services.identity.usecases.elevations import end_elevations
from services.identity.usecases.endings import end_membership, lose_admin, revoke_member
from services.identity.usecases.members import add_member, update_member
from services.identity.usecases.persons import link_identity, responsible_person, unlink_identity, users_of_person
from services.identity.usecases.roles import as_fresh

REASON = "directory"
_ISSUER = "scim"
Roles = Mapping[UUID, GivenRole | None]


def login_of(user: ScimUser) -> Login:
    """How linked identities name a directory's user."""
    return Login(LoginKind.SCIM, _ISSUER, str(user.scim_id))


async def mapped_roles(work: UnitOfWork, scim_ids: Collection[UUID]) -> Roles:
    """The role that the groups of each user stand for; None where they stand for none."""
    mapping = await scim_groups.list_roles(work.connection)
    if not mapping:
        return dict.fromkeys(scim_ids)
    groups = await scim_groups.list_groups_of(work.connection, scim_ids)
    return {each: role_of({group.key for group in groups.get(each, ())}, mapping) for each in scim_ids}


async def apply_roles(work: UnitOfWork, before: Roles, after: Roles) -> int:
    """Give those whose groups now stand for another role that role; returns how many. Raises WrongState."""
    changed = [each for each, role in after.items() if before.get(each) != role]
    count = 0
    for user in await scim_users.list_by_ids(work.connection, changed):
        member = await _member(work, user)
        wanted = after[user.scim_id] or DEFAULT_ROLE
        if member is not None and member.state == "ACTIVE" and not _has(member, wanted):
            await give(work, member, wanted)
            count += 1
    return count


def _has(member: Member, given: GivenRole) -> bool:
    return member.role is given.role and member.custom_role_id == given.custom_id


async def give(work: UnitOfWork, member: Member, given: GivenRole) -> Member:
    """Give a member a role; what they hold is void at once, and who may newly approve is a fresh approver.

    Raises WrongState for the last Admin and the owner.
    """
    if given.custom is None:
        return await update_member(work, member.member_id, given.role, member.etag)
    await lose_admin(work, member)
    wanted = replace(member, role=Role.CUSTOM, custom_role_id=given.custom_id, custom_role=given.custom)
    after = await mark_role(work.connection, member.member_id, as_fresh(work, wanted))
    await revoke_member(work, member)
    await end_elevations(work, member)
    told = {"before": {"role": member.role_name}, "after": {"role": after.role_name}, "user_id": str(member.user_id)}
    work.emit("identity.member.update", f"members/{member.member_id}", told)
    return after


async def deactivate(work: UnitOfWork, user: ScimUser) -> bool:
    """End the memberships of a user's person, by whichever of their logins, and with them sessions, tokens and
    elevations. Raises WrongState (the last Admin).

    Of one whom nobody has signed in as, memberships with the same address end, inside a domain that the organization
    has proven. Only the very login that is the directory's user hands an ownership over: any other owner stays
    (WrongState), because an address alone doesn't prove who somebody is.
    """
    ending = await (_of_person(work, user.user_id) if user.user_id else _of_address(work, user.email))
    for each in ending:
        await end_membership(work, each, REASON, hands_over=each.user_id == user.user_id)
    return bool(ending)


async def _of_person(work: UnitOfWork, user_id: UUID) -> list[Member]:
    person = await responsible_person(work.connection, work.organization_id, user_id)
    users = await users_of_person(work.connection, work.organization_id, person)
    found = [await find_member_of_user(work.connection, work.organization_id, each) for each in sorted(users)]
    return [each for each in found if each is not None and each.state == "ACTIVE"]


async def _of_address(work: UnitOfWork, email: str) -> list[Member]:
    if not is_inside(email, await proven_domains(work.connection)):
        return []
    found = await list_members_of_address(work.connection, email)
    return [each for each in found if each.state == "ACTIVE"]


async def reactivate(work: UnitOfWork, user: ScimUser) -> bool:
    """Bring back the membership that ended; one that somebody suspended stays so."""
    member = await _member(work, user)
    if user.user_id is None or (member is not None and member.state != "REMOVED"):
        return False
    role = (await mapped_roles(work, [user.scim_id]))[user.scim_id]
    await _join(work, user, user.user_id, role or DEFAULT_ROLE)
    return True


async def forget(work: UnitOfWork, user: ScimUser) -> None:
    """End what rests on a user who is deleted. Raises WrongState (the last Admin)."""
    await deactivate(work, user)
    login = login_of(user)
    found = await find_linked_identity(work.connection, work.organization_id, login)
    if found is not None and found.state == "ACTIVE":
        await unlink_identity(work, login)


async def link_person(work: UnitOfWork, user_id: UUID, email: str, name: str = "", *, aal: int = 2) -> Member | None:
    """Make somebody who signs in the directory's user that they are; None where there is no such user, or no clear one.

    The caller has proven that the person holds `email`, inside a domain that the organization has proven, or that its
    identity provider calls them `name`: then the address counts only where it is that name. Never call it with an
    address that somebody merely claims. Whose membership somebody ended doesn't come back by coming, and nobody
    becomes an Admin without a second factor (`aal`, as the session proves it).
    """
    await lock_members(work.connection, work.organization_id)
    member = await find_member_of_user(work.connection, work.organization_id, user_id)
    if member is not None and member.state == "REMOVED":
        return None
    if await scim_users.find_user_of_person(work.connection, user_id) is not None:
        return None
    address = fold_address(email) if not name or fold_address(email) == fold_address(name) else ""
    found = await scim_users.list_unlinked(work.connection, address, comparable(name), name)
    if len(found) != 1:
        return None
    (user,) = found
    is_admin = member is not None and member.role is Role.ADMIN
    if aal < 2 and not is_admin and await _becomes_admin(work, user):
        return None
    await scim_users.mark_user_linked(work.connection, user.scim_id, user_id)
    await link_identity(work, login_of(user), user_id)
    work.emit(
        "identity.scim.link",
        f"scim/Users/{user.scim_id}",
        {"before": {"user_id": ""}, "after": {"user_id": str(user_id)}},
    )
    return await _joined(work, user, user_id)


async def _becomes_admin(work: UnitOfWork, user: ScimUser) -> bool:
    given = (await mapped_roles(work, [user.scim_id]))[user.scim_id]
    return given is not None and given.role is Role.ADMIN


async def is_inactive(work: UnitOfWork, email: str, name: str) -> bool:
    """Whether the directory says that somebody isn't active: nobody else lets them in then, by another login either."""
    return await scim_users.is_inactive(work.connection, fold_address(email), comparable(name), name)


async def _joined(work: UnitOfWork, user: ScimUser, user_id: UUID) -> Member | None:
    role = (await mapped_roles(work, [user.scim_id]))[user.scim_id]
    member = await find_member_of_user(work.connection, work.organization_id, user_id)
    if member is None:
        return await _join(work, user, user_id, role or DEFAULT_ROLE)
    if member.state != "ACTIVE" or role is None or _has(member, role):
        return member
    try:
        return await give(work, member, role)
    except WrongState as refused:
        # The last Admin stays one, the owner too; they are the directory's user all the same.
        asked = role.custom.name if role.custom else role.role.value
        after = {"role": member.role_name, "asked": asked, "why": refused.message}
        facts = {"before": {}, "after": after, "user_id": str(user_id)}
        work.emit("identity.member.update", f"members/{member.member_id}", facts, "DENIED")
        return member


async def _join(work: UnitOfWork, user: ScimUser, user_id: UUID, given: GivenRole) -> Member:
    address = user.email or f"{user.scim_id}@scim.invalid"
    if given.custom is None:
        return await add_member(work, user_id, address, given.role)
    return await give(work, await add_member(work, user_id, address, DEFAULT_ROLE.role), given)


async def _member(work: UnitOfWork, user: ScimUser) -> Member | None:
    if user.user_id is None:
        return None
    return await find_member_of_user(work.connection, work.organization_id, user.user_id)
