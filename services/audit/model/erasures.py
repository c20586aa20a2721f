"""Erasures of data subjects and legal holds, as the log keeps them: people are keyed hashes, never names. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID


class ErasureState(StrEnum):
    """How far an erasure is. What is approved is executed, unless a legal hold covers its subject."""

    REQUESTED = "REQUESTED"
    APPROVED = "APPROVED"
    REJECTED = "REJECTED"
    DONE = "DONE"


@dataclass(frozen=True, slots=True)
class Erasure:
    """An erasure. `held` says whether a legal hold covers its subject now."""

    erasure_id: UUID
    subject_hash: bytes
    reason: str
    state: ErasureState
    requester_hash: bytes
    requested_at: datetime
    decider_hash: bytes | None = None
    decided_at: datetime | None = None
    comment: str = ""
    done_at: datetime | None = None
    keys_destroyed: int = 0
    events_erased: int = 0
    held: bool = False

    @property
    def target(self) -> str:
        """What its events name as their target."""
        return f"erasures/{self.erasure_id}"


@dataclass(frozen=True, slots=True)
class LegalHold:
    """A legal hold; without a subject it covers everybody in the organization."""

    hold_id: UUID
    subject_hash: bytes | None
    reason: str
    placer_hash: bytes
    placed_at: datetime
    releaser_hash: bytes | None = None
    released_at: datetime | None = None
    release_reason: str = ""

    @property
    def target(self) -> str:
        """What its events name as their target."""
        return f"legalHolds/{self.hold_id}"
