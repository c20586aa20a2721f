"""Invitations in the database."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services._mesh.errors import NotFound
from services.identity.model.invitations import Invitation
from services.identity.model.membership import Role
from services.identity.tables.invitations import invitations

# Without the digest of the secret: nothing but the look-up needs it.
_COLUMNS = [column for column in invitations.c if column.name != "secret_digest"]


def _invitation(row: Any) -> Invitation:
    return Invitation(
        row.organization_id,
        row.invitation_id,
        row.email,
        Role(row.role),
        row.state,
        row.inviter,
        row.created_at,
        row.expires_at,
        row.settled_at,
        row.member_id,
    )


async def find_invitation_by_digest(connection: AsyncConnection, digest: bytes) -> Invitation | None:
    """The invitation whose secret has this SHA-256, of whichever organization: the policy `by_secret` shows it."""
    supplied = text("SELECT set_config('app.invitation_sha256', :digest, true)")
    await connection.execute(supplied, {"digest": digest.hex()})
    query = select(*_COLUMNS).where(invitations.c.secret_digest == digest)
    row = (await connection.execute(query)).one_or_none()
    return _invitation(row) if row else None


async def get_invitation(connection: AsyncConnection, invitation_id: UUID, *, lock: bool = False) -> Invitation:
    """An invitation of the transaction's organization. Raises NotFound."""
    query = select(*_COLUMNS).where(invitations.c.invitation_id == invitation_id)
    row = (await connection.execute(query.with_for_update() if lock else query)).one_or_none()
    if row is None:
        raise NotFound("invitation")
    return _invitation(row)


async def list_invitations(connection: AsyncConnection, before: UUID | None, limit: int) -> list[Invitation]:
    """Invitations of the transaction's organization, the newest first (their ids rise with time), before `before`."""
    query = select(*_COLUMNS).order_by(invitations.c.invitation_id.desc()).limit(limit)
    if before is not None:
        query = query.where(invitations.c.invitation_id < before)
    return [_invitation(row) for row in await connection.execute(query)]


async def count_open_invitations(connection: AsyncConnection, now: datetime) -> int:
    """How many of the transaction's organization can be accepted now."""
    query = select(func.count()).where(invitations.c.state == "PENDING", invitations.c.expires_at > now)
    return int((await connection.execute(query)).scalar_one())


async def insert_invitation(connection: AsyncConnection, invitation: Invitation, digest: bytes) -> None:
    """Insert an invitation."""
    await connection.execute(
        insert(invitations).values(
            organization_id=invitation.organization_id,
            invitation_id=invitation.invitation_id,
            email=invitation.email,
            role=invitation.role.value,
            secret_digest=digest,
            state=invitation.state,
            inviter=invitation.inviter,
            created_at=invitation.created_at,
            expires_at=invitation.expires_at,
        )
    )


async def mark_accepted(
    connection: AsyncConnection, invitation_id: UUID, member_id: UUID, now: datetime
) -> Invitation | None:
    """Take the invitation, if it can be taken now; None where somebody was faster or it is over."""
    values = {"state": "ACCEPTED", "member_id": member_id, "settled_at": now}
    changed = (
        update(invitations)
        .where(
            invitations.c.invitation_id == invitation_id,
            invitations.c.state == "PENDING",
            invitations.c.expires_at > now,
        )
        .values(**values)
        .returning(*_COLUMNS)
    )
    row = (await connection.execute(changed)).one_or_none()
    return _invitation(row) if row else None


async def mark_revoked(
    connection: AsyncConnection, now: datetime, *, email: str = "", inviter: str = "", invitation_id: UUID | None = None
) -> list[Invitation]:
    """Take back pending invitations of an address, of an inviter, or one; returns them."""
    changed = update(invitations).where(invitations.c.state == "PENDING").values(state="REVOKED", settled_at=now)
    if email:
        changed = changed.where(invitations.c.email == email)
    if inviter:
        changed = changed.where(invitations.c.inviter == inviter)
    if invitation_id is not None:
        changed = changed.where(invitations.c.invitation_id == invitation_id)
    assert email or inviter or invitation_id is not None
    return [_invitation(row) for row in await connection.execute(changed.returning(*_COLUMNS))]
