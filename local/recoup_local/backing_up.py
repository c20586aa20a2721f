"""Sets `recoup backup` up for an installation on one machine: a folder of its own, with its keys and settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from recoup_local import keys
from recoup_local.ca import write_secret
from recoup_local.embedded.postgres import PostgresHandle
from recoup_local.layout import KEYS_DATABASE

if TYPE_CHECKING:
    from recoup_local.installation import Installation

Table = dict[str, Any]
NAME = "backup"
_PASSWORDS = ("backup_reader", "scanner_backup")


def make_keys(folder: Path) -> keys.FileRing:
    """The ring that backups are sealed under, whole, and the key that signs manifests: no process has them."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_secret(folder / "manifest.key", pem)
    return keys.kek(folder, folder)


def sections(installation: Installation, ring: keys.FileRing, postgres: PostgresHandle) -> dict[str, Table]:
    """The configuration, to be written into the command's folder, where the passwords go too."""
    folder = installation.folder(NAME)
    for login in _PASSWORDS:
        write_secret(folder / f"{login}.password", installation.passwords[login])
    where = {"host": str(postgres.socket_dir), "port": postgres.port}
    reader = {"user": "backup_reader", "password_file": "backup_reader.password"}
    return {
        "process": {"name": NAME, "profile": "local"},
        "storage": {"folder": str(installation.state / "backups")},
        "manifest": {"kek": f"{ring.name}/platform/1", "key": "manifest.key"},
        "kms": {"services": ["file"], "file": ring.opening.name},
        "keks": {"services": ["file"], "file": str(installation.ring.sealing)},
        "source.main": {**where, "dbname": postgres.dbname, **reader},
        "source.keys": {**where, "dbname": KEYS_DATABASE, **reader},
        "source.recorder": {"user": "scanner_backup", "password_file": "scanner_backup.password"},
        "verify": {"audit": str(installation.config_file("audit")), "log_keys": [installation.log.verifier_key]},
    }
