"""`recoup backup …`: makes, verifies and restores an installation's backups, where its databases are reached.

Exit codes: 0 done, 1 refused, with why and the way out, 2 wrong use or configuration, 3 a database, key service or
storage can't be reached: the same command goes on where it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import click

if TYPE_CHECKING:
    from services.backup.desk import Desk

R = TypeVar("R")
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


@backup.command()
@_config
@_json
def check(config: Path, as_json: bool) -> None:
    """Check the configuration and all files of it, and say what it is enough for. Nobody is asked."""

    async def run(desk: Desk) -> dict[str, Any]:
        return desk.check()

    found = _run(config, run)
    enough = ", ".join(("list", *found["enough_for"]))
    click.echo(json.dumps(found) if as_json else f"{config}: ok; enough for {enough}")


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

    async def run(desk: Desk) -> dict[str, Any]:
        from services.backup.usecases.pruning import Rule

        return await desk.prune(Rule(keep or 1, timedelta(days=days or 0)), dry_run=dry_run)

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
    from services.backup.running import run  # Drivers of databases and storage, which no help needs.

    return run(config, call)
