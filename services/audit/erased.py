"""Tells producers which of their events were erased, so that nothing of those stays in their outboxes."""

from __future__ import annotations

from datetime import datetime

from services._mesh.database import Database
from services._mesh.log_client import Erased
from services._mesh.uow import Store
from services.audit.store import erased_events as store

MOST = 1000


class ErasedEvents:
    """Answers one erasure at a time. `dispatcher` sees which organizations have erasures."""

    def __init__(self, dispatcher: Database, reader: Store) -> None:
        self._dispatcher, self._reader = dispatcher, reader

    async def find(self, producer: str, since: datetime, after: Erased | None) -> Erased | None:
        """The producer's events that were erased since, after those of the last answer; None at the end.

        An erasure that it had no part in is an answer without events. Raises Problem.
        """
        if after is not None and (found := await self._of(producer, after)).event_ids:
            return found
        async with self._dispatcher.unscoped() as connection:
            place = (after.organization_id, after.erasure_id) if after else None
            following = await store.find_done(connection, since, place)
        return None if following is None else await self._of(producer, Erased(*following, (), 0))

    async def _of(self, producer: str, after: Erased) -> Erased:
        async with self._reader.read(after.organization_id) as connection:
            found = await store.list_erased(connection, after.erasure_id, producer, after.last_counter, MOST)
        last = found[-1][1] if found else after.last_counter
        return Erased(after.organization_id, after.erasure_id, tuple(event_id for event_id, _ in found), last)
