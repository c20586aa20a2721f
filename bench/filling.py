"""Fills the log by COPY: leaves and nodes by the log's own tree, chains and counters as the sequencer would have them.

The texts of leaves are written by a template, which is held against `Leaf.encode` once for each chunk.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from io import StringIO
from uuid import UUID

import asyncpg

from services._mesh.ids import uuid7
from services.audit.model import merkle
from services.audit.model.leaf import Leaf, commitment

CHUNK = 20_000
# Of a producer that has appended nothing else here.
PRODUCER, ACTION = "scanner", "scanner.bench.fill"
_COLUMNS = {
    "entries": "organization_id event_id idx organization_seq producer producer_counter action target result role"
    " actor_hash occurred_at appended_at request_id trace_id leaf",
    "payloads": "organization_id idx format subject content",
    "dedup": "event_id payload_sha256 idx",
    "nodes": "height position hash",
}


class Filler:
    """Goes on from where shard 0 stands, with events of some organizations in turn."""

    def __init__(self, frontier: merkle.Frontier, organizations: Sequence[UUID]) -> None:
        self._frontier, self._organizations = frontier, organizations
        self._chains = dict.fromkeys(organizations, (0, ""))
        self._counters = dict.fromkeys(organizations, 0)
        self.sample: list[tuple[UUID, UUID]] = []
        self._parts = {table: StringIO() for table in _COLUMNS}

    async def fill(self, connection: asyncpg.Connection, size: int) -> None:
        """Append up to `size` leaves, and move the head there."""
        rows = await connection.fetch("SELECT organization_id, seq, leaf_hash FROM audit.chains")
        self._chains |= {
            row["organization_id"]: (row["seq"], row["leaf_hash"].hex())
            for row in rows
            if row["organization_id"] in self._chains
        }
        while self._frontier.size < size:
            self._make(min(CHUNK, size - self._frontier.size))
            async with connection.transaction():
                for table, columns in _COLUMNS.items():
                    await _copy(connection, table, columns.split(), self._parts[table])
                await self._move_head(connection)

    def _make(self, count: int) -> None:
        self._parts = {table: StringIO() for table in _COLUMNS}
        at = datetime.now(UTC)
        stamp, first = at.isoformat(timespec="microseconds").replace("+00:00", "Z"), uuid7().int >> 80 << 80
        for number in range(count):
            self._one(
                UUID(int=first | 7 << 76 | number << 64 | 2 << 62 | time.monotonic_ns() & (1 << 60) - 1), stamp, at
            )

    def _one(self, event_id: UUID, stamp: str, at: datetime) -> None:
        index = self._frontier.size
        organization = self._organizations[index % len(self._organizations)]
        seq, previous = self._chains[organization]
        seq, salt, name = seq + 1, os.urandom(32), str(event_id)
        counter = self._counters[organization] = self._counters[organization] + 1
        payload = (
            f'{{"action":"{ACTION}","actor":"process:bench","authority":"system","event_id":"{name}",'
            f'"metadata":{{}},"occurred_at":"{stamp}","organization_id":"{organization}","request_id":"",'
            f'"responsible_person":"","result":"OK","role":"SYSTEM","target":"bench/{seq}","trace_id":"","v":1}}'
        ).encode()
        committed = commitment(payload, salt)
        leaf = (
            f'{{"appended_at":"{stamp}","event_id":"{name}","org_seq":{seq},"organization_id":"{organization}",'
            f'"payload_commitment":"{committed}","prev_leaf":"{previous}","producer":"{PRODUCER}",'
            f'"producer_counter":{counter},"v":1}}'
        ).encode()
        if index % CHUNK == 0:
            chained = bytes.fromhex(previous)
            assert leaf == Leaf(event_id, organization, seq, chained, PRODUCER, counter, at, committed).encode()
        digest = merkle.leaf_hash(leaf)
        for height, position, node in self._frontier.append(digest):
            self._parts["nodes"].write(f"{height}\t{position}\t\\\\x{node.hex()}\n")
        self._chains[organization] = seq, digest.hex()
        self._parts["entries"].write(
            f"{organization}\t{name}\t{index}\t{seq}\t{PRODUCER}\t{counter}\t{ACTION}\tbench/{seq}\tOK\tSYSTEM\t"
            f"\\\\x{digest.hex()}\t{stamp}\t{stamp}\t\t\t\\\\x{leaf.hex()}\n"
        )
        self._parts["payloads"].write(f"{organization}\t{index}\t1\t\t\\\\x{(salt + payload).hex()}\n")
        self._parts["dedup"].write(f"{name}\t\\\\x{hashlib.sha256(payload).hexdigest()}\t{index}\n")
        if index % 997 == 0:
            self.sample.append((organization, event_id))

    async def _move_head(self, connection: asyncpg.Connection) -> None:
        await connection.executemany(
            "INSERT INTO audit.chains VALUES ($1, $2, $3) ON CONFLICT (organization_id)"
            " DO UPDATE SET seq = excluded.seq, leaf_hash = excluded.leaf_hash",
            [(each, seq, bytes.fromhex(digest)) for each, (seq, digest) in self._chains.items()],
        )
        await connection.executemany(
            "INSERT INTO audit.producers VALUES ($1, $2, $3) ON CONFLICT (organization_id, producer)"
            " DO UPDATE SET counter = excluded.counter",
            [(each, PRODUCER, counter) for each, counter in self._counters.items()],
        )
        await connection.execute("UPDATE audit.head SET size = $1", self._frontier.size)


async def _copy(connection: asyncpg.Connection, table: str, columns: Sequence[str], text: StringIO) -> None:
    async def source() -> AsyncIterator[bytes]:
        text.seek(0)
        while part := text.read(1 << 20):
            yield part.encode()

    await connection.copy_to_table(table, schema_name="audit", columns=columns, source=source(), format="text")
