"""What a process does with subjects' keys, composed from its settings."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from services._mesh.config import ConfigError
from services._mesh.database import Database
from services._mesh.process import Mesh
from services.audit.config import KeysSettings
from services.audit.kek import FileKek
from services.audit.opener import Opener
from services.audit.serving import Serving
from services.audit.store import keys as store
from services.audit.watch import KeysWatch


@dataclass(frozen=True)
class Keyring:
    """The KEK, whether keys may be used, and who opens payloads."""

    kek: FileKek
    serving: Serving
    opener: Opener


def open_keyring(mesh: Mesh, settings: KeysSettings) -> Keyring:
    """Read the KEK, and count on the database of keys. Raises ConfigError."""
    try:
        kek = FileKek(settings.kek)
    except ValueError as error:
        raise ConfigError(settings.kek, "subjects.kek", str(error), "Give the file that it was made as.") from None
    serving = Serving()
    mesh.health.needs("subjects' keys", lambda: serving.ready)
    return Keyring(kek, serving, Opener(mesh.database(settings=settings.database), kek, serving))


def watch(mesh: Mesh, keyring: Keyring, database: Database) -> None:
    """Look at the database of keys for as long as the process runs."""

    async def look() -> UUID:
        async with database.unscoped() as connection:
            return await store.read_generation(connection)

    mesh.task(KeysWatch(keyring.serving, database, look).run(), "subjects' keys")
