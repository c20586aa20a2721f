"""An export of evidence: what was asked for, and where it stands. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from services.audit.model.evidence.documents import Scope

# The kinds of jobs: the first makes a bundle, the second deletes it.
EXPORT_EVIDENCE, EXPIRE_EVIDENCE = "export_evidence", "expire_evidence"
KEPT = timedelta(days=30)
LONGEST = timedelta(days=3660)
# What happens tomorrow can be asked for today, so that a period may end with the day.
AHEAD = timedelta(days=1)
MAX_OPEN = 3
# The worker keeps 40 bytes of each event, and a verifier takes no more bytes than these: a leaf alone is some 600.
MAX_EVENTS, MAX_BYTES = 4_000_000, 4 << 30
MAX_RECEIPTS = 10_000


class EvidenceState(StrEnum):
    """Where an export stands."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    READY = "READY"
    FAILED = "FAILED"
    EXPIRED = "EXPIRED"


OPEN_STATES = (EvidenceState.QUEUED, EvidenceState.RUNNING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """An export's row, with how far its worker is."""

    export_id: UUID
    organization_id: UUID
    state: EvidenceState
    scope: Scope
    begins_at: datetime
    ends_at: datetime
    requested_by: str
    created_at: datetime
    expires_at: datetime
    finished_at: datetime | None = None
    problem: str = ""
    size_bytes: int = 0
    sha256: str = ""
    seal_event_id: UUID | None = None
    phase: str = ""
    done: int = 0
    total: int = 0

    @property
    def target(self) -> str:
        """What its events are about."""
        return f"evidence/{self.export_id}"

    def is_within(self, occurred_at: datetime, appended_at: datetime) -> bool:
        """Whether an event belongs to the period: it happened then, or was appended then."""
        return any(self.begins_at <= at < self.ends_at for at in (occurred_at, appended_at))
