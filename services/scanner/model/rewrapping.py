"""Sealed credentials on their way to another KEK. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from services._mesh.kms.interface import Kek

# The kind of job that moves an organization's credentials to its newest KEK, a batch at each lease.
REWRAP = "rewrap_credentials"
BATCH, MAX_UNTOLD = 32, 500


@dataclass(frozen=True, slots=True)
class Moved:
    """What became of a credential: its new envelope, or why it stays as it is."""

    credential_id: UUID
    from_digest: bytes
    envelope: bytes
    problem: str


class Sealed(NamedTuple):
    """A credential as it lies there. Its purpose is part of what it is bound to: another one doesn't unwrap it."""

    credential_id: UUID
    envelope: bytes
    purpose: str


@dataclass(frozen=True, slots=True)
class SealedBatch:
    """What is to be moved to `kek` next, what the revocation feed isn't told yet, and how many can't be moved."""

    kek: Kek
    credentials: Sequence[Sealed]
    untold: Sequence[UUID]
    stuck: int


def plan_of(kek: Kek) -> str:
    """What the job's grant says of the KEK: whoever wraps holds the name that it is given against it."""
    return hashlib.sha256(f"{kek.service.value}:{kek.reference}".encode()).hexdigest()
