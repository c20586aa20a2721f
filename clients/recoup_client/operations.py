"""Long work as something to wait for: it goes on whether or not anybody does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
OPERATION_SECONDS = 3600.0
# Between two looks, which become rarer the longer it takes.
_FIRST_PAUSE, _LONGEST_PAUSE, _GROWTH = 0.25, 5.0, 1.5


class Operation(Generic[T]):
    """Long work, such as a scan. `await` it for its end, or go through `progress()` for each state on the way.

    Giving up waiting changes nothing about the work.
    """

    def __init__(self, read: Callable[[], Awaitable[T]], is_over: Callable[[T], bool]) -> None:
        self._read, self._is_over = read, is_over

    def __await__(self) -> Generator[None, None, T]:
        return self.result().__await__()

    async def result(self, seconds: float = OPERATION_SECONDS) -> T:
        """How it ended, well or not: look at its state. Raises TimeoutError after `seconds`, and RecoupError."""
        async for state in self.progress(seconds):
            last = state
        return last

    async def progress(self, seconds: float = OPERATION_SECONDS) -> AsyncIterator[T]:
        """Each state that differs from the one before, the last one being its end.

        Raises TimeoutError once it has taken `seconds`, and RecoupError.
        """
        last: T | None = None
        ends_at, pause = time.monotonic() + seconds, _FIRST_PAUSE
        while True:
            state = await self._read()
            is_over = self._is_over(state)
            if state != last or is_over:
                yield state
            if is_over:
                return
            last, pause = state, _next(pause, ends_at, seconds)
            await asyncio.sleep(pause)


class BlockingOperation(Generic[T]):
    """The same, for programs without an event loop."""

    def __init__(self, read: Callable[[], T], is_over: Callable[[T], bool]) -> None:
        self._read, self._is_over = read, is_over

    def result(self, seconds: float = OPERATION_SECONDS) -> T:
        """How it ended, well or not: look at its state. Raises TimeoutError after `seconds`, and RecoupError."""
        for state in self.progress(seconds):
            last = state
        return last

    def progress(self, seconds: float = OPERATION_SECONDS) -> Iterator[T]:
        """Each state that differs from the one before, the last one being its end.

        Raises TimeoutError once it has taken `seconds`, and RecoupError.
        """
        last: T | None = None
        ends_at, pause = time.monotonic() + seconds, _FIRST_PAUSE
        while True:
            state = self._read()
            is_over = self._is_over(state)
            if state != last or is_over:
                yield state
            if is_over:
                return
            last, pause = state, _next(pause, ends_at, seconds)
            time.sleep(pause)


def _next(pause: float, ends_at: float, seconds: float) -> float:
    """How long to wait until the next look."""
    left = ends_at - time.monotonic()
    if left <= 0:
        raise TimeoutError(f"it isn't over after {seconds:g} s, and goes on")
    return min(pause * _GROWTH, _LONGEST_PAUSE, left)
