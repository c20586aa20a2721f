"""The settings of the backup command. It is no process of the mesh: an operator runs it, on a machine of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from services._mesh.config import Matches, PlainFile, SecretFile
from services._mesh.kms.interface import Kek, KeyService
from services._mesh.kms.opening import KmsSettings
from services._mesh.settings import (
    ClockSettings,
    DatabaseRole,
    DatabaseSettings,
    FailpointsSettings,
    ProcessSettings,
)
from services._mesh.storage.settings import BucketSettings

HexKey = Annotated[str, Matches(r"[0-9a-f]{64}", "an Ed25519 public key of 64 hexadecimal digits")]


@dataclass(frozen=True, kw_only=True)
class StorageSettings:
    """A folder, or a bucket of S3 or of what speaks its language."""

    folder: Path | None = None
    bucket: BucketSettings | None = None

    def __post_init__(self) -> None:
        if (self.folder is None) == (self.bucket is None):
            raise ValueError("needs a folder or a bucket, and not both")


@dataclass(frozen=True, kw_only=True)
class ManifestSettings:
    """`kek` is the reference of the KEK that data keys are wrapped under, in the first of `[kms] services`.

    `key` (Ed25519, PEM) signs manifests and is only needed to make backups; a manifest is trusted that one of
    `verifiers` verifies, or that key. An attempt that is older than `resume_hours` is begun anew.
    """

    kek: str
    key: SecretFile | None = None
    verifiers: tuple[HexKey, ...] = ()
    resume_hours: float = 24.0

    def __post_init__(self) -> None:
        if self.key is None and not self.verifiers:
            raise ValueError("needs the key that signs manifests, or the verifiers of those that did")


@dataclass(frozen=True, kw_only=True)
class SourceSettings:
    """The two databases that are backed up, as `backup_reader`, and who records it in the scanner's schema."""

    main: DatabaseSettings
    keys: DatabaseSettings
    recorder: DatabaseRole


@dataclass(frozen=True, kw_only=True)
class TargetSettings:
    """Two empty databases, as their superuser. Only there while something is restored."""

    main: DatabaseSettings
    keys: DatabaseSettings


@dataclass(frozen=True, kw_only=True)
class VerifySettings:
    """`server` is one that holds nothing else, as its superuser; the local profile starts one where none is named.

    `audit` is the audit process's configuration, whose secrets the log's self-check needs to read payloads; `log_keys`
    are the log's verifier keys, as they are held outside.
    """

    server: DatabaseSettings | None = None
    audit: PlainFile | None = None
    log_keys: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class BackupSettings:
    """The command. `keys_storage` is where the parts of the keys' database go, where that is somewhere else.

    `kms` may wrap and unwrap under the backups' KEK and no other; `keks` may wrap under organizations' KEKs, which
    tells a restore whether they are still there.
    """

    process: ProcessSettings
    storage: StorageSettings
    keys_storage: StorageSettings | None = None
    manifest: ManifestSettings
    kms: KmsSettings
    keks: KmsSettings
    source: SourceSettings | None = None
    target: TargetSettings | None = None
    verify: VerifySettings = VerifySettings()
    clock: ClockSettings | None = None
    failpoints: FailpointsSettings | None = None

    def __post_init__(self) -> None:
        if self.process.profile != "local" and (self.clock is not None or self.failpoints is not None):
            raise ValueError("[clock] and [failpoints] are for the local profile only")
        for each in (self.kms, self.keks):
            each.check_profile(self.process.profile)

    def kek(self) -> Kek:
        """The KEK of backups."""
        return Kek(KeyService[self.kms.services[0].upper()], self.manifest.kek)
