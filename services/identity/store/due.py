"""What falls due, in the database: found across organizations by one role, dealt with under each."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.identity.tables.exceptions import due_items as t


async def insert_due(
    connection: AsyncConnection, organization_id: UUID, kind: str, subject_id: UUID, due_at: datetime
) -> None:
    """Have something looked at when it is due."""
    item = insert(t).values(organization_id=organization_id, kind=kind, subject_id=subject_id, due_at=due_at)
    await connection.execute(item.on_conflict_do_nothing())


async def drop_due(connection: AsyncConnection, organization_id: UUID, kind: str, subject_id: UUID) -> None:
    """Have something not looked at any more, whenever it would have been due."""
    this = (t.c.organization_id == organization_id) & (t.c.kind == kind) & (t.c.subject_id == subject_id)
    await connection.execute(delete(t).where(this))


async def list_due(connection: AsyncConnection, kinds: Collection[str], now: datetime, limit: int) -> Sequence[Any]:
    """What of these kinds is due in any organization, the longest waiting first. Under the dispatcher's role."""
    query = select(t).where(t.c.due_at <= now, t.c.kind.in_(kinds)).order_by(t.c.due_at).limit(limit)
    return (await connection.execute(query)).all()


async def count_late(connection: AsyncConnection, before: datetime) -> int:
    """How much was due before a moment, and still stands there. Under the dispatcher's role."""
    return int((await connection.execute(select(func.count(t.c.due_at)).where(t.c.due_at < before))).scalar_one())


async def take_due(
    connection: AsyncConnection, organization_id: UUID, kind: str, subject_id: UUID, due_at: datetime
) -> bool:
    """Take an item out of the transaction's organization; False where somebody else has it, or had it."""
    this = (
        (t.c.organization_id == organization_id)
        & (t.c.kind == kind)
        & (t.c.subject_id == subject_id)
        & (t.c.due_at == due_at)
    )
    mine = (await connection.execute(select(t.c.kind).where(this).with_for_update(skip_locked=True))).one_or_none()
    if mine is not None:
        await connection.execute(delete(t).where(this))
    return mine is not None
