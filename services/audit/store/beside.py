"""What stands beside the log, and what the log's events say of it: read by the self-check, each in its organization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.audit.model.beside import ArchiveRow, HeadEntryRow
from services.audit.model.entry_check import PayloadRow


@dataclass(frozen=True, slots=True)
class Said:
    """An event as the log has it, its payload still sealed."""

    place: int
    event_id: UUID
    producer: str
    action: str
    target: str
    result: str
    leaf: bytes
    payload: PayloadRow


_SAID = """
SELECT e.idx, e.event_id, e.producer, e.action, e.target, e.result, e.leaf, p.format, p.subject, p.key_id, p.content
FROM audit.entries e JOIN audit.payloads p ON p.organization_id = e.organization_id AND p.idx = e.idx
"""


async def list_said(connection: AsyncConnection, action: str, after: int, limit: int) -> list[Said]:
    """The organization's events of one action after a place."""
    rows = await connection.execute(
        text(f'{_SAID} WHERE e.action COLLATE "C" = :action AND e.idx > :after ORDER BY e.idx LIMIT :limit'),
        {"action": action, "after": after, "limit": limit},
    )
    return [_said(row) for row in rows]


async def find_said(connection: AsyncConnection, event_id: UUID) -> Said | None:
    """An event of the organization by its id."""
    where = "WHERE e.idx = (SELECT d.idx FROM audit.dedup d WHERE d.event_id = :id) AND e.event_id = :id"
    row = (await connection.execute(text(f"{_SAID} {where}"), {"id": event_id})).one_or_none()
    return None if row is None else _said(row)


async def find_first_said(connection: AsyncConnection, place: int) -> Said | None:
    """The organization's first event from a place on."""
    first = f"{_SAID} WHERE e.idx >= :place ORDER BY e.idx LIMIT 1"
    row = (await connection.execute(text(first), {"place": place})).one_or_none()
    return None if row is None else _said(row)


def _said(row: Row[Any]) -> Said:
    payload = PayloadRow(row.idx, row.format, row.subject, row.key_id, bytes(row.content))
    return Said(row.idx, row.event_id, row.producer, row.action, row.target, row.result, bytes(row.leaf), payload)


async def find_known_place(connection: AsyncConnection, event_id: UUID) -> int | None:
    """Where the log has an event, of whichever organization."""
    found = await connection.execute(text("SELECT idx FROM audit.dedup WHERE event_id = :id"), {"id": event_id})
    place = found.scalar_one_or_none()
    return None if place is None else int(place)


async def is_pending(connection: AsyncConnection, action: str) -> bool:
    """Whether an event of an action is on the organization's way from the outbox to the log."""
    found = await connection.execute(
        text("SELECT EXISTS (SELECT FROM audit.outbox WHERE action = :action AND log_index IS NULL)"),
        {"action": action},
    )
    return bool(found.scalar_one())


async def find_head_entry(connection: AsyncConnection, organization_id: UUID) -> HeadEntryRow | None:
    """The organization's newest published head."""
    row = (
        await connection.execute(
            text("SELECT * FROM audit.head_entries WHERE organization_id = :organization"),
            {"organization": organization_id},
        )
    ).one_or_none()
    if row is None:
        return None
    path = bytes(row.path)
    hashes = tuple(path[at : at + 32] for at in range(0, len(path), 32))
    return HeadEntryRow(
        row.organization_id, row.publish_event_id, row.position, bytes(row.entry), hashes, row.organization_seq
    )


async def find_leaf(connection: AsyncConnection, organization_seq: int) -> bytes | None:
    """The organization's leaf of a sequence; None too where two have it, which is found elsewhere."""
    rows = await connection.execute(
        text("SELECT leaf FROM audit.entries WHERE organization_seq = :seq LIMIT 2"), {"seq": organization_seq}
    )
    found = [bytes(row.leaf) for row in rows]
    return found[0] if len(found) == 1 else None


async def list_erased_keys(connection: AsyncConnection) -> dict[UUID, UUID]:
    """The erasure by which each key of the organization was destroyed."""
    rows = await connection.execute(text("SELECT key_id, erasure_id FROM audit.erased_keys"))
    return {row.key_id: row.erasure_id for row in rows}


async def list_archive(connection: AsyncConnection) -> list[ArchiveRow]:
    """How far each shard is said to be archived."""
    rows = await connection.execute(text("SELECT * FROM audit.archive ORDER BY shard"))
    return [
        ArchiveRow(
            row.shard,
            row.location,
            row.size,
            row.complete,
            row.verified_size,
            None if row.verified_root is None else bytes(row.verified_root),
            row.verified_at,
            row.verified_event_id,
            row.problem,
            row.detached_at,
        )
        for row in rows
    ]
