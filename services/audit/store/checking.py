"""What the self-check reads, in chunks, under a role that can change nothing but its own progress."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.audit.model.entry_check import EntryRow, PayloadRow
from services.audit.model.merkle import Node
from services.audit.model.note_check import CosignatureRow
from services.audit.model.shards import SHARD_BITS, node_offset, place_of
from services.audit.model.tree_check import CheckpointRow


@dataclass(frozen=True, slots=True)
class ShardRow:
    """A shard's row, with the head's in each: one snapshot of both."""

    shard: int
    origin: str
    kind: str
    closed_size: int | None
    epoch: int
    head: int
    detached: bool


async def read_shards(connection: AsyncConnection) -> list[ShardRow]:
    """All shards, with the head as it was at the same moment."""
    rows = await connection.execute(
        text(
            "SELECT s.shard, s.origin, s.kind, s.closed_size, h.epoch, h.size, a.detached_at IS NOT NULL AS detached"
            " FROM audit.head h, audit.shards s LEFT JOIN audit.archive a ON a.shard = s.shard ORDER BY s.shard"
        )
    )
    return [ShardRow(r.shard, r.origin, r.kind, r.closed_size, r.epoch, r.size, r.detached) for r in rows]


async def find_largest_size(connection: AsyncConnection, shard: int) -> int:
    """The size of a shard as the hashes of its leaves have it."""
    found = await connection.execute(
        text("SELECT max(position) FROM audit.nodes WHERE height = 0 AND position >= :first AND position < :end"),
        {"first": place_of(shard, 0), "end": place_of(shard + 1, 0)},
    )
    last = found.scalar_one_or_none()
    return 0 if last is None else int(last) - place_of(shard, 0) + 1


async def find_size_signed_before(connection: AsyncConnection, moment: datetime) -> int:
    """The place up to which the newest checkpoint before a moment went; 0 without any."""
    found = await connection.execute(
        text("SELECT size FROM audit.checkpoints WHERE signed_at < :moment ORDER BY size DESC LIMIT 1"),
        {"moment": moment},
    )
    return int(found.scalar_one_or_none() or 0)


async def list_organizations(connection: AsyncConnection, after: UUID | None, limit: int) -> list[UUID]:
    """Organizations that have a chain, a producer's counter or a published head, in the order of their ids."""
    rows = await connection.execute(
        text(
            "SELECT organization_id FROM audit.chains WHERE CAST(:after AS uuid) IS NULL OR organization_id > :after"
            " UNION SELECT organization_id FROM audit.producers"
            " WHERE CAST(:after AS uuid) IS NULL OR organization_id > :after"
            " UNION SELECT organization_id FROM audit.head_entries"
            " WHERE CAST(:after AS uuid) IS NULL OR organization_id > :after ORDER BY 1 LIMIT :limit"
        ),
        {"after": after, "limit": limit},
    )
    return [row.organization_id for row in rows]


async def read_chain(connection: AsyncConnection, organization_id: UUID) -> tuple[int, bytes] | None:
    """The organization's last sequence and leaf hash."""
    row = (
        await connection.execute(
            text("SELECT seq, leaf_hash FROM audit.chains WHERE organization_id = :organization"),
            {"organization": organization_id},
        )
    ).one_or_none()
    return None if row is None else (row.seq, bytes(row.leaf_hash))


async def read_entry_before(connection: AsyncConnection, place: int) -> tuple[int, bytes, int] | None:
    """Sequence, leaf and place of the organization's last entry before a place."""
    row = (
        await connection.execute(
            text("SELECT organization_seq, leaf, idx FROM audit.entries WHERE idx < :p ORDER BY idx DESC LIMIT 1"),
            {"p": place},
        )
    ).one_or_none()
    return None if row is None else (row.organization_seq, bytes(row.leaf), row.idx)


async def has_any_from(connection: AsyncConnection, place: int) -> bool:
    """Whether the organization has an entry or a payload at a place or after it."""
    rows = await connection.execute(
        text(
            "SELECT EXISTS (SELECT FROM audit.entries WHERE idx >= :place)"
            " OR EXISTS (SELECT FROM audit.payloads WHERE idx >= :place)"
        ),
        {"place": place},
    )
    return bool(rows.scalar_one())


async def read_entries(connection: AsyncConnection, after: int, limit: int) -> list[EntryRow]:
    """The organization's next entries, with what the tree and the deduplication have for each."""
    rows = await connection.execute(text(_ENTRIES), {"after": after, "limit": limit})
    return [_entry(row) for row in rows]


