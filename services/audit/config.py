"""The settings of the audit service and of its signer."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from services._mesh.config import Address, Between, ExistingFolder, Matches, PlainFile, Seconds, SecretFile
from services._mesh.settings import DatabaseRole, DatabaseSettings, MeshSettings
from services._mesh.storage.settings import BucketSettings

LogName = Annotated[str, Matches(r"[^\s+]{1,200}", 'a name without spaces and "+", such as "recoup.example/log"')]


@dataclass(frozen=True, kw_only=True)
class SelfCheckSettings:
    """How often the log is re-hashed, and how much of the database's time that may take.

    The recent part begins at the newest checkpoint that is `recent_seconds` old; everything is checked once a day, from
    `nightly_hour` (UTC) on. A chunk of entries is read by one statement.
    """

    every_seconds: Seconds = 3600.0
    recent_seconds: Seconds = 7200.0
    nightly_hour: Annotated[int, Between(0, 23)] = 2
    rows_per_second: Annotated[float, Between(1, 10_000_000)] = 20_000.0
    chunk_entries: Annotated[int, Between(1, 10_000)] = 500


@dataclass(frozen=True, kw_only=True)
class WitnessAddress:
    """Where one of the log's witnesses answers, its key, and the CA of its certificate (else the system's).

    Which witnesses count, and how many must cosign a receipt, is said by the key manifest alone.
    """

    url: Annotated[str, Matches(r"https://\S{1,500}", "an https address")]
    vkey: str
    ca: PlainFile | None = None


@dataclass(frozen=True, kw_only=True)
class LogSettings:
    """The log's name, which is its first shard's origin; the sequencer's and the self-check's database roles; how
    often heads are signed and the organization heads published.

    `event_triggers` is false where a managed PostgreSQL has none (SECURITY.md): else their absence is an alarm.
    `page_key` seals page tokens; `actor_key`, 32 bytes, makes the hashes under which actors are searched for.
    """

    name: LogName
    sequencer: DatabaseRole
    checker: DatabaseRole
    page_key: SecretFile
    actor_key: SecretFile
    checkpoint_seconds: Seconds = 0.5
    heads_seconds: Seconds = 60.0
    self_check: SelfCheckSettings = field(default_factory=SelfCheckSettings)
    witnesses: tuple[WitnessAddress, ...] = ()
    event_triggers: bool = True


@dataclass(frozen=True, kw_only=True)
class KeysSettings:
    """The database of subjects' keys, as who only opens payloads reads it, and the KEK that they are wrapped with."""

    database: DatabaseSettings
    kek: SecretFile


@dataclass(frozen=True, kw_only=True)
class SubjectSettings(KeysSettings):
    """What the audit process does besides: it makes keys for what it appends, and destroys those that are erased."""

    sealer: DatabaseRole
    eraser: DatabaseRole


@dataclass(frozen=True, kw_only=True)
class ArchiveSettings:
    """Where full tiles and bundles are copied to, a folder or a bucket, and the database role that reads the leaves.

    A signed checkpoint is written there at most every `checkpoint_seconds`.
    """

    reader: DatabaseRole
    folder: Path | None = None
    bucket: BucketSettings | None = None
    seconds: Seconds = 60.0
    checkpoint_seconds: Seconds = 60.0
    verify_days: Annotated[float, Between(0.001, 366)] = 30.0

    def __post_init__(self) -> None:
        if (self.folder is None) == (self.bucket is None):
            raise ValueError("needs a folder or a [archive.bucket], and not both")


@dataclass(frozen=True, kw_only=True)
class EvidenceSettings:
    """The folder of evidence bundles, which the worker writes into, and the key that vouches for them."""

    folder: ExistingFolder
    key: SecretFile
    threads: Annotated[int, Between(1, 32)] = 4


@dataclass(frozen=True, kw_only=True)
class AuditSettings(MeshSettings):
    """The audit API process."""

    log: LogSettings
    subjects: SubjectSettings
    evidence: EvidenceSettings
    archive: ArchiveSettings | None = None


@dataclass(frozen=True, kw_only=True)
class EvidenceWork:
    """The folder that bundles are written into, and the threads that write them."""

    folder: ExistingFolder
    threads: Annotated[int, Between(1, 32)] = 4


@dataclass(frozen=True, kw_only=True)
class AuditWorkerSettings(MeshSettings):
    """The audit-worker process."""

    evidence: EvidenceWork


@dataclass(frozen=True, kw_only=True)
class SignerKeys:
    """The log's name and key, the signer's own memory, and the manifest of keys that it hands out.

    `root` is the verifier key of the offline root, which signs the manifest; without it the manifest is of version 1
    and signed by `key`. `more_keys` is the folder for the keys that `key` is rotated to.
    """

    origin: str
    key: SecretFile
    state: Path
    manifest: Path
    root: str = ""
    more_keys: ExistingFolder | None = None


@dataclass(frozen=True, kw_only=True)
class SignerSettings(MeshSettings):
    """The audit-signer process."""

    signer: SignerKeys


@dataclass(frozen=True, kw_only=True)
class WitnessSettings:
    """The witness's name and key, its own memory, and the file with the keys of the logs that it witnesses."""

    listen: Address
    name: Annotated[str, Matches(r"[^\s+]{1,255}", "a name without spaces and plus signs")]
    key: SecretFile
    state: ExistingFolder
    log_keys: PlainFile
    connections: Annotated[int, Between(1, 10_000)] = 200
    header_seconds: Seconds = 10.0


@dataclass(frozen=True, kw_only=True)
class WitnessProcessSettings(MeshSettings):
    """The audit-witness process."""

    witness: WitnessSettings
