"""`recoup backup …`: makes, verifies and restores an installation's backups, where its databases are reached.

Exit codes: 0 done, 1 refused, with why and the way out, 2 wrong use or configuration, 3 a database, key service or
storage can't be reached: the same command goes on where it was.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn, TypeVar
from uuid import UUID

import asyncpg
import click

from services._mesh.config import ConfigError, load_settings
from services._mesh.database import problem_of
from services._mesh.errors import Problem, Reason, Unavailable
from services._mesh.failpoints import open_failpoints
from services._mesh.storage import Occupied, StorageFailed
from services.backup.config import BackupSettings
from services.backup.desk import Desk
from services.backup.model.parts import PartBroken
from services.backup.store.source import SourceUnusable
from services.backup.store.target import Differs, TargetUnusable
from services.backup.usecases.keeping import BackupUnusable
from services.backup.usecases.pruning import Rule
from services.backup.usecases.restoring import KeksLost
from services.backup.usecases.verifying import LogUnsound

R = TypeVar("R")
EXIT_REFUSED, EXIT_WRONG_USE, EXIT_UNREACHABLE = 1, 2, 3
_REFUSED = (BackupUnusable, SourceUnusable, TargetUnusable, PartBroken, Differs, LogUnsound, Occupied)
_config = click.option(
    "--config",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    required=True,
    envvar="RECOUP_BACKUP_CONFIG",
    show_envvar=True,
    help="the backup's configuration file (docs/BACKUP.md)",
)
_json = click.option("--json", "as_json", is_flag=True, help="print JSON")
_backup_id = click.option("--backup", "backup_id", type=click.UUID, help="which backup; the newest if left out")


@click.group()
def backup() -> None:
    """Make, verify, restore and prune backups: both databases, the log's head, the keys that secrets are under."""


@backup.command()
@_config
@_json
def create(config: Path, as_json: bool) -> None:
    """Make a backup, or go on with one that was interrupted: what is stored already isn't stored again."""

    async def run(desk: Desk) -> dict[str, Any]:
        return await desk.create()

    _show(_run(config, run), as_json, "backup {backup_id}: {rows} rows in {parts} parts, {parts_found} of them found")


@backup.command("list")
@_config
@_json
def list_backups(config: Path, as_json: bool) -> None:
    """List the backups in the storage, the newest first."""

    async def run(desk: Desk) -> dict[str, Any]:
        return {"backups": await desk.list_backups()}

    found = _run(config, run)
    if as_json:
        click.echo(json.dumps(found))
        return
    if not found["backups"]:
        _tell("there is no whole backup there yet: recoup backup create")
    for each in found["backups"]:
        click.echo(f"{each['backup_id']}  begun {each['begun_at']}")


@backup.command()
@_config
@_json
@_backup_id
@click.option("--rows-only", is_flag=True, help="don't re-hash the log, which needs the audit process's secrets")
def verify(config: Path, as_json: bool, backup_id: UUID | None, rows_only: bool) -> None:
    """Restore a backup into databases that are thrown away, compare every row, and re-hash the log."""

    async def run(desk: Desk) -> dict[str, Any]:
        return await desk.verify(backup_id, rows_only=rows_only)

    _show(_run(config, run), as_json, "backup {backup_id} can be restored: {rows} rows; the log: {log}")


@backup.command()
@_config
@_json
@_backup_id
@click.option(
    "--give-up-kek",
    "given_up",
    multiple=True,
    metavar="KEK",
    help="restore though what is sealed under this KEK opens no more; its connections must be made anew",
)
def restore(config: Path, as_json: bool, backup_id: UUID | None, given_up: tuple[str, ...]) -> None:
    """Restore a backup into the two empty databases of [target]."""

    async def run(desk: Desk) -> dict[str, Any]:
        return await desk.restore(backup_id, frozenset(given_up))

    found = _run(config, run)
    _show(found, as_json, "backup {backup_id} is restored: {rows} rows. The log's newest checkpoint:\n{checkpoint}")