# Limited before it is joined, so that each chunk is a bounded number of look-ups by key.
_ENTRIES = """
SELECT e.*, n.hash AS node, d.idx AS dedup_place, d.payload_sha256, t.hash AS node_there,
  CASE WHEN e.actor_hash IS NULL THEN EXISTS (
    SELECT FROM audit.events o WHERE o.organization_id = e.organization_id AND o.event_id = e.event_id)
  ELSE false END AS predates_hashes
FROM (SELECT * FROM audit.entries WHERE idx > :after ORDER BY idx LIMIT :limit) AS e
LEFT JOIN audit.nodes n ON n.height = 0 AND n.position = e.idx
LEFT JOIN audit.dedup d ON d.event_id = e.event_id
LEFT JOIN audit.nodes t ON t.height = 0 AND t.position = d.idx AND d.idx <> e.idx
ORDER BY e.idx
"""


def _entry(row: Any) -> EntryRow:
    return EntryRow(
        row.idx,
        row.organization_id,
        row.event_id,
        row.organization_seq,
        row.producer,
        row.producer_counter,
        row.action,
        row.target,
        row.result,
        row.role,
        _bytes(row.actor_hash),
        row.predates_hashes,
        row.occurred_at,
        row.appended_at,
        row.request_id,
        row.trace_id,
        bytes(row.leaf),
        _bytes(row.node),
        row.dedup_place,
        _bytes(row.payload_sha256),
        _bytes(row.node_there),
    )


def _bytes(value: Any) -> bytes | None:
    return None if value is None else bytes(value)


async def read_payloads(connection: AsyncConnection, after: int, through: int, limit: int) -> list[PayloadRow]:
    """The organization's payloads after one place, up to another one."""
    rows = await connection.execute(
        text(
            "SELECT idx, format, subject, key_id, content FROM audit.payloads"
            " WHERE idx > :after AND idx <= :through ORDER BY idx LIMIT :limit"
        ),
        {"after": after, "through": through, "limit": limit},
    )
    return [PayloadRow(r.idx, r.format, r.subject, r.key_id, bytes(r.content)) for r in rows]


async def read_places(connection: AsyncConnection, after: int, end: int, limit: int) -> list[int]:
    """The places of the organization's entries."""
    rows = await connection.execute(
        text("SELECT idx FROM audit.entries WHERE idx > :after AND idx < :end ORDER BY idx LIMIT :limit"),
        {"after": after, "end": end, "limit": limit},
    )
    return [row.idx for row in rows]


async def read_producers(connection: AsyncConnection, organization_id: UUID) -> list[tuple[str, int, int | None]]:
    """Each producer's counter, with the highest that any of its entries has; one snapshot."""
    rows = await connection.execute(
        text(
            "SELECT p.producer, p.counter, (SELECT max(e.producer_counter) FROM audit.entries e"
            " WHERE e.producer = p.producer) AS highest FROM audit.producers p"
            " WHERE p.organization_id = :organization ORDER BY 1"
        ),
        {"organization": organization_id},
    )
    return [(row.producer, row.counter, row.highest) for row in rows]


async def read_windows(
    connection: AsyncConnection, shard: int, windows: Sequence[tuple[int, int, int]]
) -> dict[Node, bytes]:
    """The nodes of some ranges of positions, given as (height, first, past the last) within the shard."""
    rows = await connection.execute(
        text(
            "SELECT n.height, n.position, n.hash FROM unnest(CAST(:heights AS smallint[]), CAST(:firsts AS bigint[]),"
            " CAST(:lasts AS bigint[])) AS w(height, first, last) JOIN audit.nodes n"
            " ON n.height = w.height AND n.position >= w.first AND n.position < w.last"
        ),
        {
            "heights": [height for height, _, _ in windows],
            "firsts": [first + node_offset(shard, height) for height, first, _ in windows],
            "lasts": [last + node_offset(shard, height) for height, _, last in windows],
        },
    )
    return {(r.height, r.position - node_offset(shard, r.height)): bytes(r.hash) for r in rows}


async def read_checkpoints(connection: AsyncConnection, shard: int, after: int, through: int) -> list[CheckpointRow]:
    """The shard's checkpoints with sizes after one, up to another one."""
    rows = await connection.execute(
        text("SELECT size, root, note, signed_at FROM audit.checkpoints WHERE size > :a AND size <= :t ORDER BY size"),
        {"a": place_of(shard, after), "t": place_of(shard, through)},
    )
    base = place_of(shard, 0)
    return [CheckpointRow(row.size - base, bytes(row.root), row.note, row.signed_at) for row in rows]


async def read_cosignatures(connection: AsyncConnection, shard: int, after: int, through: int) -> list[CosignatureRow]:
    """The shard's cosignatures of sizes after one, up to another one."""
    rows = await connection.execute(
        text("SELECT place, witness, line, cosigned_at FROM audit.cosignatures WHERE place > :a AND place <= :t"),
        {"a": place_of(shard, after), "t": place_of(shard, through)},
    )
    base = place_of(shard, 0)
    return [CosignatureRow(row.place - base, row.witness, row.line, row.cosigned_at) for row in rows]


