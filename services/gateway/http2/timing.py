"""Deadlines that nothing which comes in between makes longer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Patience:
    """Waits for one thing at a time, each for so many seconds; `over` is told which of them didn't come."""

    def __init__(self, seconds: float, over: Callable[[str], None]) -> None:
        self._seconds, self._over = seconds, over
        self._owed: tuple[str, int] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def owe(self, what: tuple[str, int] | None) -> None:
        """What is waited for now: a kind of thing, and which of them. The time of the same one goes on."""
        if what == self._owed:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._owed, self._timer = what, None
        if what is not None:
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._over, what[0])


class Unread:
    """Requests that were answered before they were whole: each has so many seconds to end, then `over` is told."""

    def __init__(self, seconds: float, over: Callable[[int], None]) -> None:
        self._seconds, self._over = seconds, over
        self._timers: dict[int, asyncio.TimerHandle] = {}

    def add(self, number: int) -> None:
        """Begin to wait."""
        self._timers[number] = asyncio.get_running_loop().call_later(self._seconds, self._end, number)

    def discard(self, number: int) -> None:
        """It ended."""
        if number in self._timers:
            self._timers.pop(number).cancel()

    def clear(self) -> None:
        """Nothing is waited for any more."""
        for number in list(self._timers):
            self.discard(number)

    def _end(self, number: int) -> None:
        del self._timers[number]
        self._over(number)

    def __len__(self) -> int:
        return len(self._timers)
