"""Whether a process can do its work: SERVING while all that it needs is there, and what is missing, by name.

It only looks. What is missing is brought back by whoever uses it; nothing here restarts or reconnects.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from services._mesh.clock import Clock

if TYPE_CHECKING:
    from services._mesh.database import Database

log = logging.getLogger(__name__)

# A process whose clock is further than this from the database's serves nothing (SECURITY-MODEL, production).
MAX_CLOCK_SECONDS = 2.0
LOOK_SECONDS = 1.0
# How soon it is looked again while something is missing.
_SOON_SECONDS = 0.1
_PROBE_SECONDS = 3.0


class Health:
    """What a process needs. Everything is added while it is composed; `watch` looks from then on."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._needs: dict[str, Callable[[], bool]] = {}
        self._database: Database | None = None
        # What was missing at the last look; None before the first.
        self._known: list[str] | None = None
        self._is_leaving = False

    def needs(self, name: str, ready: Callable[[], bool]) -> None:
        """Count on what is called `name`, a noun for the log, which is there while `ready` says so."""
        self._needs[name] = ready

    def needs_database(self, database: Database) -> None:
        """Count on the database; of several pools of a process the first is asked."""
        self._database = self._database or database

    async def missing(self) -> list[str]:
        """What isn't there, by name."""
        found = [name for name, ready in self._needs.items() if not ready()]
        problem = await self._database_problem()
        return [*found, problem] if problem else found

    async def watch(self, tell: Callable[[bool], Awaitable[None]]) -> None:
        """Tell whether all is there, at first and at each change, until cancelled."""
        while True:
            missing = await self.missing()
            if missing != self._known:
                self._known = missing
                await tell(not missing)
                log.log(logging.WARNING if missing else logging.INFO, "%s", _said(missing))
            await asyncio.sleep(_SOON_SECONDS if missing else LOOK_SECONDS)

    def leave(self) -> None:
        """The process is to end: whoever asks is told so."""
        self._is_leaving = True

    def told(self) -> tuple[bool, str]:
        """Whether the process serves, and what it says of it, by the last look."""
        if self._is_leaving:
            return False, "not serving: going down"
        if self._known is None:
            return False, "not serving: starting"
        return not self._known, _said(self._known)

    async def _database_problem(self) -> str:
        if self._database is None:
            return ""
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                theirs = (await self._database.ask("SELECT clock_timestamp()"))[0][0]
        except Exception as error:  # Whatever it is, the database doesn't answer us.
            return f"PostgreSQL ({type(error.__cause__ or error).__name__})"
        apart = abs((theirs - self._clock.wall_now()).total_seconds())
        return f"a clock like PostgreSQL's ({apart:.0f} s apart)" if apart > MAX_CLOCK_SECONDS else ""


def _said(missing: list[str]) -> str:
    return f"not serving: waiting for {', '.join(missing)}" if missing else "serving"
