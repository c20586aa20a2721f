"""A worker ends when it is told to, also where what it fetches with doesn't hear of it."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc.aio

from services._mesh.worker import JobRunner


class _Deaf:
    """Messages as nats-py fetches them where a cancellation comes just as the time is over."""

    def __init__(self) -> None:
        self.asked = 0
        self.fetching = asyncio.Event()

    async def fetch(self, _count: int, _seconds: float) -> list[Any]:
        self.asked += 1
        if self.asked > 1:
            raise AssertionError("it goes on fetching after it was told to end")
        self.fetching.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return []
        raise AssertionError("nobody told it to end")


async def test_a_cancellation_that_a_fetch_loses_ends_the_worker_all_the_same() -> None:
    messages: Any = _Deaf()
    store: Any = None  # No job is ever found.
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        running = asyncio.create_task(JobRunner(messages, channel, store, "tests", {}).run())
        await messages.fetching.wait()
        running.cancel()
        async with asyncio.timeout(30):
            await asyncio.wait({running})
    assert running.cancelled()
    assert messages.asked == 1
