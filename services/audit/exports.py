"""What people decide about exports of evidence, one function a decision. `bundling` is what their worker asks for."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from services._mesh.context import current
from services._mesh.errors import Exhausted, Reason, WrongState, invalid_field
from services._mesh.ids import uuid7
from services._mesh.jobs import Planner
from services._mesh.uow import Store, UnitOfWork
from services.audit.model.evidence.documents import Scope
from services.audit.model.evidence.export import (
    AHEAD,
    EXPIRE_EVIDENCE,
    EXPORT_EVIDENCE,
    KEPT,
    LONGEST,
    MAX_OPEN,
    EvidenceState,
    Export,
)
from services.audit.store import exports


async def start_evidence_export(
    work: UnitOfWork, planner: Planner, scope: Scope, begins_at: datetime, ends_at: datetime
) -> Export:
    """Have a bundle made, and deleted after a while. Raises Invalid, Exhausted (QUOTA_EXCEEDED)."""
    if not begins_at < ends_at <= begins_at + LONGEST:
        raise invalid_field("ends_at", f"must be later than begins_at, by {LONGEST.days} days at most")
    if ends_at > work.now + AHEAD:
        raise invalid_field("ends_at", "must not be later than tomorrow: what hasn't happened can't be shown")
    if await exports.lock_exports(work.connection, work.organization_id) >= MAX_OPEN:
        raise Exhausted(
            Reason.ERROR_REASON_QUOTA_EXCEEDED,
            f"{MAX_OPEN} exports are being made. Wait until one of them is ready.",
            {"limit": str(MAX_OPEN)},
        )
    made = Export(
        export_id=uuid7(),
        organization_id=work.organization_id,
        state=EvidenceState.QUEUED,
        scope=scope,
        begins_at=begins_at,
        ends_at=ends_at,
        requested_by=current().actor,
        created_at=work.now,
        expires_at=work.now + KEPT,
    )
    await exports.insert_export(work.connection, made)
    # A worker can't make jobs, so that the end of the bundle is planned with its beginning.
    await work.enqueue(planner.plan(work.organization_id, EXPORT_EVIDENCE, made.export_id, work.now))
    await work.enqueue(planner.plan(work.organization_id, EXPIRE_EVIDENCE, made.export_id, made.expires_at))
    said = {"from": begins_at.isoformat(), "to": ends_at.isoformat(), "scope": scope.text()}
    work.emit("audit.evidence.start", made.target, said)
    return made


async def get_evidence_export(reader: Store, export_id: UUID) -> Export:
    """An export. Raises NotFound."""
    async with reader.read() as connection:
        return await exports.get_export(connection, export_id)


async def list_evidence_exports(reader: Store, before: UUID | None, limit: int) -> list[Export]:
    """Exports, newest first; one more than `limit` shows that there are more."""
    async with reader.read() as connection:
        return await exports.list_exports(connection, before, limit + 1)


async def get_downloadable(reader: Store, export_id: UUID) -> Export:
    """An export whose bundle is there. Raises NotFound, WrongState."""
    found = await get_evidence_export(reader, export_id)
    if found.state is not EvidenceState.READY:
        raise WrongState(
            Reason.ERROR_REASON_STATE_WRONG,
            f"An export that is {found.state} can't be downloaded.",
            {"state": found.state, "allowed": EvidenceState.READY},
        )
    return found
