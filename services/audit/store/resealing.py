"""SQL of sealing what version 0001 kept in the clear, for a superuser: nobody else may change the log's tables.

Each batch lifts the seal of the three tables for its own transaction; nobody ever sees them without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

# Version 0001 knew one shard only.
_TABLES = ("audit.payloads_s0", "audit.entries_s0", "audit.events")


@dataclass(frozen=True, slots=True)
class ClearRow:
    """A payload in the clear: salt ‖ payload. `is_copy` is whether the old table has the same, or nothing any more."""

    organization_id: UUID
    event_id: UUID
    index: int
    content: bytes
    is_copy: bool


@dataclass(frozen=True, slots=True)
class SealedRow:
    """The same payload, sealed, with the hash of its actor."""

    organization_id: UUID
    event_id: UUID
    index: int
    key_id: UUID
    content: bytes
    actor_hash: bytes


async def is_superuser(connection: AsyncConnection) -> bool:
    """Whether the login may do this."""
    rows = await connection.execute(text("SELECT rolsuper FROM pg_roles WHERE rolname = current_user"))
    return bool(rows.scalar_one())


async def count_clear(connection: AsyncConnection) -> int:
    """How many payloads stand in the clear, of all organizations."""
    return int((await connection.execute(text(_COUNT))).scalar_one())


async def list_clear(connection: AsyncConnection, limit: int) -> list[ClearRow]:
    """The first payloads that stand in the clear, of any organization."""
    rows = await connection.execute(text(_CLEAR), {"limit": limit})
    return [ClearRow(r.organization_id, r.event_id, r.idx, bytes(r.content), r.is_copy) for r in rows]


async def write_sealed(connection: AsyncConnection, rows: Sequence[SealedRow]) -> int:
    """Put sealed payloads in the place of clear ones, and take them out of the old table; returns how many."""
    await connection.execute(
        text("SELECT set_config('event_triggers', 'off', true), set_config('lock_timeout', '10s', true)")
    )
    for table in _TABLES:
        await connection.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER append_only"))
    values = {
        "organizations": [row.organization_id for row in rows],
        "events": [row.event_id for row in rows],
        "places": [row.index for row in rows],
        "keys": [row.key_id for row in rows],
        "contents": [row.content for row in rows],
        "actors": [row.actor_hash for row in rows],
    }
    done = int((await connection.execute(text(_SEAL), values)).rowcount)
    names = {name: values[name] for name in ("organizations", "places", "actors")}
    await connection.execute(text(_NAME), names)
    await connection.execute(text(_EMPTY), {name: values[name] for name in ("organizations", "events")})
    for table in _TABLES:
        await connection.execute(text(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER append_only"))
    return done


_COUNT = """
SELECT count(*) FROM audit.payloads_s0 WHERE format = 1
"""
_CLEAR = """
SELECT p.organization_id, e.event_id, p.idx, p.content,
  coalesce(o.payload = '' OR o.salt || o.payload = p.content, true) AS is_copy
FROM audit.payloads_s0 p JOIN audit.entries_s0 e ON e.organization_id = p.organization_id AND e.idx = p.idx
LEFT JOIN audit.events o ON o.organization_id = e.organization_id AND o.event_id = e.event_id
WHERE p.format = 1 ORDER BY p.organization_id, p.idx LIMIT :limit
"""
_SEAL = """
UPDATE audit.payloads_s0 p SET format = 2, subject = '', key_id = s.key_id, content = s.content
FROM unnest(CAST(:organizations AS uuid[]), CAST(:events AS uuid[]), CAST(:places AS bigint[]), CAST(:keys AS uuid[]),
  CAST(:contents AS bytea[]), CAST(:actors AS bytea[])) AS s(organization_id, event_id, idx, key_id, content, actor)
WHERE p.organization_id = s.organization_id AND p.idx = s.idx AND p.format = 1
"""
# Once it can be erased, its entry has to say whose it was (entry_check.py); and it is found by its actor.
_NAME = """
UPDATE audit.entries_s0 e SET actor_hash = s.actor
FROM unnest(CAST(:organizations AS uuid[]), CAST(:places AS bigint[]), CAST(:actors AS bytea[]))
  AS s(organization_id, idx, actor)
WHERE e.organization_id = s.organization_id AND e.idx = s.idx AND e.actor_hash IS NULL
"""
_EMPTY = """
UPDATE audit.events o SET payload = '', salt = ''
FROM unnest(CAST(:organizations AS uuid[]), CAST(:events AS uuid[])) AS s(organization_id, event_id)
WHERE o.organization_id = s.organization_id AND o.event_id = s.event_id
"""
