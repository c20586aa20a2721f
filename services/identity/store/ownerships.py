"""Who owns an organization, in the database."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.identity.tables.invitations import ownerships


async def find_owner(connection: AsyncConnection, organization_id: UUID) -> UUID | None:
    """The owner's membership; None where the organization has no owner yet. The caller holds `lock_members`."""
    query = select(ownerships.c.member_id).where(ownerships.c.organization_id == organization_id)
    found: UUID | None = (await connection.execute(query)).scalar_one_or_none()
    return found


async def mark_owner(connection: AsyncConnection, organization_id: UUID, member_id: UUID, now: datetime) -> None:
    """Make a member the owner."""
    added = insert(ownerships).values(organization_id=organization_id, member_id=member_id, since=now)
    await connection.execute(
        added.on_conflict_do_update(index_elements=["organization_id"], set_={"member_id": member_id, "since": now})
    )
