"""Holds work on the log's rows to so many a second, so that it never crowds out what the log is there for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from services._mesh.clock import monotonic

Sleep = Callable[[float], Awaitable[None]]


@dataclass
class Pace:
    """Holds the check to so many rows a second."""

    rows_per_second: float
    sleep: Sleep = asyncio.sleep
    now: Callable[[], float] = monotonic
    _owed: float = 0.0

    async def spend(self, rows: int) -> None:
        """Rest until `rows` more may have been read."""
        now = self.now()
        self._owed = max(self._owed, now) + rows / self.rows_per_second
        if rows and self._owed > now:
            await self.sleep(self._owed - now)
