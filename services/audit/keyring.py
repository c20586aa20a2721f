"""What a process does with subjects' keys, composed from its settings."""

from __future__ import annotations

from dataclasses import dataclass

from services._mesh.config import ConfigError
from services._mesh.database import Database
from services._mesh.process import Mesh
from services._mesh.uow import Store
from services.audit.config import KeysSettings
from services.audit.eraser import Eraser
from services.audit.kek import FileKek
from services.audit.model.alarms import Note
from services.audit.opener import Opener
from services.audit.replay import Replay
from services.audit.serving import Serving
from services.audit.watch import KeysWatch


@dataclass(frozen=True)
class Keyring:
    """The KEK, whether keys may be used, who opens payloads, and the database of keys as it reads it."""

    kek: FileKek
    serving: Serving
    opener: Opener
    database: Database


def open_keyring(mesh: Mesh, settings: KeysSettings, note: Note) -> Keyring:
    """Read the KEK, and count on the database of keys. Raises ConfigError."""
    try:
        kek = FileKek(settings.kek)
    except ValueError as error:
        raise ConfigError(settings.kek, "subjects.kek", str(error), "Give the file that it was made as.") from None
    serving = Serving()
    mesh.health.needs("subjects' keys", lambda: serving.ready)
    database = mesh.database(settings=settings.database)
    opener = Opener(database, mesh.database(pool_size=2), kek, serving, note)
    return Keyring(kek, serving, opener, database)


@dataclass(frozen=True)
class ErasureRoles:
    """What erasing takes beside the log's own store: who sees due erasures, moves the head, and destroys keys."""

    dispatcher: Database
    head: Database
    keys: Database


def erase(mesh: Mesh, keyring: Keyring, log_store: Store, roles: ErasureRoles) -> Eraser:
    """Execute what is approved, and let no key be used before those that were erased are known to be gone."""
    replay = Replay(log_store, roles.dispatcher, roles.head, roles.keys, mesh.clock)
    eraser = Eraser(log_store, roles.dispatcher, roles.head, roles.keys, keyring.serving, mesh.clock, mesh.metrics)
    mesh.task(KeysWatch(keyring.serving, roles.keys, replay.look).run(), "subjects' keys")
    mesh.task(eraser.run(), "eraser")
    return eraser
