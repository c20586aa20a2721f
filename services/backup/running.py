"""Runs the work of a `recoup backup` command, and says what went wrong.

Apart from the commands, since it loads drivers of databases and storage, which the help needs none of.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, NoReturn, TypeVar

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
from services.backup.usecases.restoring import KeksLost
from services.backup.usecases.verifying import LogUnsound

R = TypeVar("R")
EXIT_REFUSED, EXIT_WRONG_USE, EXIT_UNREACHABLE = 1, 2, 3
_REFUSED = (BackupUnusable, SourceUnusable, TargetUnusable, PartBroken, Differs, LogUnsound, Occupied)


def run(config: Path, call: Callable[[Desk], Coroutine[Any, Any, R]]) -> R:
    """A command's work. Ends the process with the exit code of what went wrong."""

    async def work(settings: BackupSettings) -> R:
        desk = Desk(settings, config, tell)
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


def tell(line: str) -> None:
    """What is said beside the answer."""
    click.echo(line, err=True)


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
