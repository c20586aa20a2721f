"""The revocation feed, as its readers ask for it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

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
