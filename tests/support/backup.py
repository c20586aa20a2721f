"""An installation's two databases with something in them, and the backup command set up for them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from services._mesh.config import load_settings
from services._mesh.envelope import seal
from services._mesh.kms.interface import Kek, KeyService, SecretContext
from services.backup.config import BackupSettings
from services.backup.desk import Desk
from tests.support import postgres
from tests.support.kms import RING, Ring
from tests.support.log import ACME, GLOBEX, keys_of
from tests.support.log import _keys as known_logs
from tests.support.postgres import PASSWORD, TestDatabase, cluster
from tests.support.signed_log import SignedLog, signed_log

SERVICES = ("actions", "audit", "identity", "pricing", "scanner")
BACKUP_RING = "file:00000000000backup"
SECRET = "a-key-that-nobody-may-read-anywhere-0123"
OLD, NEW = Kek(KeyService.FILE, f"{RING}/acme/1"), Kek(KeyService.FILE, f"{RING}/acme/2")
_PLACE = {"host": "", "port": 5432, "user": "", "password_file": ""}


@dataclass
class Installation:
    """Two databases; key services for organizations' secrets and for backups; and a folder for all else."""

    database: TestDatabase
    keys: TestDatabase
    log: SignedLog
    folder: Path
    organizations: Ring
    backups: Ring

    def config(self, **changes: Any) -> Path:
        """The command's configuration, with sections changed or (None) left out."""
        sections = {
            "process": {"name": "backup", "profile": "local"},
            "storage": {"folder": "kept"},
            "manifest": {"kek": f"{BACKUP_RING}/platform/1", "key": "manifest.key"},
            "kms": {"services": ["file"], "file": str(self.backups.whole_file)},
            "keks": {"services": ["file"], "file": str(self.organizations.public_file)},
            "source.main": self.place(self.database, "backup_reader"),
            "source.keys": self.place(self.keys, "backup_reader"),
            "source.recorder": {"user": "scanner_backup", "password_file": "password"},
            **changes,
        }
        lines = []
        for name, section in sections.items():
            if section is not None:
                lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in section.items())]
        path = self.folder / f"backup-{uuid4().hex[:8]}.toml"
        path.write_text("\n".join(lines))
        return path

    def place(self, database: TestDatabase, user: str) -> dict[str, Any]:
        """A database as somebody."""
        password = self.folder / "password"
        if not password.exists():
            password.touch(mode=0o600)
            password.write_text(PASSWORD)
        return {**_PLACE, "host": str(database.handle.socket_dir), "user": user, "dbname": database.name,
                "password_file": "password"}  # fmt: skip

    def as_superuser(self, database: TestDatabase) -> dict[str, Any]:
        """A database as who may restore into it."""
        word = self.folder / "superuser.password"
        word.touch(mode=0o600)
        word.write_text(database.handle.superuser_password)
        return {**self.place(database, database.handle.superuser), "password_file": word.name}

    @asynccontextmanager
    async def desk(self, **changes: Any) -> AsyncIterator[Desk]:
        """The command at work."""
        path = self.config(**changes)
        desk = Desk(load_settings(BackupSettings, path), path, lambda _line: None)
        try:
            yield desk
        finally:
            await desk.close()

    async def restored(self, backup_id: UUID | None = None) -> tuple[TestDatabase, TestDatabase]:
        """Two new databases with what a backup holds."""
        main, keys = await empty_databases()
        targets = {"target.main": self.as_superuser(main), "target.keys": self.as_superuser(keys)}
        async with self.desk(**targets) as desk:
            await desk.restore(backup_id, frozenset())
        known_logs[main.name] = keys
        return main, keys


async def empty_databases() -> tuple[TestDatabase, TestDatabase]:
    """Two databases that were bootstrapped, and nothing else."""
    main, keys = await postgres.new_database(()), await postgres._create(cluster())
    await postgres._bootstrap(keys, "bootstrap_keys.sql")
    return main, keys


@asynccontextmanager
async def installed(folder: Path) -> AsyncIterator[Installation]:
    """An installation with a signed log and sealed credentials of two organizations, one of them under two KEKs."""
    database = await postgres.new_database(SERVICES)
    for name in ("organizations", "backups"):
        (folder / name).mkdir()
    organizations, backups = Ring(folder / "organizations"), Ring(folder / "backups", name=BACKUP_RING)
    for each in (organizations, backups):
        each.public_file.chmod(0o600)
        each.whole_file.chmod(0o600)
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "manifest.key").touch(mode=0o600)
    (folder / "manifest.key").write_bytes(pem)
    async with signed_log(database, folder) as log:
        made = Installation(database, await keys_of(database), log, folder, organizations, backups)
        for organization, kek in ((ACME, OLD), (ACME, OLD), (ACME, NEW), (GLOBEX, NEW)):
            await credential_of(made, organization, kek)
        yield made


async def credential_of(made: Installation, organization: UUID, kek: Kek) -> None:
    """One more sealed credential."""
    credential_id = uuid4()
    context = SecretContext(organization, credential_id, "aws.base_key")
    envelope = await seal(SECRET.encode(), context, kek, made.organizations.sealing)
    superuser = await made.database.superuser()
    await superuser.execute("SET session_replication_role = replica")
    await superuser.execute(
        "INSERT INTO scanner.credentials (organization_id, credential_id, connection_id, envelope, created_at)"
        " VALUES ($1, $2, $3, $4, now())",
        organization, credential_id, uuid4(), envelope,
    )  # fmt: skip
    await superuser.close()
