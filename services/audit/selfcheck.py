"""Checks the log for an operator: `python -m services.audit.selfcheck --config FILE`. Changes nothing.

Exit code 0: the log is what it should be; 1: it isn't, and the first bad index is named; 2: it can't be told.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from services._mesh.channel import Channels
from services._mesh.clock import open_clock
from services._mesh.config import ConfigError, load_settings
from services._mesh.database import Database, problem_of
from services._mesh.errors import Problem
from services._mesh.tls import CertificateFiles
from services.audit.checking import Checker, HeldOutside
from services.audit.clients import SignerClient
from services.audit.config import AuditSettings
from services.audit.kek import FileKek
from services.audit.model.actors import load_actor_hash
from services.audit.model.check_result import CheckResult
from services.audit.model.digests import keyed_digest
from services.audit.model.manifest import LOG, ListedKey
from services.audit.model.note_check import Held
from services.audit.model.notes import NoteInvalid, VerifierKey
from services.audit.model.progress import Scope
from services.audit.opener import Opener
from services.audit.pace import Pace
from services.audit.serving import Serving
from services.audit.store import keys as key_store

EXIT_SOUND, EXIT_BAD, EXIT_UNKNOWN = 0, 1, 2


def make_checker(settings: AuditSettings, database: Database, held: HeldOutside, opener: Opener) -> Checker:
    """The self-check as the settings have it. Raises ConfigError."""
    log, bounds = settings.log, settings.log.self_check
    try:
        actor_hash, digest = load_actor_hash(log.actor_key), keyed_digest(log.actor_key.read_bytes())
    except ValueError as error:
        raise ConfigError(log.actor_key, "log.actor_key", str(error), "Use the audit process's own.") from None
    clock = open_clock(settings.process.profile, settings.clock.file if settings.clock else None)
    return Checker(
        database,
        clock,
        log.name,
        actor_hash,
        digest,
        opener.contents,
        held,
        Pace(bounds.rows_per_second),
        bounds.chunk_entries,
        bounds.recent_seconds,
    )


async def check(settings: AuditSettings, scope: Scope, keys: Sequence[ListedKey], last: bool) -> CheckResult | None:
    """Run a check, or say how the last one of the process ended (None before the first)."""
    if settings.database is None:
        raise ConfigError(Path("(settings)"), "database", "is missing", "Use the audit process's own configuration.")
    role = settings.log.checker
    database = Database(settings.database, role.user, role.password_file, 1)
    subjects = Database(
        settings.subjects.database, settings.subjects.database.user, settings.subjects.database.password_file, 1
    )
    # As the process's API reads which keys were erased.
    erasures = Database(settings.database, settings.database.user, settings.database.password_file, 1)
    channels = Channels(CertificateFiles(settings.tls), settings.peers, [])

    async def given(shard: int) -> Held:
        return Held(keys) if keys else await SignerClient(channels.to("audit-signer")).held(shard)

    try:
        checker = make_checker(settings, database, given, await _opener(settings, subjects, erasures))
        return await (checker.last_result(scope) if last else checker.check(scope, keep=False))
    finally:
        await channels.close()
        for each in (subjects, erasures, database):
            await each.close()


async def _opener(settings: AuditSettings, subjects: Database, erasures: Database) -> Opener:
    """Opens payloads with the keys as they are: what is read goes no further than into a hash."""
    try:
        kek = FileKek(settings.subjects.kek)
    except ValueError as error:
        raise ConfigError(settings.subjects.kek, "subjects.kek", str(error), "Use the audit process's own.") from None
    serving = Serving()
    async with subjects.unscoped() as connection:
        serving.trust(await key_store.read_generation(connection))
    return Opener(subjects, erasures, kek, serving)


def _restored(settings: AuditSettings, given: argparse.Namespace) -> AuditSettings:
    """The settings for a copy of the log elsewhere, of which every login has the one password."""
    word = given.password_file
    elsewhere = {"host": given.host, "port": given.port, "password_file": word}
    if settings.database is None or word is None:
        return settings
    subjects, role = settings.subjects, settings.log.checker
    return replace(
        settings,
        database=replace(settings.database, **elsewhere, dbname=given.dbname),
        log=replace(settings.log, checker=replace(role, password_file=word)),
        subjects=replace(subjects, database=replace(subjects.database, **elsewhere, dbname=given.keys_dbname)),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m services.audit.selfcheck", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the audit process's configuration file")
    parser.add_argument("--recent", action="store_true", help="only the part that the hourly check looks at")
    parser.add_argument("--last", action="store_true", help="how the process's own last check ended, without a new one")
    parser.add_argument(
        "--key", action="append", default=[], metavar="VKEY", help="a key of the log; else the signer is asked for them"
    )
    copy = parser.add_argument_group("a restored copy of the log", "with a password file, that copy is checked instead")
    copy.add_argument("--password-file", type=Path, help="the password of all logins there")
    copy.add_argument("--host", default="", help="its server, or the folder of its socket")
    copy.add_argument("--port", type=int, default=5432)
    copy.add_argument("--dbname", default="recoup", help="the log's database")
    copy.add_argument("--keys-dbname", default="recoup_keys", help="the database of the subjects' keys")
    given = parser.parse_args(arguments)
    scope = Scope.RECENT if given.recent else Scope.FULL
    try:
        keys = [ListedKey(LOG, VerifierKey.parse(text).public) for text in given.key]
        settings = _restored(load_settings(AuditSettings, given.config), given)
        result = asyncio.run(check(settings, scope, keys, given.last))
    except (ConfigError, NoteInvalid, Problem) as error:
        return _unknown(str(error))
    except Exception as error:
        problem = problem_of(error)
        return _unknown(str(problem) if problem else f"the check can't go on: {type(error).__name__}: {error}")
    if result is None:
        return _unknown(f"no {scope.lower()} self-check has ended yet")
    print("\n".join(result.lines()))
    return EXIT_SOUND if result.sound else EXIT_BAD


def _unknown(why: str) -> int:
    print(f"can't tell: {why}", file=sys.stderr)
    return EXIT_UNKNOWN


if __name__ == "__main__":
    sys.exit(main())
