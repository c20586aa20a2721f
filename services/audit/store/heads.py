"""The ends of organizations' chains, and the entries that were published of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.audit.model.heads import Chain, HeadEntry, PublishedHead

# So many rows a statement.
_CHUNK = 1000


async def list_chains(connection: AsyncConnection) -> list[Chain]:
    """Where every organization's chain ends. For the sequencer's role, which sees them all."""
    rows = await connection.execute(
        text("SELECT organization_id, seq, leaf_hash FROM audit.chains ORDER BY organization_id")
    )
    return [Chain(row.organization_id, row.seq, bytes(row.leaf_hash)) for row in rows]


async def replace_head_entries(
    connection: AsyncConnection, event_id: UUID, entries: Sequence[HeadEntry], published_at: datetime
) -> None:
    """Keep the entries of one publication in place of each organization's last."""
    for start in range(0, len(entries), _CHUNK):
        part = entries[start : start + _CHUNK]
        await connection.execute(
            text(_REPLACE),
            {
                "organizations": [entry.organization_id for entry in part],
                "positions": [entry.position for entry in part],
                "entries": [entry.entry for entry in part],
                "paths": [b"".join(entry.path) for entry in part],
                "seqs": [entry.organization_seq for entry in part],
                "event_id": event_id,
                "published_at": published_at,
            },
        )


async def find_head_entry(connection: AsyncConnection) -> PublishedHead | None:
    """The newest published entry of the transaction's organization."""
    row = (
        await connection.execute(
            text("SELECT publish_event_id, position, entry, path, organization_seq FROM audit.head_entries")
        )
    ).one_or_none()
    if row is None:
        return None
    path = bytes(row.path)
    hashes = [path[at : at + 32] for at in range(0, len(path), 32)]
    return PublishedHead(row.publish_event_id, row.position, bytes(row.entry), hashes, row.organization_seq)


_REPLACE = """
INSERT INTO audit.head_entries
  (organization_id, position, entry, path, organization_seq, publish_event_id, published_at)
SELECT h.*, CAST(:event_id AS uuid), CAST(:published_at AS timestamptz) FROM unnest(CAST(:organizations AS uuid[]),
  CAST(:positions AS bigint[]), CAST(:entries AS bytea[]), CAST(:paths AS bytea[]), CAST(:seqs AS bigint[])) AS h
ON CONFLICT (organization_id) DO UPDATE SET position = excluded.position, entry = excluded.entry,
  path = excluded.path, organization_seq = excluded.organization_seq, publish_event_id = excluded.publish_event_id,
  published_at = excluded.published_at
"""
