"""Reads, as the superuser, what the log and the outboxes hold when a run is over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

import asyncpg

from services.audit.model import merkle
from services.audit.model.notes import Note, TreeHead
from tests.support.nemesis.history import History, Logged, Outboxed

_LOG = """
SELECT idx, organization_id, organization_seq, event_id, producer, producer_counter, action, request_id, leaf
FROM audit.entries ORDER BY idx
"""
_OUTBOX = "SELECT organization_id, counter, event_id, log_index FROM {}.outbox ORDER BY organization_id, counter"


async def collect(connection: asyncpg.Connection, producers: Sequence[str], history: History) -> None:
    """Fill in the history's end: entries, outboxes, counters, and the proofs from each checkpoint to the last."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        history.log = [Logged(*row) for row in await connection.fetch(_LOG)]
        outbox = list[Outboxed]()
        counted = dict[tuple[str, UUID], int]()
        for producer in producers:
            outbox += [Outboxed(producer, *row) for row in await connection.fetch(_OUTBOX.format(producer))]
            values = await connection.fetch(f"SELECT organization_id, value FROM {producer}.outbox_counters")
            counted |= {(producer, row["organization_id"]): row["value"] for row in values}
        history.outbox, history.counted = outbox, counted
        history.consistency = await _proofs(connection, history.checkpoints)


async def _proofs(connection: asyncpg.Connection, checkpoints: Sequence[str]) -> Mapping[int, Sequence[bytes]]:
    """Proofs as the log gives them, from its stored nodes."""
    rows = await connection.fetch("SELECT height, position, hash FROM audit.nodes")
    nodes = {(row["height"], row["position"]): bytes(row["hash"]) for row in rows}
    sizes = [TreeHead.parse(Note.parse(note).text).size for note in checkpoints]
    return {
        size: merkle.hash_ranges(merkle.consistency_ranges(size, sizes[-1]), nodes)
        for size in set(sizes)
        if size < sizes[-1]
    }
