"""All SQL of the log: reading events under tenancy, reading nodes and heads, and the sequencer's one flush."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from services._mesh.errors import NotFound
from services.audit.model.batch import Batch
from services.audit.model.merkle import Frontier, Node, nodes_of, peaks
from services.audit.tables import checkpoints, events, nodes

EventRow = Row[Any]
Connection = AsyncConnection


async def get_event(connection: AsyncConnection, event_id: UUID) -> EventRow:
    """One event of the transaction's organization. Raises NotFound."""
    found = (await connection.execute(select(events).where(events.c.event_id == event_id))).one_or_none()
    if found is None:
        raise NotFound("event")
    return found


async def get_events(connection: AsyncConnection, event_ids: Sequence[UUID]) -> list[EventRow]:
    """Several events, in the order asked for. Raises NotFound when one is missing."""
    rows = await connection.execute(select(events).where(events.c.event_id.in_(event_ids)))
    found = {row.event_id: row for row in rows}
    if len(found) != len(set(event_ids)):
        raise NotFound("event")
    return [found[event_id] for event_id in event_ids]


async def list_events(
    connection: AsyncConnection,
    *,
    before: int | None,
    limit: int,
    action: str = "",
    target: str = "",
    request_id: str = "",
    occurred_after: datetime | None = None,
    occurred_before: datetime | None = None,
) -> list[EventRow]:
    """Events of the transaction's organization, newest first, below index `before`."""
    conditions = []
    if before is not None:
        conditions.append(events.c.idx < before)
    if action:
        conditions.append(
            events.c.action.startswith(action, autoescape=True) if action.endswith(".") else events.c.action == action
        )
    if target:
        conditions.append(events.c.target == target)
    if request_id:
        conditions.append(events.c.request_id == request_id)
    if occurred_after:
        conditions.append(events.c.occurred_at >= occurred_after)
    if occurred_before:
        conditions.append(events.c.occurred_at < occurred_before)
    rows = await connection.execute(select(events).where(*conditions).order_by(events.c.idx.desc()).limit(limit))
    return list(rows)


async def summarize(connection: AsyncConnection, producer: str, first: int, last: int) -> list[UUID]:
    """The ids of a producer's events with counters from `first` to `last`, in counter order."""
    rows = await connection.execute(
        select(events.c.event_id)
        .where(events.c.producer == producer, events.c.producer_counter.between(first, last))
        .order_by(events.c.producer_counter)
    )
    return [row.event_id for row in rows]


async def read_nodes(connection: AsyncConnection, wanted: Iterable[Node]) -> dict[Node, bytes]:
    """The hashes of complete nodes, in one query."""
    pairs = list(wanted)
    if not pairs:
        return {}
    rows = await connection.execute(select(nodes).where(tuple_(nodes.c.height, nodes.c.position).in_(pairs)))
    return {(row.height, row.position): bytes(row.hash) for row in rows}


async def read_ranges(connection: AsyncConnection, ranges: Sequence[tuple[int, int]]) -> dict[Node, bytes]:
    """The hashes of all nodes that some leaf ranges need."""
    return await read_nodes(connection, nodes_of(ranges))


async def find_checkpoint(connection: AsyncConnection, covering: int = 0) -> EventRow | None:
    """The newest checkpoint, if its size is more than `covering`."""
    newest = select(checkpoints).where(checkpoints.c.size > covering).order_by(checkpoints.c.size.desc()).limit(1)
    return (await connection.execute(newest)).one_or_none()


async def insert_checkpoint(
    connection: AsyncConnection, size: int, root: bytes, note: str, signed_at: datetime
) -> None:
    """Keep a signed checkpoint; the same size again is the same checkpoint."""
    await connection.execute(
        text(
            "INSERT INTO audit.checkpoints (size, root, note, signed_at) VALUES (:size, :root, :note, :signed_at)"
            " ON CONFLICT (size) DO NOTHING"
        ),
        {"size": size, "root": root, "note": note, "signed_at": signed_at},
    )


async def take_over(connection: AsyncConnection) -> tuple[int, Frontier]:
    """Become the one sequencer: raises the epoch, so that any earlier one is fenced. Returns epoch and frontier."""
    row = (await connection.execute(text("UPDATE audit.head SET epoch = epoch + 1 RETURNING epoch, size"))).one()
    return row.epoch, Frontier.at(row.size, await read_nodes(connection, peaks(row.size)))


async def lock_head(connection: AsyncConnection) -> tuple[int, int]:
    """Lock the head for this transaction; returns its epoch and size."""
    row = (await connection.execute(text("SELECT epoch, size FROM audit.head FOR UPDATE"))).one()
    return row.epoch, row.size


async def read_size(connection: AsyncConnection) -> int:
    """The durable size of the tree."""
    return int((await connection.execute(text("SELECT size FROM audit.head"))).scalar_one())


async def find_known(connection: AsyncConnection, event_ids: Sequence[UUID]) -> dict[UUID, tuple[bytes, int]]:
    """Events that the log has already: their payload's digest and their index."""
    rows = await connection.execute(
        text("SELECT event_id, payload_sha256, idx FROM audit.dedup WHERE event_id = ANY(CAST(:ids AS uuid[]))"),
        {"ids": list(event_ids)},
    )
    return {row.event_id: (bytes(row.payload_sha256), row.idx) for row in rows}


