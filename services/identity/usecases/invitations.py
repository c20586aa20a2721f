"""Invitations: made, listed, taken back. Their secret is returned once, and kept as its SHA-256 only."""

from __future__ import annotations

from uuid import UUID

from services._mesh.context import current
from services._mesh.errors import AlreadyExists, Exhausted, Reason
from services._mesh.ids import uuid7
from services._mesh.uow import Store, UnitOfWork
from services.identity.model import invitations as model
from services.identity.model.invitations import Invitation
from services.identity.model.membership import Member, Role
from services.identity.store import invitations as store
from services.identity.store import members as members_store


async def create_invitation(work: UnitOfWork, email: str, role: Role, hours: int) -> tuple[Invitation, str]:
    """Invite an address; returns the invitation and its secret. Raises Invalid, AlreadyExists, Exhausted."""
    connection, address = work.connection, model.address(email)
    await members_store.lock_members(connection, work.organization_id)
    if any(each.state == "ACTIVE" for each in await members_store.list_members_of_address(connection, address)):
        raise AlreadyExists(
            Reason.ERROR_REASON_RESOURCE_EXISTS, "Whoever has this address is a member already.", {"resource": "member"}
        )
    replaced = await store.mark_revoked(connection, work.now, email=address)
    for each in replaced:
        _revoked(work, each, "invited anew")
    if await store.count_open_invitations(connection, work.now) >= model.MOST_PENDING:
        raise Exhausted(
            Reason.ERROR_REASON_QUOTA_EXCEEDED,
            f"{model.MOST_PENDING} invitations are pending. Take some back first.",
            {"limit": str(model.MOST_PENDING)},
        )
    invitation = Invitation(
        work.organization_id,
        uuid7(),
        address,
        role,
        "PENDING",
        current().actor,
        work.now,
        work.now + model.period(hours),
        None,
        None,
    )
    secret = model.new_secret()
    await store.insert_invitation(connection, invitation, model.digest(secret))
    after = {"state": "PENDING", "role": role.value, "expires_at": invitation.expires_at.isoformat()}
    work.emit("identity.invitation.create", target_of(invitation), {"before": {}, "after": after})
    return invitation, secret


async def list_invitations(reader: Store, before: UUID | None, limit: int) -> list[Invitation]:
    """Invitations, the newest first; one more than `limit` shows that there are more."""
    async with reader.read() as connection:
        return await store.list_invitations(connection, before, limit + 1)


async def revoke_invitation(work: UnitOfWork, invitation_id: UUID) -> Invitation:
    """Take an invitation back. Raises NotFound, WrongState."""
    found = await store.get_invitation(work.connection, invitation_id, lock=True)
    model.require_pending(found, work.now)
    return await drop_invitation(work, found, "taken back")


async def drop_invitation(work: UnitOfWork, invitation: Invitation, why: str) -> Invitation:
    """Take a locked, pending invitation back."""
    (revoked,) = await store.mark_revoked(work.connection, work.now, invitation_id=invitation.invitation_id)
    _revoked(work, revoked, why)
    return revoked


async def end_invitations(work: UnitOfWork, member: Member) -> int:
    """An ending: whom somebody invited doesn't come in after they went, or after they may invite nobody any more."""
    revoked = await store.mark_revoked(work.connection, work.now, inviter=member.actor)
    for each in revoked:
        _revoked(work, each, "the inviter went")
    return len(revoked)


def _revoked(work: UnitOfWork, invitation: Invitation, why: str) -> None:
    about = {"before": {"state": "PENDING"}, "after": {"state": "REVOKED"}, "why": why}
    work.emit("identity.invitation.revoke", target_of(invitation), about)


def target_of(invitation: Invitation) -> str:
    """How events name an invitation."""
    return f"invitations/{invitation.invitation_id}"
