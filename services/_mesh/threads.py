"""Runs blocking calls in a bounded pool of threads, each with a deadline, so that the event loop never waits.

Owns nothing of what is run. A call that overruns its deadline is abandoned, not interrupted: Python can't; its place
in the pool stays taken until it returns, which is why the SDK's own timeouts must be shorter than the deadline.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class BoundedThreads:
    """A pool of at most `size` threads; further calls wait for a place within their own deadline."""

    def __init__(self, size: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(max_workers=size, thread_name_prefix=name)
        self._places = asyncio.Semaphore(size)

    async def run(self, deadline_seconds: float, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """The result of `call`, run in a thread with the current context. Raises TimeoutError, or what it raises."""
        async with asyncio.timeout(deadline_seconds):
            await self._places.acquire()
            context = contextvars.copy_context()
            future = self._pool.submit(lambda: context.run(call, *args, **kwargs))
            future.add_done_callback(self._give_back(asyncio.get_running_loop()))
            return await asyncio.wrap_future(future)

    def _give_back(self, loop: asyncio.AbstractEventLoop) -> Callable[[object], None]:
        def done(_: object) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._places.release)

        return done

    def close(self) -> None:
        """Take no more calls, and drop those that wait."""
        self._pool.shutdown(wait=False, cancel_futures=True)
