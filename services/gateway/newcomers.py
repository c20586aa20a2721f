"""The lane of credentials that identity hasn't accepted lately.

A few of them ask at a time, and the others wait here: however many somebody makes up, what stands before identity when
a session that was let in needs a passport is a few calls and not the whole flood.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services._mesh.errors import Reason, Unavailable


class Lane:
    """At most `places` at a time; `waiting` more wait in turn, for `seconds` at most."""

    def __init__(self, places: int, waiting: int, seconds: float) -> None:
        self._places = asyncio.Semaphore(places)
        self._most, self._seconds = waiting, seconds
        self._waiting = 0

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """A place, once it is one's turn. Raises Unavailable where too many wait, or when it takes too long."""
        if self._waiting >= self._most:
            raise busy()
        self._waiting += 1
        try:
            async with asyncio.timeout(self._seconds):
                await self._places.acquire()
        except TimeoutError:
            raise busy() from None
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._places.release()


def busy() -> Unavailable:
    """What whoever would only wait is told: an answer now is worth more than one after they gave up."""
    return Unavailable(
        Reason.ERROR_REASON_DEPENDENCY_UNAVAILABLE,
        "The gateway is busy. Try again in a moment.",
        {"dependency": "gateway"},
    )


def going() -> Unavailable:
    """What is said where this gateway ends and another one goes on."""
    return Unavailable(
        Reason.ERROR_REASON_DEPENDENCY_UNAVAILABLE,
        "This gateway is being ended. Ask again: another one goes on.",
        {"dependency": "gateway"},
    )
