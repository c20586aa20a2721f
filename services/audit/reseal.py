"""Seals what version 0001 kept in the clear: `python -m services.audit.reseal --config FILE --password FILE`.

For an installation that began before payloads were sealed, once, with the audit process stopped. Only a superuser can
change the log's tables; leaves, and so every proof, stay as they are. Each batch is a transaction of its own: where it
was interrupted, it is run again. Exit code 0: nothing stands in the clear; 1: refused, and it says why; 2: unusable.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import orjson

from services._mesh.clock import open_clock
from services._mesh.config import ConfigError, load_settings
from services._mesh.database import Database
from services._mesh.errors import Problem
from services._mesh.failpoints import reach
from services._mesh.settings import DatabaseSettings
from services._mesh.uow import PLATFORM, Store
from services.audit.config import AuditSettings
from services.audit.kek import FileKek
from services.audit.model.actors import ActorHash, load_actor_hash
from services.audit.model.digests import keyed_digest
from services.audit.model.entry_check import subject_of
from services.audit.model.leaf import SALT_LENGTH
from services.audit.model.sealing import SubjectKey, seal_salted
from services.audit.replay import Replay
from services.audit.sealer import Sealer
from services.audit.serving import Serving
from services.audit.store import resealing as sql

BATCH = 500


class CannotReseal(Exception):
    """Nothing more is sealed; says why."""


class Resealing:
    """Seals in batches. `owner` is a superuser's login at the log's database, `store` writes audit's outbox."""

    def __init__(self, owner: Database, sealer: Sealer, actors: ActorHash, store: Store) -> None:
        self._owner, self._sealer, self._actors, self._store = owner, sealer, actors, store

    async def run(self) -> int:
        """Seal everything; returns how many payloads there were. Its event is there before it begins.

        Raises CannotReseal, or Unavailable while keys can't be used.
        """
        async with self._owner.unscoped() as connection:
            if not await sql.is_superuser(connection):
                raise CannotReseal("only a superuser may change the log's tables")
            count = await sql.count_clear(connection)
        if not count:
            return 0
        async with self._store.begin(PLATFORM) as work:
            work.emit("audit.payload.seal", "log/payloads", {"payloads": str(count)})
        done = 0
        while sealed := await self._batch():
            done += sealed
            reach("reseal.committed")
        return done

    async def _batch(self) -> int:
        async with self._owner.unscoped() as connection:
            rows = await sql.list_clear(connection, BATCH)
            if not rows:
                return 0
            actors = {row.event_id: _actor(row) for row in rows}
            subjects = {row.event_id: (row.organization_id, subject_of(actors[row.event_id])) for row in rows}
            keys = await self._sealer.keys_of(set(subjects.values()))
            sealed = [self._sealed(row, keys[subjects[row.event_id]], actors[row.event_id]) for row in rows]
            if await sql.write_sealed(connection, sealed) != len(rows):
                raise CannotReseal("somebody else changed the payloads meanwhile: run it again")
            reach("reseal.written")
        return len(rows)

    def _sealed(self, row: sql.ClearRow, key: SubjectKey, actor: str) -> sql.SealedRow:
        made = seal_salted(key, row.event_id, row.content[:SALT_LENGTH], row.content[SALT_LENGTH:])
        actor_hash = self._actors(row.organization_id, actor)
        return sql.SealedRow(row.organization_id, row.event_id, row.index, made.key_id, made.content, actor_hash)


def _actor(row: sql.ClearRow) -> str:
    """Whose data a payload is, by its own word. Raises CannotReseal for one that isn't what the old table has."""
    if not row.is_copy:
        raise CannotReseal(f"index {row.index}: payload and old table differ; run the self-check first")
    try:
        return str(orjson.loads(row.content[SALT_LENGTH:])["actor"])
    except (ValueError, KeyError, TypeError):
        raise CannotReseal(f"index {row.index}: the payload is no document; run the self-check first") from None


async def _reseal(settings: AuditSettings, config: Path, user: str, password: Path) -> int:
    own, subjects = settings.database, settings.subjects
    if own is None or own.dispatcher is None:
        raise ConfigError(config, "database.dispatcher", "is missing", "Use the audit process's own configuration.")
    seers = own.dispatcher
    clock = open_clock(settings.process.profile, settings.clock.file if settings.clock else None)
    made: list[Database] = []

    def database(where: DatabaseSettings, login: str, file: Path) -> Database:
        made.append(Database(where, login, file, 1))
        return made[-1]

    try:
        store = Store(database(own, own.user, own.password_file), "audit", clock)
        dispatcher = database(own, seers.user, seers.password_file)
        head = database(own, settings.log.sequencer.user, settings.log.sequencer.password_file)
        eraser = database(subjects.database, subjects.eraser.user, subjects.eraser.password_file)
        serving = Serving()
        serving.trust(await Replay(store, dispatcher, head, eraser, clock).look())
        sealer = database(subjects.database, subjects.sealer.user, subjects.sealer.password_file)
        actors, digest = load_actor_hash(settings.log.actor_key), keyed_digest(settings.log.actor_key.read_bytes())
        sealing = Sealer(sealer, FileKek(subjects.kek), actors, digest, serving, clock)
        return await Resealing(database(own, user, password), sealing, actors, store).run()
    finally:
        for each in made:
            await each.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m services.audit.reseal", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the audit process's configuration file")
    parser.add_argument("--user", default="postgres", help="the superuser (postgres)")
    parser.add_argument("--password", type=Path, required=True, metavar="FILE", help="the superuser's password")
    given = parser.parse_args(arguments)
    try:
        settings = load_settings(AuditSettings, given.config)
        count = asyncio.run(_reseal(settings, given.config, given.user, given.password))
    except (CannotReseal, Problem) as refused:
        print(f"refused: {refused}", file=sys.stderr)
        return 1
    except (ConfigError, OSError, ValueError) as error:
        print(f"reseal: {error}", file=sys.stderr)
        return 2
    print(
        f"{count} payloads were sealed, and none stands in the clear. What is left of them in the tables' files goes\n"
        "with VACUUM FULL audit.payloads_s0, audit.events; the rest of it lies in old WAL and backups."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
