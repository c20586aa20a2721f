"""The log as a producer of its own events: what a `LogClient` is to the other services, without a call."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from services._mesh.log_client import Erased, Summary
from services._mesh.relay import PendingEvent
from services._mesh.uow import Store
from services.audit import usecases
from services.audit.erased import ErasedEvents
from services.audit.model.events import Produced
from services.audit.sequencer import Sequencer

PRODUCER = "audit"


class OwnLog:
    """Appends what audit's own outbox holds, and says what the log has of it."""

    def __init__(self, reader: Store, sequencer: Sequencer, erased: ErasedEvents | None = None) -> None:
        self._reader, self._sequencer, self._erased = reader, sequencer, erased

    async def append(self, events: Sequence[PendingEvent]) -> list[int]:
        """Append, all or none; returns the places once they are durable. Raises Problem."""
        produced = [Produced(e.event_id, e.organization_id, e.counter, e.payload) for e in events]
        return await usecases.append_events(self._sequencer, PRODUCER, produced)

    async def summarize(self, organization_id: UUID, first: int, last: int, *, with_ids: bool = False) -> Summary:
        """What the log holds of ours between two counters, both included. Raises Problem."""
        ids, digest, before = await usecases.summarize_producer(self._reader, organization_id, PRODUCER, first, last)
        return Summary(len(ids), digest, tuple(ids) if with_ids else (), before)

    async def next_erased(self, since: datetime, after: Erased | None) -> Erased | None:
        """The next of our events that were erased since; None at the end. Raises Problem."""
        return None if self._erased is None else await self._erased.find(PRODUCER, since, after)
