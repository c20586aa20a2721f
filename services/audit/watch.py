"""Keeps looking whether the database of keys is the one that was looked at, and looks again when it isn't."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from uuid import UUID

from services._mesh.database import Database
from services._mesh.errors import Problem
from services.audit.serving import Serving
from services.audit.store import keys as store

log = logging.getLogger(__name__)

EVERY_SECONDS = 5.0
_AGAIN_SECONDS = 0.5

# Looks at all keys, sees to it that none was erased, and says in which generation that is so.
Look = Callable[[], Awaitable[UUID]]


class KeysWatch:
    """The task that clears doubts about the keys. `database` is of the keys, under any role."""

    def __init__(self, serving: Serving, database: Database, look: Look) -> None:
        self._serving, self._database, self._look = serving, database, look

    async def run(self) -> None:
        """Watch until cancelled. What can't be read is doubted: a database that comes back may be another one."""
        while True:
            try:
                if self._serving.ready:
                    await self.check()
                else:
                    self._serving.trust(await self._look())
                    log.info("subjects' keys may be used")
            except Exception as error:
                self._serving.doubt()
                name = error.reason_name if isinstance(error, Problem) else type(error).__name__
                log.warning("subjects' keys can't be used, and will be looked at again: %s", name)
                await asyncio.sleep(_AGAIN_SECONDS)
            else:
                await self._pause()

    async def check(self) -> None:
        """See that the database is the one that is known. Raises Unavailable where it isn't."""
        async with self._database.unscoped() as connection:
            self._serving.holds(await store.read_generation(connection))

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(EVERY_SECONDS):
                await self._serving.doubted.wait()
        except TimeoutError:
            pass
