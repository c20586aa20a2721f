"""The sequencer's SQL: taking over, the locked head, and the one flush."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.audit.model.batch import Batch
from services.audit.model.events import SEALED
from services.audit.model.merkle import Frontier, peaks
from services.audit.model.shards import node_offset, place_of, split
from services.audit.store.tree import read_nodes

Connection = AsyncConnection

# How long a sequencer may hold the head without asking the database for anything.
LOCK_MILLISECONDS = 3000
_LOCK = """
SELECT epoch, size, erasures, set_config('idle_in_transaction_session_timeout', :milliseconds, true)
FROM audit.head FOR UPDATE
"""
# Rows of three tables as arrays of their columns, so that they come with the lock in one round trip. What the statement
# sees may be older than the lock that it waited for; but whoever moved the head since took it over, and is noticed by
# the epoch, which is read of the locked row as it is now.
_HOLD = f"""
WITH held AS MATERIALIZED ({_LOCK})
SELECT held.epoch, held.size, held.erasures, known.*, chained.*, counted.*
FROM held
CROSS JOIN (
  SELECT array_agg(event_id) AS event_ids, array_agg(payload_sha256) AS digests, array_agg(idx) AS places
  FROM audit.dedup WHERE event_id = ANY(CAST(:event_ids AS uuid[]))
) AS known
CROSS JOIN (
  SELECT array_agg(organization_id) AS chained, array_agg(seq) AS seqs, array_agg(leaf_hash) AS hashes
  FROM audit.chains WHERE organization_id = ANY(CAST(:organizations AS uuid[]))
) AS chained
CROSS JOIN (
  SELECT array_agg(organization_id) AS counted, array_agg(producer) AS producers, array_agg(counter) AS counters
  FROM audit.producers WHERE organization_id = ANY(CAST(:organizations AS uuid[]))
) AS counted
"""


@dataclass(frozen=True, slots=True)
class Head:
    """The head as a sequencer found it when it took over."""

    epoch: int
    shard: int
    frontier: Frontier


async def open_first_shard(connection: AsyncConnection, origin: str, opened_at: datetime) -> None:
    """Write down the first shard, when there is none yet."""
    await connection.execute(
        text(
            "INSERT INTO audit.shards (shard, origin, kind, opened_at) SELECT 0, :origin, 'FIRST', :opened_at"
            " WHERE NOT EXISTS (SELECT FROM audit.shards) ON CONFLICT DO NOTHING"
        ),
        {"origin": origin, "opened_at": opened_at},
    )


async def take_over(connection: AsyncConnection) -> Head:
    """Become the one sequencer: raises the epoch, so that any earlier one is fenced."""
    row = (await connection.execute(text("UPDATE audit.head SET epoch = epoch + 1 RETURNING epoch, size"))).one()
    shard, size = split(row.size)
    return Head(row.epoch, shard, Frontier.at(size, await read_nodes(connection, shard, peaks(size))))


@dataclass(frozen=True, slots=True)
class Held:
    """The locked head: its epoch, the place of the next leaf, how often was erased, and what a flush starts from.

    `known` gives events that the log has already (their payload's digest and their place), `chains` the last sequence
    and leaf hash of organizations, `counters` the last counter of each producer in them.
    """

    epoch: int
    place: int
    erasures: int
    known: dict[UUID, tuple[bytes, int]]
    chains: dict[UUID, tuple[int, bytes]]
    counters: dict[tuple[UUID, str], int]


async def lock_head(connection: AsyncConnection) -> tuple[int, int]:
    """Lock the head for this transaction; returns its epoch and the place of the next leaf.

    A process that is paused here loses the lock after a moment, so that another sequencer can take over.
    """
    row = (await connection.execute(text(_LOCK), {"milliseconds": str(LOCK_MILLISECONDS)})).one()
    return row.epoch, row.size


async def hold_head(connection: AsyncConnection, event_ids: Sequence[UUID], organizations: Iterable[UUID]) -> Held:
    """Lock the head as `lock_head` does, and read in the same round trip what a flush of these events starts from."""
    given = {
        "milliseconds": str(LOCK_MILLISECONDS),
        "event_ids": list(event_ids),
        "organizations": list(organizations),
    }
    row = (await connection.execute(text(_HOLD), given)).one()
    known = zip(row.event_ids or (), row.digests or (), row.places or (), strict=True)
    chains = zip(row.chained or (), row.seqs or (), row.hashes or (), strict=True)
    counters = zip(row.counted or (), row.producers or (), row.counters or (), strict=True)
    return Held(
        row.epoch,
        row.size,
        row.erasures,
        {event_id: (bytes(digest), place) for event_id, digest, place in known},
        {organization_id: (seq, bytes(leaf_hash)) for organization_id, seq, leaf_hash in chains},
        {(organization_id, producer): counter for organization_id, producer, counter in counters},
    )


async def find_known(connection: AsyncConnection, event_ids: Sequence[UUID]) -> dict[UUID, tuple[bytes, int]]:
    """Events that the log has already: their payload's digest and their place."""
    rows = await connection.execute(
        text("SELECT event_id, payload_sha256, idx FROM audit.dedup WHERE event_id = ANY(CAST(:ids AS uuid[]))"),
        {"ids": list(event_ids)},
    )
    return {row.event_id: (bytes(row.payload_sha256), row.idx) for row in rows}


async def write_batch(connection: AsyncConnection, batch: Batch) -> None:
    """Write a whole flush and move the head, in one statement: one round trip under the lock."""
    await connection.execute(text(_WRITE), _columns(batch))


def _columns(batch: Batch) -> Mapping[str, Any]:
    entries, base = batch.entries, place_of(batch.shard, 0)
    offsets = [node_offset(batch.shard, height) for height in range(batch.frontier.size.bit_length() + 1)]
    return {
        "organizations": [e.submission.organization_id for e in entries],
        "event_ids": [e.submission.event_id for e in entries],
        "digests": [e.submission.payload.digest for e in entries],
        "places": [base + e.index for e in entries],
        "seqs": [e.organization_seq for e in entries],
        "producers": [e.submission.producer for e in entries],
        "counters": [e.submission.producer_counter for e in entries],
        "actions": [e.submission.payload.action for e in entries],
        "targets": [e.submission.payload.target for e in entries],
        "results": [e.submission.payload.result for e in entries],
        "roles": [e.submission.payload.role for e in entries],
        "actors": [e.actor_hash for e in entries],
        "keys": [e.sealed.key_id for e in entries],
        "occurred": [e.submission.payload.occurred_at for e in entries],
        "requests": [e.submission.payload.request_id for e in entries],
        "traces": [e.submission.payload.trace_id for e in entries],
        "contents": [e.sealed.content for e in entries],
        "leaves": [e.leaf for e in entries],
        "heights": [node[0] for node in batch.nodes],
        "positions": [node[1] + offsets[node[0]] for node in batch.nodes],
        "hashes": [node[2] for node in batch.nodes],
        "chained": list(batch.chains),
        "chain_seqs": [chain[0] for chain in batch.chains.values()],
        "chain_hashes": [chain[1] for chain in batch.chains.values()],
        "counted": [key[0] for key in batch.counters],
        "counted_producers": [key[1] for key in batch.counters],
        "last_counters": list(batch.counters.values()),
        "size": place_of(batch.shard, batch.frontier.size),
        "appended_at": batch.appended_at,
        "format": SEALED,
    }


# No part reads what another one writes: all of them see the database as it was before.
_WRITE = """
WITH entries AS (
  INSERT INTO audit.entries (organization_id, event_id, idx, organization_seq, producer, producer_counter, action,
    target, result, role, actor_hash, occurred_at, request_id, trace_id, leaf, appended_at)
  SELECT e.*, CAST(:appended_at AS timestamptz) FROM unnest(CAST(:organizations AS uuid[]),
    CAST(:event_ids AS uuid[]), CAST(:places AS bigint[]), CAST(:seqs AS bigint[]), CAST(:producers AS text[]),
    CAST(:counters AS bigint[]), CAST(:actions AS text[]), CAST(:targets AS text[]), CAST(:results AS text[]),
    CAST(:roles AS text[]), CAST(:actors AS bytea[]), CAST(:occurred AS timestamptz[]), CAST(:requests AS text[]),
    CAST(:traces AS text[]), CAST(:leaves AS bytea[])) AS e
), payloads AS (
  INSERT INTO audit.payloads (organization_id, idx, key_id, content, format, subject)
  SELECT p.*, CAST(:format AS smallint), '' FROM unnest(CAST(:organizations AS uuid[]), CAST(:places AS bigint[]),
    CAST(:keys AS uuid[]), CAST(:contents AS bytea[])) AS p
), dedup AS (
  INSERT INTO audit.dedup (event_id, payload_sha256, idx)
  SELECT * FROM unnest(CAST(:event_ids AS uuid[]), CAST(:digests AS bytea[]), CAST(:places AS bigint[]))
), nodes AS (
  INSERT INTO audit.nodes (height, position, hash)
  SELECT * FROM unnest(CAST(:heights AS smallint[]), CAST(:positions AS bigint[]), CAST(:hashes AS bytea[]))
), chains AS (
  INSERT INTO audit.chains (organization_id, seq, leaf_hash)
  SELECT * FROM unnest(CAST(:chained AS uuid[]), CAST(:chain_seqs AS bigint[]), CAST(:chain_hashes AS bytea[]))
  ON CONFLICT (organization_id) DO UPDATE SET seq = excluded.seq, leaf_hash = excluded.leaf_hash
), producers AS (
  INSERT INTO audit.producers (organization_id, producer, counter)
  SELECT * FROM unnest(CAST(:counted AS uuid[]), CAST(:counted_producers AS text[]), CAST(:last_counters AS bigint[]))
  ON CONFLICT (organization_id, producer) DO UPDATE SET counter = excluded.counter
)
UPDATE audit.head SET size = :size
"""
