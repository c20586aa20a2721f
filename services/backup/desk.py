"""Puts the command together: from the settings to the databases, key services and storages that it works with."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services._mesh.clock import open_clock
from services._mesh.config import ConfigError
from services._mesh.database import Database
from services._mesh.kms.opening import KeyServices
from services._mesh.settings import DatabaseRole, DatabaseSettings
from services._mesh.storage.opening import open_storage
from services._mesh.uow import Store
from services.backup.config import BackupSettings, SourceSettings, StorageSettings
from services.backup.model.manifest import Header, Manifest
from services.backup.store.registry import Registry
from services.backup.store.source import Source, list_organizations
from services.backup.usecases.creating import Maker, Tell, signer_of
from services.backup.usecases.keeping import BackupUnusable, Keep
from services.backup.usecases.pruning import Pruner, Rule
from services.backup.usecases.restoring import Restorer, require_keks
from services.backup.usecases.verifying import LogCheck, verify


class Desk:
    """One run of the command. `file` is where the settings are from, for what is said of them."""

    def __init__(self, settings: BackupSettings, file: Path, tell: Tell) -> None:
        self._settings, self._file, self._tell = settings, file, tell
        self._clock = open_clock(settings.process.profile, settings.clock.file if settings.clock else None)
        self._kms = KeyServices(settings.kms, settings.process.profile)
        self._keks = KeyServices(settings.keks, settings.process.profile)
        self._pools: list[Database] = []
        storage = self._storage(settings.storage)
        keys = self._storage(settings.keys_storage) if settings.keys_storage else storage
        self._keep = Keep(storage, keys, self._kms, settings.kek(), self._verifiers())

    async def close(self) -> None:
        """Let go of everything."""
        self._kms.close()
        self._keks.close()
        for pool in self._pools:
            await pool.close()

    async def create(self) -> dict[str, Any]:
        """Make a backup, record it, and say what it is."""
        settings, signer = self._source(), self._signer()
        if signer is None:
            raise self._missing("manifest.key", "Name the key that signs manifests.")
        registry = self._registry(settings.main, settings.recorder)

        async def record(manifest: Manifest) -> None:
            if retired := await registry.record_keks(manifest):
                named = ", ".join(sorted({use.kek for use in retired}))
                raise BackupUnusable(f"{named} was retired while the backup was made. Make another.")

        source = Source(settings.main, settings.keys)
        maker = Maker(source, self._keep, signer, self._settings.manifest.resume_hours, self._tell)
        made = await maker.create(self._clock.wall_now(), record)
        await registry.record_whole(made.manifest)
        return {
            **_said(made.header, made.manifest),
            "parts": made.parts,
            "parts_found": made.found,
            "resumed": made.resumed,
            "where": self._keep.where,
            "signer": signer.public_key().public_bytes_raw().hex(),
        }

    def check(self) -> dict[str, Any]:
        """What the configuration is enough for, with all files that it names. Asks nobody. Raises ConfigError."""
        given = self._settings
        enough = {
            "create": given.source is not None and self._signer() is not None,
            "verify": given.verify.audit is not None and bool(given.verify.log_keys),
            "restore": given.target is not None,
            "prune": given.source is not None,
        }
        return {"enough_for": [name for name, is_so in enough.items() if is_so]}

    async def list_backups(self) -> list[dict[str, str]]:
        """The whole backups in the storage."""
        found = map(Header.of_name, await self._keep.list_names())
        return [{"backup_id": backup_id, "begun_at": begun_at.isoformat()} for backup_id, begun_at in found]

    async def verify(self, backup_id: UUID | None, *, rows_only: bool) -> dict[str, Any]:
        """Prove that a backup can be restored."""
        kept, given = await self._keep.open(backup_id), self._settings.verify
        check = None
        if not rows_only:
            if given.audit is None or not given.log_keys:
                raise self._missing("verify.audit and log_keys", "Name them, or have the rows compared (--rows-only).")
            check = LogCheck(given.audit, given.log_keys)
        with self._server() as server:
            rows = await verify(self._keep, kept, server, check, self._tell)
        if self._settings.source is not None:
            source = self._settings.source
            await self._registry(source.main, source.recorder).verified(kept.header.backup_id)
        return {**_said(kept.header, kept.manifest), "rows": rows, "log": "not re-hashed" if rows_only else "sound"}

    async def restore(self, backup_id: UUID | None, given_up: frozenset[str]) -> dict[str, Any]:
        """Restore a backup into the databases of [target]."""
        target = self._settings.target
        if target is None:
            raise self._missing("target", "Name the two empty databases to restore into.")
        kept = await self._keep.open(backup_id)
        await require_keks(self._keks, kept.manifest.keks, given_up)
        restorer = Restorer(self._keep, kept, self._tell)
        await restorer.restore(target.main, target.keys)
        # The backup can't know of itself: what is restored needs its KEKs as well.
        await self._registry(target.main, target.main).record_keks(kept.manifest)
        return _said(kept.header, kept.manifest)

    async def forget(self, backup_id: UUID) -> dict[str, Any]:
        """Note that a backup was deleted."""
        if any(name.endswith(f"-{backup_id}") for name in await self._keep.list_names()):
            raise BackupUnusable(f"{backup_id} is still in {self._keep.where}. Delete its manifest and parts first.")
        settings = self._source()
        organizations = await list_organizations(settings.main, backup_id)
        registry = self._registry(settings.main, settings.recorder)
        if not await registry.forget(backup_id, organizations):
            raise BackupUnusable(f"there is no backup {backup_id} on record, or it was forgotten before.")
        return {"backup_id": str(backup_id), "organizations": len(organizations)}

    async def prune(self, rule: Rule, *, dry_run: bool) -> dict[str, Any]:
        """Delete the backups that a rule lets go, and what attempts left behind, and let their KEKs go."""
        settings = self._source()
        registry = self._registry(settings.main, settings.recorder)

        async def forget(backup_id: UUID) -> None:
            await registry.forget(backup_id, await list_organizations(settings.main, backup_id))

        source, now = Source(settings.main, settings.keys), self._clock.wall_now()
        async with source.alone() as beside:
            known = await registry.list_known()
            pruner = Pruner(self._keep, known, await source.name(beside), forget, self._tell)
            return await pruner.prune(rule, now, timedelta(hours=self._settings.manifest.resume_hours), dry_run=dry_run)

    def _signer(self) -> Ed25519PrivateKey | None:
        key = self._settings.manifest.key
        try:
            return signer_of(key.read_bytes()) if key is not None else None
        except ValueError as error:
            raise ConfigError(self._file, "manifest.key", str(error), "Make one (docs/BACKUP.md).") from None

    def _verifiers(self) -> list[bytes]:
        signer = self._signer()
        own = [signer.public_key().public_bytes_raw()] if signer is not None else []
        return [*own, *map(bytes.fromhex, self._settings.manifest.verifiers)]

    def _source(self) -> SourceSettings:
        if self._settings.source is None:
            raise self._missing("source", "Name the two databases, and who reads them.")
        return self._settings.source

    def _registry(self, where: DatabaseSettings, login: DatabaseRole | DatabaseSettings) -> Registry:
        pool = Database(where, login.user, login.password_file, 1)
        self._pools.append(pool)
        return Registry(Store(pool, "scanner", self._clock))

    @contextmanager
    def _server(self) -> Iterator[DatabaseSettings]:
        """The server that a backup is verified on."""
        if self._settings.verify.server is not None:
            yield self._settings.verify.server
            return
        if self._settings.process.profile != "local":
            raise self._missing("verify.server", "Name a PostgreSQL that holds nothing else, as its superuser.")
        hooks = importlib.import_module("recoup_local.hooks")
        with tempfile.TemporaryDirectory(prefix="recoup-verify-") as folder:
            settings, stop = hooks.start_scratch(Path(folder))
            try:
                yield settings
            finally:
                stop()

    def _storage(self, settings: StorageSettings) -> Any:
        return open_storage(settings.folder, settings.bucket, self._clock)

    def _missing(self, key: str, way_out: str) -> ConfigError:
        return ConfigError(self._file, key, "is missing", way_out)


def _said(header: Header, manifest: Manifest) -> dict[str, Any]:
    tables = [table for copy in manifest.databases.values() for table in copy.tables]
    return {
        "backup_id": manifest.backup_id,
        "begun_at": header.begun_at.isoformat(),
        "taken_at": manifest.taken_at,
        "rows": sum(table.rows for table in tables),
        "bytes": sum(table.size_bytes for table in tables),
        "keks": len({use.kek for use in manifest.keks}),
        "log_place": manifest.log.place,
        "checkpoint": manifest.log.checkpoint,
    }
