"""The settings of the audit service and of its signer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from services._mesh.config import Seconds, SecretFile
from services._mesh.settings import DatabaseRole, MeshSettings


@dataclass(frozen=True, kw_only=True)
class LogSettings:
    """The sequencer's database role, how often heads are signed, and the key that page tokens are sealed with."""

    sequencer: DatabaseRole
    page_key: SecretFile
    checkpoint_seconds: Seconds = 0.5


@dataclass(frozen=True, kw_only=True)
class AuditSettings(MeshSettings):
    """The audit API process."""

    log: LogSettings


@dataclass(frozen=True, kw_only=True)
class SignerKeys:
    """The log's origin and key, the signer's own memory, and the manifest of keys that it hands out."""

    origin: str
    key: SecretFile
    state: Path
    manifest: Path


@dataclass(frozen=True, kw_only=True)
class SignerSettings(MeshSettings):
    """The audit-signer process."""

    signer: SignerKeys