@backup.command()
@_config
@_json
@click.argument("backup_id", type=click.UUID)
def forget(config: Path, as_json: bool, backup_id: UUID) -> None:
    """Let KEKs be retired that only this backup needs, once its objects were deleted from the storage."""

    async def run(desk: Desk) -> dict[str, Any]:
        return await desk.forget(backup_id)

    _show(_run(config, run), as_json, "backup {backup_id} is forgotten")


@backup.command()
@_config
@_json
@click.option("--keep", type=click.IntRange(1), metavar="N", help="keep the N newest")
@click.option("--older-than", "days", type=click.IntRange(0), metavar="DAYS", help="delete none that is younger")
@click.option("--dry-run", is_flag=True, help="only say what would be deleted")
def prune(config: Path, as_json: bool, keep: int | None, days: int | None, dry_run: bool) -> None:
    """Delete old backups, and let KEKs be retired that only these needed. With both rules, one goes that both let go.

    Never deleted are the newest one, the newest that was verified, and what isn't on record here.
    """
    if keep is None and days is None:
        raise click.UsageError("say which may go: --keep N, --older-than DAYS, or both")
    rule = Rule(keep or 1, timedelta(days=days or 0))

    async def run(desk: Desk) -> dict[str, Any]:
        return await desk.prune(rule, dry_run=dry_run)

    found = _run(config, run)
    if as_json:
        click.echo(json.dumps(found))
        return
    for each in found["deleted"]:
        click.echo(f"{each['backup_id']}  {'would be ' if dry_run else ''}deleted")
    for each in found["kept"]:
        click.echo(f"{each['backup_id']}  kept: {each['why']}")


def _show(found: dict[str, Any], as_json: bool, line: str) -> None:
    click.echo(json.dumps(found) if as_json else line.format(**found))


def _tell(line: str) -> None:
    click.echo(line, err=True)


def _run(config: Path, call: Callable[[Desk], Coroutine[Any, Any, R]]) -> R:
    """Run a command's work. Ends the process with the exit code of what went wrong."""

    async def work(settings: BackupSettings) -> R:
        desk = Desk(settings, config, _tell)
        try:
            return await call(desk)
        finally:
            await desk.close()

    try:
        settings = load_settings(BackupSettings, config)
        folder = settings.failpoints.folder if settings.failpoints else None
        open_failpoints(settings.process.profile, folder, settings.process.name)
        return asyncio.run(work(settings))
    except ConfigError as error:
        _end(EXIT_WRONG_USE, str(error))
    except KeksLost as error:
        _end(EXIT_REFUSED, _lost(error))
    except _REFUSED as error:
        _end(EXIT_REFUSED, str(error))
    except Problem as problem:
        passes = isinstance(problem, Unavailable) and problem.reason != Reason.ERROR_REASON_KMS_KEY_UNUSABLE
        _end(EXIT_UNREACHABLE if passes else EXIT_REFUSED, _of(problem))
    except (StorageFailed, OSError) as error:
        _end(EXIT_UNREACHABLE, f"{error}. Run the same command again: it goes on where it was.")
    except asyncpg.PostgresError as error:
        away = problem_of(error)
        _end(EXIT_UNREACHABLE if away else EXIT_REFUSED, f"the database says: {type(error).__name__}: {error}")
    except Exception as error:
        if (away := problem_of(error)) is None:
            raise
        _end(EXIT_UNREACHABLE, _of(away))


def _lost(error: KeksLost) -> str:
    lines = "\n".join(f"  {each}" for each in error.lost)
    return (
        f"nothing was restored: these KEKs can't be used, and what is sealed under them would be lost:\n{lines}\n"
        "Enable them again in their key service. Where a KEK is gone for good, give it up by name (--give-up-kek)."
    )


def _of(problem: Problem) -> str:
    kek = problem.metadata.get("kek", "")
    return f"{problem.message} (reason {problem.reason_name}{f', KEK {kek}' if kek else ''})"


def _end(code: int, why: str) -> NoReturn:
    click.echo(f"recoup backup: {why}", err=True)
    sys.exit(code)
