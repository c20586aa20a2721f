"""SQL of an organization's chain as a bundle holds it: also of detached shards, while their tables are still there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import MetaData, Table, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.audit.model.events import Recorded
from services.audit.model.shards import split
from services.audit.store.events import read_events
from services.audit.tables import entries, payloads


@dataclass(frozen=True, slots=True)
class Kept:
    """Where leaves are kept: a detached shard's own tables, or those of all others (`shard` None)."""

    shard: int | None
    entries: Table
    payloads: Table


_ATTACHED = Kept(None, entries, payloads)
# deploy/detach_shard.sql lets the API read what it detached, under the same row-level security.
_DETACHED = """
SELECT a.shard, s.origin,
  coalesce(has_table_privilege(to_regclass(format('audit.entries_s%s', a.shard)), 'SELECT')
    AND has_table_privilege(to_regclass(format('audit.payloads_s%s', a.shard)), 'SELECT'), false) AS is_there
FROM audit.archive a JOIN audit.shards s ON s.shard = a.shard
WHERE a.detached_at IS NOT NULL ORDER BY a.shard
"""


async def list_kept(connection: AsyncConnection) -> list[Kept]:
    """Where the leaves that can be read are kept, oldest first."""
    shards = [row.shard for row in await connection.execute(text(_DETACHED)) if row.is_there]
    return [*map(_detached, shards), _ATTACHED]


async def list_gone(connection: AsyncConnection) -> list[tuple[int, str]]:
    """The detached shards whose tables aren't there any more, with their origins."""
    return [(row.shard, row.origin) for row in await connection.execute(text(_DETACHED)) if not row.is_there]


def _detached(shard: int) -> Kept:
    apart = MetaData(schema="audit")
    return Kept(shard, *(each.to_metadata(apart, name=f"{each.name}_s{shard}") for each in (entries, payloads)))


async def find_chain_begin(connection: AsyncConnection, kept: Sequence[Kept]) -> tuple[int, int] | None:
    """The organization's first event that can be read: its number in the chain, and its place."""
    for each in kept:
        c = each.entries.c
        found = await connection.execute(select(c.organization_seq, c.idx).order_by(c.idx).limit(1))
        if (row := found.one_or_none()) is not None:
            return row.organization_seq, row.idx
    return None


async def find_chain_end(connection: AsyncConnection, kept: Sequence[Kept], below: int) -> tuple[int, int] | None:
    """The organization's last event below a place: its number in the chain, and its place."""
    for each in reversed(kept):
        c = each.entries.c
        newest = select(c.organization_seq, c.idx).where(c.idx < below).order_by(c.idx.desc()).limit(1)
        if (row := (await connection.execute(newest)).one_or_none()) is not None:
            return row.organization_seq, row.idx
    return None


async def read_chain(
    connection: AsyncConnection, kept: Sequence[Kept], after: int, through: int, limit: int
) -> Sequence[Any]:
    """The organization's next leaves by their numbers in the chain, without their payloads, from one of `kept`."""
    for each in kept:
        c = each.entries.c
        query = (
            select(c.event_id, c.idx, c.organization_seq, c.occurred_at, c.appended_at, c.target, c.leaf)
            .where(c.organization_seq > after, c.organization_seq <= through)
            .order_by(c.organization_seq)
            .limit(limit)
        )
        if rows := (await connection.execute(query)).all():
            return rows
    return []


async def read_kept(connection: AsyncConnection, kept: Sequence[Kept], places: Sequence[int]) -> list[Recorded]:
    """The events at some places, in the order of where they are kept; all must be there."""
    found: list[Recorded] = []
    apart = {each.shard for each in kept}
    for each in kept:
        its = [place for place in places if (shard if (shard := split(place)[0]) in apart else None) == each.shard]
        if its:
            found += await read_events(connection, its, each.entries, each.payloads)
    return found


async def find_leaf(connection: AsyncConnection, seq: int) -> tuple[int, bytes] | None:
    """The place and the leaf of the organization's event with this number in its chain."""
    rows = await read_chain(connection, await list_kept(connection), seq - 1, seq, 1)
    return (rows[0].idx, bytes(rows[0].leaf)) if rows else None
