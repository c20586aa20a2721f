"""SQL of what backups hold: under which KEKs an organization's secrets are in them. `recoup backup` writes it."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services._mesh.kms.interface import Kek
from services.scanner.tables import backups


async def count_by_kek(connection: AsyncConnection) -> dict[str, int]:
    """How many backups need each KEK, by its reference."""
    query = select(backups.c.kek, func.count()).where(backups.c.forgotten_at.is_(None), backups.c.kek != "")
    return {str(kek): int(count) for kek, count in await connection.execute(query.group_by(backups.c.kek))}


async def list_under(connection: AsyncConnection, kek: Kek, limit: int) -> list[tuple[str, datetime]]:
    """Backups that need a KEK, the oldest first: their ids, and when they were taken."""
    query = select(backups.c.backup_id, backups.c.taken_at).where(
        backups.c.kek == kek.reference, backups.c.forgotten_at.is_(None)
    )
    rows = await connection.execute(query.order_by(backups.c.taken_at).limit(limit))
    return [(str(row.backup_id), row.taken_at) for row in rows]


async def read_newest(connection: AsyncConnection) -> tuple[datetime | None, datetime | None]:
    """When the newest backup was taken, and when one was last verified. Within the platform's organization."""
    query = select(func.max(backups.c.taken_at), func.max(backups.c.verified_at)).where(
        backups.c.kek == "", backups.c.forgotten_at.is_(None)
    )
    taken, verified = (await connection.execute(query)).one()
    return taken, verified
