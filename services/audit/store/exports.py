"""SQL of evidence: the exports and their progress, and the organization's chain as a bundle holds it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, and_, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services._mesh.errors import NotFound
from services.audit.model.evidence.documents import Scope
from services.audit.model.evidence.export import OPEN_STATES, EvidenceState, Export
from services.audit.tables import entries, evidence_exports, evidence_progress


async def insert_export(connection: AsyncConnection, made: Export) -> None:
    """Insert a new export."""
    await connection.execute(
        insert(evidence_exports).values(
            organization_id=made.organization_id,
            export_id=made.export_id,
            state=made.state,
            action_ids=list(made.scope.actions),
            target_prefixes=list(made.scope.targets),
            begins_at=made.begins_at,
            ends_at=made.ends_at,
            requested_by=made.requested_by,
            created_at=made.created_at,
            expires_at=made.expires_at,
            problem="",
            size_bytes=0,
            sha256="",
        )
    )


async def lock_exports(connection: AsyncConnection, organization_id: UUID) -> int:
    """Keep other starts of the organization waiting until the commit; returns how many exports are open."""
    await connection.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": f"evidence/{organization_id}"}
    )
    is_open = evidence_exports.c.state.in_(OPEN_STATES)
    return int((await connection.execute(select(func.count()).where(is_open))).scalar_one())


async def get_export(connection: AsyncConnection, export_id: UUID, *, lock: bool = False) -> Export:
    """An export of the transaction's organization. Raises NotFound."""
    query = _exports().where(evidence_exports.c.export_id == export_id)
    row = (await connection.execute(query.with_for_update(of=evidence_exports) if lock else query)).one_or_none()
    if row is None:
        raise NotFound("evidence export")
    return _export(row)


async def list_exports(connection: AsyncConnection, before: UUID | None, limit: int) -> list[Export]:
    """Exports, newest first (their ids are UUIDv7), before `before`."""
    query = _exports().order_by(evidence_exports.c.export_id.desc()).limit(limit)
    if before is not None:
        query = query.where(evidence_exports.c.export_id < before)
    return [_export(row) for row in await connection.execute(query)]


async def mark_export(connection: AsyncConnection, export_id: UUID, **values: Any) -> None:
    """Change columns of an export."""
    await connection.execute(update(evidence_exports).where(evidence_exports.c.export_id == export_id).values(**values))


async def mark_progress(
    connection: AsyncConnection, organization_id: UUID, export_id: UUID, phase: str, done: int, total: int
) -> None:
    """Say how far the worker is."""
    values = {"phase": phase, "done": done, "total": total}
    new = insert(evidence_progress).values(organization_id=organization_id, export_id=export_id, **values)
    await connection.execute(new.on_conflict_do_update(index_elements=["organization_id", "export_id"], set_=values))


def _exports() -> Select[Any]:
    progress = evidence_progress.c
    joined = evidence_exports.outerjoin(
        evidence_progress,
        and_(
            progress.organization_id == evidence_exports.c.organization_id,
            progress.export_id == evidence_exports.c.export_id,
        ),
    )
    return select(evidence_exports, progress.phase, progress.done, progress.total).select_from(joined)


def _export(row: Row[Any]) -> Export:
    return Export(
        export_id=row.export_id,
        organization_id=row.organization_id,
        state=EvidenceState(row.state),
        scope=Scope(tuple(row.action_ids), tuple(row.target_prefixes)),
        begins_at=row.begins_at,
        ends_at=row.ends_at,
        requested_by=row.requested_by,
        created_at=row.created_at,
        expires_at=row.expires_at,
        finished_at=row.finished_at,
        problem=row.problem,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        seal_event_id=row.seal_event_id,
        phase=row.phase or "",
        done=row.done or 0,
        total=row.total or 0,
    )


async def find_chain_end(connection: AsyncConnection, below: int) -> tuple[int, int] | None:
    """The organization's last event below a place: its number in the chain, and its place."""
    newest = select(entries.c.organization_seq, entries.c.idx).order_by(entries.c.idx.desc()).limit(1)
    row = (await connection.execute(newest.where(entries.c.idx < below))).one_or_none()
    return None if row is None else (row.organization_seq, row.idx)


async def find_chain_begin(connection: AsyncConnection) -> int | None:
    """The place of the organization's first event."""
    row = (await connection.execute(select(entries.c.idx).order_by(entries.c.idx).limit(1))).one_or_none()
    return None if row is None else row.idx


async def read_chain(connection: AsyncConnection, after: int, through: int, limit: int) -> Sequence[Any]:
    """The organization's leaves by their numbers in the chain, without their payloads."""
    c = entries.c
    query = (
        select(c.event_id, c.idx, c.organization_seq, c.occurred_at, c.appended_at, c.target, c.leaf)
        .where(c.organization_seq > after, c.organization_seq <= through)
        .order_by(c.organization_seq)
        .limit(limit)
    )
    return (await connection.execute(query)).all()


async def find_leaf(connection: AsyncConnection, seq: int) -> tuple[int, bytes] | None:
    """The place and the leaf of the organization's event with this number in its chain."""
    query = select(entries.c.idx, entries.c.leaf).where(entries.c.organization_seq == seq)
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else (row.idx, bytes(row.leaf))
