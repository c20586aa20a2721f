"""Who owns an organization: one Admin, whom no other Admin can demote or remove until they hand it over."""

from __future__ import annotations

from uuid import UUID

from services._mesh.context import current
from services._mesh.errors import Denied, Reason, WrongState
from services._mesh.uow import UnitOfWork
from services.identity.model.membership import Member, Organization, Role, own_user_id
from services.identity.store import members as members_store
from services.identity.store import ownerships as store
from services.identity.store.organizations import get_organization


async def transfer_ownership(work: UnitOfWork, member_id: UUID) -> Organization:
    """Hand the ownership over to another Admin. Raises NotFound, Denied (OWNER_ONLY), WrongState."""
    connection, organization_id = work.connection, work.organization_id
    heir = await _heir(work, member_id)
    caller = await members_store.find_member_of_user(connection, organization_id, own_user_id(current().actor))
    owner = await store.find_owner(connection, organization_id)
    if owner is not None and (caller is None or caller.member_id != owner):
        raise Denied(Reason.ERROR_REASON_OWNER_ONLY, "Only the owner hands the ownership over.")
    await _pass_on(work, owner, heir, "identity.ownership.transfer", {})
    return await get_organization(connection, organization_id)


async def reassign_ownership(work: UnitOfWork, member_id: UUID, reason: str) -> None:
    """Make another Admin the owner, as the platform. Raises NotFound, WrongState."""
    heir = await _heir(work, member_id)
    owner = await store.find_owner(work.connection, work.organization_id)
    await _pass_on(work, owner, heir, "identity.ownership.reassign", {"reason": reason})


async def _heir(work: UnitOfWork, member_id: UUID) -> Member:
    heir = await members_store.get_active_member(work.connection, work.organization_id, member_id)
    if heir.role is not Role.ADMIN:
        raise WrongState(
            Reason.ERROR_REASON_STATE_WRONG,
            "Only an Admin can own the organization. Make them one first.",
            {"state": heir.role.value, "allowed": Role.ADMIN.value},
        )
    return heir


async def _pass_on(work: UnitOfWork, owner: UUID | None, heir: Member, action: str, more: dict[str, str]) -> None:
    if owner == heir.member_id:
        raise WrongState(
            Reason.ERROR_REASON_STATE_WRONG,
            "This member owns the organization already.",
            {"state": "OWNER", "allowed": "another member"},
        )
    await store.mark_owner(work.connection, work.organization_id, heir.member_id, work.now)
    before = {"member_id": str(owner)} if owner else {}
    about = {"before": before, "after": {"member_id": str(heir.member_id)}, **more}
    work.emit(action, f"organizations/{work.organization_id}", about)


async def first_owner(work: UnitOfWork, member: Member) -> None:
    """Make the first Admin of an organization its owner. The caller holds `lock_members`."""
    is_first = member.role is Role.ADMIN and await members_store.count_admins(work.connection) == 1
    if is_first and await store.find_owner(work.connection, work.organization_id) is None:
        await _pass_on(work, None, member, "identity.ownership.transfer", {"why": "the first Admin"})


async def refuse_owner(work: UnitOfWork, member: Member) -> None:
    """Raise WrongState (OWNER_STAYS) where the member owns the organization. The caller holds `lock_members`."""
    if await store.find_owner(work.connection, work.organization_id) == member.member_id:
        raise WrongState(
            Reason.ERROR_REASON_OWNER_STAYS,
            "The owner stays an Admin until they hand the ownership over.",
            {"member_id": str(member.member_id)},
        )


async def succeed_owner(work: UnitOfWork, member: Member) -> None:
    """Where the member owns the organization, give it to the Admin who has been a member the longest.

    For directories, which end a membership and can't ask. The caller holds `lock_members` and knows of another Admin.
    """
    if await store.find_owner(work.connection, work.organization_id) != member.member_id:
        return
    heir = next(each for each in await members_store.list_admins(work.connection) if each.member_id != member.member_id)
    await _pass_on(work, member.member_id, heir, "identity.ownership.transfer", {"why": "the owner's membership ends"})
