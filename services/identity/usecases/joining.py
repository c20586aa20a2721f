"""How a signed-in person becomes a member by accepting an invitation."""

from __future__ import annotations

from uuid import UUID

from services._mesh.context import current
from services._mesh.database import scope
from services._mesh.errors import Denied, NotFound, Reason, WrongState
from services._mesh.ids import PLATFORM
from services._mesh.uow import Store, UnitOfWork
from services.identity.model import invitations as model
from services.identity.model.invitations import Invitation
from services.identity.model.membership import Member, Role, own_user_id
from services.identity.model.permissions import PermissionTable
from services.identity.model.roles import may_found, may_invite
from services.identity.store import invitations as store
from services.identity.store.members import count_members, find_member_of_user, lock_members
from services.identity.store.organizations import get_organization
from services.identity.usecases.invitations import drop_invitation, target_of
from services.identity.usecases.members import add_member
from services.identity.usecases.ownership import first_owner


async def find_invitation(reader: Store, secret: str, expected_organization: UUID | None) -> Invitation:
    """The invitation with a secret, whosever it is. Raises NotFound for a secret of none, or of another organization.

    Runs before an organization is known: the rows that it sees are those whose secret it supplies.
    """
    async with reader.read(UUID(int=0)) as connection:
        found = await store.find_invitation_by_digest(connection, model.digest(secret))
    if found is None or expected_organization not in (None, found.organization_id):
        raise NotFound("invitation")
    return found


async def require_inviter(
    writer: Store, table: PermissionTable, organization_id: UUID, invitation_id: UUID, verified_address: str
) -> None:
    """Take a pending invitation back, by an event, whose inviter could not make it any more. Raises WrongState then.

    To be called before the invitation is accepted: what refuses that would take the event back with it.
    """
    async with writer.begin(organization_id, interim=True) as work:
        await lock_members(work.connection, organization_id)
        found = await store.get_invitation(work.connection, invitation_id, lock=True)
        model.require_invited(found, verified_address)
        if found.state_at(work.now) != "PENDING" or await _inviter_stands(work, table, found):
            return
        await drop_invitation(work, found, "the inviter may not make it any more")
    raise model.orphaned()


async def _inviter_stands(work: UnitOfWork, table: PermissionTable, found: Invitation) -> bool:
    """Whether who invited could invite to that role now: a member's own doing, or the platform's for a first Admin.

    The caller holds `lock_members`.
    """
    connection, inviter = work.connection, own_user_id(found.inviter)
    if await count_members(connection):
        member = await find_member_of_user(connection, work.organization_id, inviter)
        return member is not None and may_invite(table, member, found.role)
    # Nobody is in it yet: the platform founded it. Its members are read in its own scope, and in nothing else is.
    await scope(connection, PLATFORM)
    founder = await find_member_of_user(connection, PLATFORM, inviter)
    await scope(connection, work.organization_id)
    return founder is not None and may_found(table, founder)


async def accept_invitation(
    work: UnitOfWork, table: PermissionTable, invitation_id: UUID, verified_address: str
) -> Member:
    """Become a member. Raises Denied for the wrong person, WrongState where it is over, AlreadyExists for a member.

    Who they are is checked first, so that a stranger with the secret learns nothing of where it stands.
    """
    connection = work.connection
    await lock_members(connection, work.organization_id)
    found = await store.get_invitation(connection, invitation_id, lock=True)
    model.require_invited(found, verified_address)
    model.require_pending(found, work.now)
    if not await _inviter_stands(work, table, found):
        raise model.orphaned()
    if (await get_organization(connection, work.organization_id)).state != "ACTIVE":
        raise WrongState(
            Reason.ERROR_REASON_STATE_WRONG,
            "The organization is suspended.",
            {"state": "SUSPENDED", "allowed": "ACTIVE"},
        )
    if found.role is Role.ADMIN and current().aal < 2:
        raise Denied(
            Reason.ERROR_REASON_ASSURANCE_TOO_LOW,
            "To become an Admin takes a session with a second factor.",
            {"required_aal": "2"},
        )
    member = await add_member(
        work, own_user_id(current().actor), found.email, found.role, given_by=own_user_id(found.inviter)
    )
    accepted = await store.mark_accepted(connection, invitation_id, member.member_id, work.now)
    assert accepted is not None  # Its row is locked.
    after = {"state": "ACCEPTED", "member_id": str(member.member_id)}
    work.emit("identity.invitation.accept", target_of(found), {"before": {"state": "PENDING"}, "after": after})
    await first_owner(work, member)
    return member
