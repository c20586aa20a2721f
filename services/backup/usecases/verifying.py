"""Proves that a backup can be restored, by restoring it: into new databases of a server that holds nothing else."""

from __future__ import annotations

import asyncio
import secrets
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from services._mesh.ids import uuid7
from services._mesh.migrate import SERVICES
from services._mesh.settings import DatabaseSettings
from services.backup.model.manifest import KEYS, MAIN
from services.backup.store.target import (
    SCRIPTS,
    TargetUnusable,
    create_database,
    drop_database,
    read_system,
    set_passwords,
)
from services.backup.usecases.creating import Tell
from services.backup.usecases.keeping import Keep, Kept
from services.backup.usecases.restoring import Restorer

SELF_CHECK_SECONDS = 12 * 3600.0
# As whom the self-check reads.
_LOGINS = ("audit_api", "audit_checker", "subjects_api")


class LogUnsound(Exception):
    """The restored log isn't what it should be; says what its self-check said."""


@dataclass(frozen=True, slots=True)
class LogCheck:
    """How to run the log's own check: the audit process's configuration, and the log's keys as held outside."""

    config: Path
    keys: Sequence[str]


async def verify(keep: Keep, kept: Kept, server: DatabaseSettings, check: LogCheck | None, tell: Tell) -> int:
    """Restore into databases that are dropped afterwards; returns how many rows came back.

    Raises TargetUnusable, PartBroken, Differs, LogUnsound, and what a database and a storage raise.
    """
    if await read_system(server) in {each.system_identifier for each in kept.manifest.databases.values()}:
        raise TargetUnusable(
            "[verify] server is the server that was backed up, with its roles. Name one that holds nothing else."
        )
    async with _scratch(server) as (main, keys):
        await Restorer(keep, kept, tell).restore(main, keys)
        if check is not None:
            tell("re-hashing the restored log")
            await _check_log(main, keys, check)
    return sum(table.rows for copy in kept.manifest.databases.values() for table in copy.tables)


@asynccontextmanager
async def _scratch(server: DatabaseSettings) -> AsyncIterator[tuple[DatabaseSettings, DatabaseSettings]]:
    names = {name: f"recoup_verify_{name}_{uuid7().hex[-12:]}" for name in (MAIN, KEYS)}
    try:
        for name, dbname in names.items():
            await create_database(server, dbname, _script(name))
        yield replace(server, dbname=names[MAIN]), replace(server, dbname=names[KEYS])
    finally:
        for dbname in names.values():
            await drop_database(server, dbname)


def _script(name: str) -> str:
    return (SERVICES.parent / "deploy" / SCRIPTS[name]).read_text("utf-8")


async def _check_log(main: DatabaseSettings, keys: DatabaseSettings, check: LogCheck) -> None:
    """Run the audit service's self-check on the restored databases, as a process of its own. Raises LogUnsound."""
    with tempfile.NamedTemporaryFile("w", prefix="recoup-verify-") as file:
        word = secrets.token_urlsafe(24)
        file.write(word)
        file.flush()
        await set_passwords(main, _LOGINS, word)
        command = [sys.executable, "-m", "services.audit.selfcheck", "--config", str(check.config)]
        command += ["--host", main.host, "--port", str(main.port), "--dbname", main.dbname]
        command += ["--keys-dbname", keys.dbname, "--password-file", file.name]
        command += [part for key in check.keys for part in ("--key", key)]
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        try:
            said, _ = await asyncio.wait_for(process.communicate(), SELF_CHECK_SECONDS)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    if process.returncode:
        raise LogUnsound(f"the restored log doesn't check out: {said.decode(errors='replace').strip()[-2000:]}")
