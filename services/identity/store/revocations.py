"""The revocation feed in the database."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.identity.tables import revocations


async def insert_revocation(connection: AsyncConnection, kind: str, key: str, revoked_at: datetime) -> int:
    """Add to the feed; returns the entry's place. The head's row lock makes places follow the order of commits."""
    moved = text("UPDATE identity.revocation_head SET seq = seq + 1 RETURNING seq")
    seq = int((await connection.execute(moved)).scalar_one())
    await connection.execute(insert(revocations).values(seq=seq, kind=kind, key=key, revoked_at=revoked_at))
    return seq


async def insert_revocations(connection: AsyncConnection, kind: str, keys: Sequence[str], revoked_at: datetime) -> None:
    """Add many of a kind to the feed, in two statements."""
    if keys:
        moved = text("UPDATE identity.revocation_head SET seq = seq + :many RETURNING seq")
        last = int((await connection.execute(moved, {"many": len(keys)})).scalar_one())
        first = last - len(keys) + 1
        rows = [{"seq": first + n, "kind": kind, "key": key, "revoked_at": revoked_at} for n, key in enumerate(keys)]
        await connection.execute(insert(revocations), rows)


async def list_revocations(connection: AsyncConnection, after: int, since: datetime, limit: int) -> Sequence[Any]:
    """Entries after a place that still matter, in order."""
    query = (
        select(revocations)
        .where(revocations.c.seq > after, revocations.c.revoked_at >= since)
        .order_by(revocations.c.seq)
        .limit(limit)
    )
    return (await connection.execute(query)).all()


async def latest_seq(connection: AsyncConnection) -> int:
    """The newest entry's place."""
    return int((await connection.execute(select(func.coalesce(func.max(revocations.c.seq), 0)))).scalar_one())