async def read_chains(connection: AsyncConnection, organizations: Iterable[UUID]) -> dict[UUID, tuple[int, bytes]]:
    """The last sequence and leaf hash of organizations."""
    rows = await connection.execute(
        text(
            "SELECT organization_id, seq, leaf_hash FROM audit.chains WHERE organization_id = ANY(CAST(:o AS uuid[]))"
        ),
        {"o": list(organizations)},
    )
    return {row.organization_id: (row.seq, bytes(row.leaf_hash)) for row in rows}


async def read_counters(connection: AsyncConnection, organizations: Iterable[UUID]) -> dict[tuple[UUID, str], int]:
    """The last counter of each producer in organizations."""
    rows = await connection.execute(
        text(
            "SELECT organization_id, producer, counter FROM audit.producers"
            " WHERE organization_id = ANY(CAST(:o AS uuid[]))"
        ),
        {"o": list(organizations)},
    )
    return {(row.organization_id, row.producer): row.counter for row in rows}


async def write_batch(connection: AsyncConnection, batch: Batch) -> None:
    """Write a whole flush: events, deduplication, nodes, chains, counters and the moved head; a statement each."""
    columns = _columns(batch)
    await connection.execute(text(_EVENTS), columns)
    await connection.execute(text(_DEDUP), {name: columns[name] for name in ("event_ids", "digests", "indexes")})
    await connection.execute(
        text(_NODES),
        {
            "heights": [node[0] for node in batch.nodes],
            "positions": [node[1] for node in batch.nodes],
            "hashes": [node[2] for node in batch.nodes],
        },
    )
    await connection.execute(
        text(_CHAINS),
        {
            "organizations": list(batch.chains),
            "seqs": [chain[0] for chain in batch.chains.values()],
            "hashes": [chain[1] for chain in batch.chains.values()],
        },
    )
    await connection.execute(
        text(_PRODUCERS),
        {
            "organizations": [key[0] for key in batch.counters],
            "producers": [key[1] for key in batch.counters],
            "counters": list(batch.counters.values()),
        },
    )
    await connection.execute(text("UPDATE audit.head SET size = :size"), {"size": batch.frontier.size})


def _columns(batch: Batch) -> Mapping[str, Any]:
    entries = batch.entries
    return {
        "organizations": [e.submission.organization_id for e in entries],
        "event_ids": [e.submission.event_id for e in entries],
        "digests": [e.submission.payload.digest for e in entries],
        "indexes": [e.index for e in entries],
        "seqs": [e.organization_seq for e in entries],
        "producers": [e.submission.producer for e in entries],
        "counters": [e.submission.producer_counter for e in entries],
        "actions": [e.submission.payload.action for e in entries],
        "targets": [e.submission.payload.target for e in entries],
        "results": [e.submission.payload.result for e in entries],
        "roles": [e.submission.payload.role for e in entries],
        "occurred": [e.submission.payload.occurred_at for e in entries],
        "requests": [e.submission.payload.request_id for e in entries],
        "traces": [e.submission.payload.trace_id for e in entries],
        "payloads": [e.submission.payload.raw for e in entries],
        "salts": [e.salt for e in entries],
        "leaves": [e.leaf for e in entries],
        "appended_at": batch.appended_at,
    }


_EVENTS = """
INSERT INTO audit.events (organization_id, event_id, idx, organization_seq, producer, producer_counter, action, target,
  result, role, occurred_at, request_id, trace_id, payload, salt, leaf, appended_at)
SELECT e.*, :appended_at FROM unnest(CAST(:organizations AS uuid[]), CAST(:event_ids AS uuid[]),
  CAST(:indexes AS bigint[]), CAST(:seqs AS bigint[]), CAST(:producers AS text[]), CAST(:counters AS bigint[]),
  CAST(:actions AS text[]), CAST(:targets AS text[]), CAST(:results AS text[]), CAST(:roles AS text[]),
  CAST(:occurred AS timestamptz[]), CAST(:requests AS text[]), CAST(:traces AS text[]), CAST(:payloads AS bytea[]),
  CAST(:salts AS bytea[]), CAST(:leaves AS bytea[])) AS e
"""
_DEDUP = """
INSERT INTO audit.dedup (event_id, payload_sha256, idx)
SELECT * FROM unnest(CAST(:event_ids AS uuid[]), CAST(:digests AS bytea[]), CAST(:indexes AS bigint[]))
"""
_NODES = """
INSERT INTO audit.nodes (height, position, hash)
SELECT * FROM unnest(CAST(:heights AS smallint[]), CAST(:positions AS bigint[]), CAST(:hashes AS bytea[]))
"""
_CHAINS = """
INSERT INTO audit.chains (organization_id, seq, leaf_hash)
SELECT * FROM unnest(CAST(:organizations AS uuid[]), CAST(:seqs AS bigint[]), CAST(:hashes AS bytea[]))
ON CONFLICT (organization_id) DO UPDATE SET seq = excluded.seq, leaf_hash = excluded.leaf_hash
"""
_PRODUCERS = """
INSERT INTO audit.producers (organization_id, producer, counter)
SELECT * FROM unnest(CAST(:organizations AS uuid[]), CAST(:producers AS text[]), CAST(:counters AS bigint[]))
ON CONFLICT (organization_id, producer) DO UPDATE SET counter = excluded.counter
"""
