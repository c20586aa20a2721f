"""What leaves a finding alone: an exception of identity's, which names it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Suppression:
    """An exception that somebody asks for, so that a finding is left alone."""

    finding_id: UUID
    reason: str
    expires_at: datetime
    reviewers: tuple[str, ...]
    request_id: str


def target_of(finding_id: UUID) -> str:
    """How exceptions and events name a finding."""
    return f"findings/{finding_id}"
