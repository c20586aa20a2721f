"""The revocation feed, as its readers ask for it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from services._mesh.clock import Clock
from services._mesh.uow import Store
from services.identity.store import revocations as store


@dataclass(frozen=True, slots=True)
class FeedPiece:
    """New entries of the feed, and the newest one's place."""

    entries: tuple[Any, ...]
    latest_seq: int


FEED_BATCH = 1000

FEED_PERIOD = timedelta(seconds=600)


async def read_revocations(reader: Store, after: int, wall_now: datetime) -> FeedPiece:
    """The entries after a place that can still matter; older ones outlived every token."""
    async with reader.read(UUID(int=0)) as connection:
        entries = await store.list_revocations(connection, after, wall_now - FEED_PERIOD, FEED_BATCH)
        latest = await store.latest_seq(connection)
    return FeedPiece(tuple(entries), latest)


class Beats:
    """What is new in the feed, beat by beat; everybody who has seen the same is told by one read of the database."""

    def __init__(self, reader: Store, clock: Clock, seconds: float) -> None:
        self._reader, self._clock, self._seconds = reader, clock, seconds
        self._reads: dict[int, asyncio.Task[FeedPiece]] = {}

    async def after(self, seen: int) -> FeedPiece:
        """What came after a place, read at the next beat."""
        if seen not in self._reads:
            self._reads[seen] = asyncio.create_task(self._read(seen))
        return await asyncio.shield(self._reads[seen])  # Who goes away takes it from nobody else.

    async def _read(self, seen: int) -> FeedPiece:
        await asyncio.sleep(self._seconds)
        del self._reads[seen]  # Who comes from now on may miss what is committed meanwhile.
        return await read_revocations(self._reader, seen, self._clock.wall_now())
