"""Closing a shard and opening the next: under the locked head, and the event that is the new one's first leaf."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.audit.model.events import Produced, Recorded
from services.audit.model.openings import ACTION, PLATFORM
from services.audit.model.shards import place_of
from services.audit.store.events import get_events
from services.audit.tables import entries, shards


@dataclass(frozen=True, slots=True)
class OpenShard:
    """Why and when a shard was opened."""

    kind: str
    opened_at: datetime


async def read_shard(connection: AsyncConnection, shard: int) -> OpenShard:
    """Why and when a shard was opened."""
    row = (await connection.execute(select(shards).where(shards.c.shard == shard))).one()
    return OpenShard(row.kind, row.opened_at)


async def read_closed_size(connection: AsyncConnection, shard: int) -> int:
    """The size at which a shard was closed."""
    return int((await connection.execute(select(shards.c.closed_size).where(shards.c.shard == shard))).scalar_one())


async def turn(connection: AsyncConnection, shard: int, size: int, origin: str, new: OpenShard) -> None:
    """Close `shard` at its size, and make the next one that is appended to. The head must be locked."""
    await connection.execute(
        text("UPDATE audit.shards SET closed_size = :size WHERE shard = :shard"), {"size": size, "shard": shard}
    )
    await connection.execute(
        text("INSERT INTO audit.shards (shard, origin, kind, opened_at) VALUES (:shard, :origin, :kind, :opened_at)"),
        {"shard": shard + 1, "origin": origin, "kind": new.kind, "opened_at": new.opened_at},
    )
    await connection.execute(text("UPDATE audit.head SET size = :place"), {"place": place_of(shard + 1, 0)})


async def find_opening(connection: AsyncConnection, shard: int) -> Produced | None:
    """The event in the log's own outbox that opens `shard` and waits to be appended. Within PLATFORM."""
    rows = await connection.execute(
        text(
            "SELECT event_id, counter, payload FROM audit.outbox WHERE organization_id = :platform"
            " AND action = :action AND log_index IS NULL ORDER BY counter DESC"
        ),
        {"platform": PLATFORM, "action": ACTION},
    )
    mark = f'"shard":"{shard}"'.encode()
    for row in rows:
        if mark in bytes(row.payload):
            return Produced(row.event_id, PLATFORM, row.counter, bytes(row.payload))
    return None


async def get_first(connection: AsyncConnection, shard: int) -> Recorded:
    """The first leaf of a shard after the first one. Within PLATFORM. Raises NotFound."""
    found = await connection.execute(select(entries.c.event_id).where(entries.c.idx == place_of(shard, 0)))
    return (await get_events(connection, [row.event_id for row in found]))[0]
