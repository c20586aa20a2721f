"""What the archive is copied from, and how far it is. Leaves are read organization by organization."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from services._mesh.database import execute_raw
from services.audit.model.archive import Archived, Shard
from services.audit.model.shards import place_of
from services.audit.tables import shards


async def list_shards(connection: AsyncConnection) -> list[Shard]:
    """All shards, the oldest first."""
    rows = await connection.execute(select(shards).order_by(shards.c.shard))
    return [Shard(row.shard, row.origin, row.closed_size) for row in rows]


async def list_archived(connection: AsyncConnection) -> dict[int, Archived]:
    """How far each shard is copied."""
    rows = await connection.execute(
        text("SELECT shard, location, size, complete, verified_at, problem FROM audit.archive")
    )
    return {row.shard: Archived(*row) for row in rows}


async def read_leaves(connection: AsyncConnection, shard: int, start: int, end: int) -> dict[int, bytes]:
    """The leaves of a shard from index `start` to before `end`, by index, in one round trip.

    The function goes from organization to organization by itself, so that none is seen but under its own.
    """
    first, past = place_of(shard, start), place_of(shard, end)
    rows = await execute_raw(connection, "SELECT place, content FROM audit.leaves_between($1, $2)", first, past)
    return {place - first + start: leaf for place, leaf in rows}


async def mark_archived(connection: AsyncConnection, archived: Archived, now: datetime) -> None:
    """Say how far a shard is copied; a shard that goes to another place begins anew, and unverified."""
    await connection.execute(
        text(
            "INSERT INTO audit.archive AS a (shard, location, size, complete, archived_at)"
            " VALUES (:shard, :location, :size, :complete, :now)"
            " ON CONFLICT (shard) DO UPDATE SET location = :location, size = :size, complete = :complete,"
            " archived_at = :now, verified_size = CASE WHEN a.location = :location THEN a.verified_size END,"
            " verified_root = CASE WHEN a.location = :location THEN a.verified_root END,"
            " verified_at = CASE WHEN a.location = :location THEN a.verified_at END,"
            " verified_event_id = CASE WHEN a.location = :location THEN a.verified_event_id END"
        ),
        {
            "shard": archived.shard,
            "location": archived.location,
            "size": archived.size,
            "complete": archived.complete,
            "now": now,
        },
    )


async def mark_verified(
    connection: AsyncConnection, shard: int, size: int, root: bytes, event_id: UUID, now: datetime
) -> None:
    """Say that a shard's archive was read back, and gave this root."""
    await connection.execute(
        text(
            "UPDATE audit.archive SET verified_size = :size, verified_root = :root, verified_at = :now,"
            " verified_event_id = :event_id, problem = '' WHERE shard = :shard"
        ),
        {"shard": shard, "size": size, "root": root, "event_id": event_id, "now": now},
    )


async def mark_differing(connection: AsyncConnection, shard: int, problem: str) -> None:
    """Say that a shard's archive isn't what the log says: it counts as verified no more."""
    await connection.execute(
        text(
            "UPDATE audit.archive SET verified_size = NULL, verified_root = NULL, verified_at = NULL,"
            " verified_event_id = NULL, problem = :problem WHERE shard = :shard"
        ),
        {"shard": shard, "problem": problem},
    )
