"""What an evidence bundle gets of receipts, for audit's worker under the export's grant."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from services._mesh.context import current
from services._mesh.errors import Denied, Reason
from services._mesh.uow import Store
from services.actions.model.receipt import Proof
from services.actions.store import checkpoints
from services.actions.usecases.receipts import bundle_of

# The kind of job that makes evidence bundles.
EXPORT_EVIDENCE = "export_evidence"
PAGE = 200


async def list_evidence_receipts(
    reader: Store, begins_at: datetime, ends_at: datetime, action_ids: Sequence[UUID], after: UUID | None
) -> Sequence[Any]:
    """A page of receipts issued in a period, oldest first. Raises Denied (GRANT_INVALID)."""
    _require_grant()
    async with reader.read() as connection:
        return await checkpoints.list_issued(connection, begins_at, ends_at, action_ids, after, PAGE)


async def bundle_evidence_receipt(
    reader: Store, receipt_id: UUID, proofs: Sequence[Proof], checkpoint: str, manifest: str
) -> str:
    """A receipt's bundle, from proofs that the caller got from the log. Raises Denied (GRANT_INVALID), NotFound."""
    _require_grant()
    async with reader.read() as connection:
        row = await checkpoints.get_receipt(connection, receipt_id)
    return bundle_of(row, proofs, checkpoint, manifest)


def _require_grant() -> None:
    grant = current().grant
    if grant is None or grant.kind != EXPORT_EVIDENCE:
        raise Denied(Reason.ERROR_REASON_GRANT_INVALID, "The grant isn't for an export of evidence.")
