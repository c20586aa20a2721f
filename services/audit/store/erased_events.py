"""SQL of what producers are told: which of their events were erased."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

# An erasure, by its organization and id.
Place = tuple[UUID, UUID]


async def find_done(connection: AsyncConnection, since: datetime, after: Place | None) -> Place | None:
    """The next erasure of any organization that was done since, in the order of their ids: for the dispatcher."""
    organization_id, erasure_id = after or (UUID(int=0), UUID(int=0))
    rows = await connection.execute(
        text(_DONE), {"since": since, "organization": organization_id, "erasure": erasure_id}
    )
    found = rows.one_or_none()
    return None if found is None else (found.organization_id, found.erasure_id)


async def list_erased(
    connection: AsyncConnection, erasure_id: UUID, producer: str, after: int, limit: int
) -> list[tuple[UUID, int]]:
    """A producer's events under the keys that an erasure destroyed, with their counters, after one, in order."""
    rows = await connection.execute(
        text(_ERASED), {"erasure": erasure_id, "producer": producer, "after": after, "limit": limit}
    )
    return [(row.event_id, row.producer_counter) for row in rows]


_DONE = """
SELECT organization_id, erasure_id FROM audit.erasures
WHERE state = 'DONE' AND done_at > :since AND (organization_id, erasure_id) > (:organization, :erasure)
ORDER BY organization_id, erasure_id LIMIT 1
"""
# Found by the index of actors, which holds what people did. Events after the erasure are under another key.
_ERASED = """
SELECT n.event_id, n.producer_counter FROM audit.erasures e
JOIN audit.entries n ON n.organization_id = e.organization_id AND n.actor_hash = e.subject_hash
  AND (n.role <> 'SYSTEM' OR n.producer = 'identity')
JOIN audit.payloads p ON p.organization_id = n.organization_id AND p.idx = n.idx
JOIN audit.erased_keys k ON k.organization_id = p.organization_id AND k.key_id = p.key_id
  AND k.erasure_id = e.erasure_id
WHERE e.erasure_id = :erasure AND n.producer = :producer AND n.producer_counter > :after
ORDER BY n.producer_counter LIMIT :limit
"""