async def read_known_places(connection: AsyncConnection, first: int, end: int) -> set[int]:
    """The places that the deduplication has in a range."""
    rows = await connection.execute(
        text("SELECT idx FROM audit.dedup WHERE idx >= :first AND idx < :end"), {"first": first, "end": end}
    )
    return {row.idx for row in rows}


# What stands where nothing may stand yet. One statement, so that the head and the rows are of one moment.
_BEYOND = f"""
SELECT h.size AS place, 'nodes' AS field,
  format('a node of height %s at position %s is none of the tree', g, n.position)
  AS what FROM audit.head h CROSS JOIN generate_series(0, {SHARD_BITS}) AS g CROSS JOIN LATERAL (
    SELECT position FROM audit.nodes WHERE height = g AND position >= h.size >> g ORDER BY position LIMIT 1) AS n
UNION ALL SELECT h.size, 'nodes.height', format('no tree has nodes of height %s', n.height) FROM audit.head h, (
    (SELECT height FROM audit.nodes WHERE height < 0 LIMIT 1)
    UNION ALL (SELECT height FROM audit.nodes WHERE height > {SHARD_BITS} LIMIT 1)) AS n
UNION ALL SELECT h.size, 'nodes.position', 'a node stands before the first leaf' FROM audit.head h, (
    SELECT FROM generate_series(0, {SHARD_BITS}) AS g CROSS JOIN LATERAL (
      SELECT FROM audit.nodes WHERE height = g AND position < 0 LIMIT 1) AS one LIMIT 1) AS n
UNION ALL SELECT h.size, 'dedup.idx', format('index %s is beyond the log', d.idx) FROM audit.head h CROSS JOIN LATERAL (
    SELECT idx FROM audit.dedup WHERE idx >= h.size ORDER BY idx LIMIT 1) AS d
UNION ALL SELECT h.size, 'cosignatures.place', 'it is of a size that no checkpoint has' FROM audit.head h WHERE EXISTS (
    SELECT FROM audit.cosignatures c WHERE c.place > h.size OR c.place <= 0)
UNION ALL SELECT h.size, 'dedup', 'an index is negative' FROM audit.head h, (
    SELECT FROM audit.dedup WHERE idx < 0 LIMIT 1) AS d
"""


async def read_beyond(connection: AsyncConnection) -> list[tuple[int, str, str]]:
    """Rows that stand outside of the log, as (place, field, what)."""
    return [(row.place, row.field, row.what) for row in await connection.execute(text(_BEYOND))]


_OUTSIDE = f"""
SELECT h.size AS head, c.size, c.root, c.note, c.signed_at FROM audit.head h, audit.checkpoints c
WHERE c.size > h.size OR c.size <= 0 OR EXISTS (
  SELECT FROM audit.shards s WHERE c.size > (CAST(s.shard AS bigint) << {SHARD_BITS}) + s.closed_size
    AND c.size <= CAST(s.shard + 1 AS bigint) << {SHARD_BITS})
ORDER BY c.size LIMIT 20
"""


async def read_checkpoints_outside(connection: AsyncConnection) -> list[tuple[int, CheckpointRow]]:
    """Checkpoints of a size that no shard has, as (the head's place, the row with its place as its size)."""
    rows = await connection.execute(text(_OUTSIDE))
    return [(row.head, CheckpointRow(row.size, bytes(row.root), row.note, row.signed_at)) for row in rows]


async def find_state(connection: AsyncConnection, scope: str) -> Any:
    """The row of a scope's check: its progress while it runs, and how the last one ended."""
    return (
        await connection.execute(text("SELECT * FROM audit.self_checks WHERE scope = :scope"), {"scope": scope})
    ).one_or_none()


async def keep_state(connection: AsyncConnection, scope: str, progress: str) -> None:
    """Keep how far a check has come."""
    await connection.execute(
        text(
            "INSERT INTO audit.self_checks (scope, progress) VALUES (:scope, :progress)"
            " ON CONFLICT (scope) DO UPDATE SET progress = excluded.progress"
        ),
        {"scope": scope, "progress": progress},
    )


async def keep_result(connection: AsyncConnection, scope: str, result: str, now: datetime) -> None:
    """Keep how a check ended; the next one begins from nothing."""
    await connection.execute(
        text(
            "INSERT INTO audit.self_checks (scope, progress, result, finished_at) VALUES (:scope, '', :result, :now)"
            " ON CONFLICT (scope) DO UPDATE SET progress = '', result = excluded.result,"
            " finished_at = excluded.finished_at"
        ),
        {"scope": scope, "result": result, "now": now},
    )
