"""Reads events of one organization: its row-level security is what narrows each query."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, Table, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from services._mesh.errors import NotFound
from services.audit.model.events import EventFilter, Position, Recorded
from services.audit.model.shards import place_of
from services.audit.store import listing
from services.audit.tables import dedup, entries, payloads


def _whole(leaves: Table = entries, contents: Table = payloads) -> Select[Any]:
    """Entries with their payloads."""
    joined = leaves.join(
        contents, (contents.c.organization_id == leaves.c.organization_id) & (contents.c.idx == leaves.c.idx)
    )
    return select(leaves, contents.c.format, contents.c.key_id, contents.c.content).select_from(joined)


async def get_event(connection: AsyncConnection, event_id: UUID) -> Recorded:
    """One event of the transaction's organization. Raises NotFound."""
    return (await get_events(connection, [event_id]))[0]


async def get_events(connection: AsyncConnection, event_ids: Sequence[UUID]) -> list[Recorded]:
    """Several events, in the order asked for. Raises NotFound when one is missing."""
    # Where an event stands is looked up first: with its place, one partition is read instead of all.
    places = select(dedup.c.idx).where(dedup.c.event_id.in_(event_ids))
    found_places = [row.idx for row in await connection.execute(places)]
    rows = await connection.execute(_whole().where(entries.c.idx.in_(found_places)))
    found = {row.event_id: _recorded(row) for row in rows}
    if len(found) != len(set(event_ids)):
        raise await no_event(connection)
    return [found[event_id] for event_id in event_ids]


async def no_event(connection: AsyncConnection) -> NotFound:
    """What is said of an event that isn't there: the same whether it was detached with its shard, or never was.

    Whose it was stood in the shard itself, so that nobody learns whether another's event exists.
    """
    origins = [row.origin for row in await connection.execute(text(_DETACHED))]
    where = (
        f"Those of {', '.join(origins)} were taken out of the log's database: the operator's archive has their leaves."
    )
    return NotFound("event", f"No such event. {where}" if origins else "")


_DETACHED = """
SELECT s.origin FROM audit.archive a JOIN audit.shards s ON s.shard = a.shard
WHERE a.detached_at IS NOT NULL ORDER BY s.shard DESC LIMIT 20
"""


async def read_detached_before(connection: AsyncConnection) -> int:
    """The place before which entries were detached with their shards; 0 where none were."""
    found = await connection.execute(text("SELECT max(shard) FROM audit.archive WHERE detached_at IS NOT NULL"))
    newest = found.scalar_one_or_none()
    return 0 if newest is None else place_of(newest + 1, 0)


async def list_events(
    connection: AsyncConnection,
    chosen: EventFilter,
    actions: Sequence[str] | None,
    actor_hash: bytes | None,
    after: Position | None,
    limit: int,
) -> list[Recorded]:
    """Events of the transaction's organization, newest first, behind `after`.

    `actions` are those wanted, or the beginnings of some where they end in a dot; None for all.
    """
    places = await listing.find_places(connection, chosen, actions, actor_hash, after, limit)
    return await read_events(connection, places)


async def read_events(
    connection: AsyncConnection, places: Sequence[int], leaves: Table = entries, contents: Table = payloads
) -> list[Recorded]:
    """The events at some places of these tables, in their order; all must be there."""
    rows = await connection.execute(_whole(leaves, contents).where(leaves.c.idx.in_(places)))
    found = {row.idx: _recorded(row) for row in rows}
    return [found[place] for place in places]


async def summarize(connection: AsyncConnection, producer: str, first: int, last: int) -> list[UUID]:
    """The ids of a producer's events with counters from `first` to `last`, in counter order."""
    rows = await connection.execute(
        select(entries.c.event_id)
        .where(entries.c.producer == producer, entries.c.producer_counter.between(first, last))
        .order_by(entries.c.producer_counter)
    )
    return [row.event_id for row in rows]


async def find_used_counters(connection: AsyncConnection, counters: Sequence[tuple[str, int]]) -> set[tuple[str, int]]:
    """Which counters fill no gap of the transaction's organization, given as (producer, counter).

    One that an entry has; and, once shards were detached, one before all that are left, of which it can't be told.
    """
    rows = await connection.execute(
        text(_USED),
        {"producers": [producer for producer, _ in counters], "counters": [counter for _, counter in counters]},
    )
    return {(row.producer, row.counter) for row in rows}


_USED = """
SELECT w.producer, w.counter
FROM unnest(CAST(:producers AS text[]), CAST(:counters AS bigint[])) AS w(producer, counter)
WHERE EXISTS (SELECT FROM audit.entries e WHERE e.producer = w.producer AND e.producer_counter = w.counter)
  OR EXISTS (SELECT FROM audit.archive a WHERE a.detached_at IS NOT NULL)
    AND NOT EXISTS (SELECT FROM audit.entries e WHERE e.producer = w.producer AND e.producer_counter < w.counter)
"""


def _recorded(row: Row[Any]) -> Recorded:
    return Recorded(
        row.organization_id,
        row.event_id,
        row.idx,
        row.organization_seq,
        row.producer,
        row.producer_counter,
        row.action,
        row.target,
        row.result,
        row.role,
        row.occurred_at,
        row.appended_at,
        row.request_id,
        row.trace_id,
        bytes(row.leaf),
        row.format,
        bytes(row.content),
        row.key_id,
    )
