"""Bill sources, imports and batches as facts: frozen, and without knowing where they are kept."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

PROVIDER_FETCHED = "PROVIDER_FETCHED"


class BillSourceState(enum.StrEnum):
    """Where a bill source stands."""

    ACTIVE = "ACTIVE"
    DISABLED = "DISABLED"


class BillImportState(enum.StrEnum):
    """Where a fetch of a bill stands. QUEUED and RUNNING are open: a source has at most one of these."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    IMPORTED = "IMPORTED"
    UNCHANGED = "UNCHANGED"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class NewBillSource:
    """What a person gives: where an account's export lies, and the connection whose credential reads it."""

    connection_id: UUID
    account: str
    region: str
    bucket: str
    prefix: str


@dataclass(frozen=True, slots=True)
class BillSource:
    """A provider's cost export: everything below `prefix` of `bucket`."""

    organization_id: UUID
    bill_source_id: UUID
    connection_id: UUID
    credential_id: UUID
    account: str
    region: str
    bucket: str
    prefix: str
    state: BillSourceState
    version: int
    created_at: datetime

    @property
    def etag(self) -> str:
        """Changes with every edit."""
        return str(self.version)


@dataclass(frozen=True, slots=True)
class BillImport:
    """One fetch of a bill source; `problem_row` and `problem_column` say where a refused bill breaks a rule."""

    organization_id: UUID
    bill_import_id: UUID
    bill_source_id: UUID
    state: BillImportState
    problem: str
    problem_row: int
    problem_column: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """An immutable batch: one billing period of one export, as it was fetched once.

    `sha256` is that of the bytes of its files, one after the other in the manifest's order.
    """

    batch_id: UUID
    billing_period: date
    sha256: str
    provenance: str
    object: str
    object_version: str
    rows: int
    currency: str
    complete_through: date | None
    period_closed: bool
    imported_at: datetime

    def document(self) -> dict[str, Any]:
        """The batch as canonical documents name it (verifier/METHOD.md, "Measurement document")."""
        return {
            "batch_id": str(self.batch_id),
            "billing_period": f"{self.billing_period:%Y-%m}",
            "sha256": self.sha256,
            "provenance": self.provenance,
            "object": self.object,
            "object_version": self.object_version,
            "rows": self.rows,
            "currency": self.currency,
            "complete_through": self.complete_through.isoformat() if self.complete_through else "",
            "period_closed": self.period_closed,
        }


def batch_order(batch: Batch) -> tuple[str, str]:
    """Documents list batches by period and id."""
    return f"{batch.billing_period:%Y-%m}", str(batch.batch_id)
