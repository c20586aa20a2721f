"""SQL of evidence: the exports and their progress."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, and_, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services._mesh.errors import NotFound
from services.audit.model.evidence.documents import Scope
from services.audit.model.evidence.export import OPEN_STATES, EvidenceState, Export
from services.audit.tables import evidence_exports, evidence_progress


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
