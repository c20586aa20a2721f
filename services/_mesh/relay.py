"""Carries committed events from a service's outbox to the log, and keeps each row until the log has named its index.

Events of one organization go in counter order. Losing an answer costs a repeated, idempotent append, never an event.
A batch that the log refuses holds up its own organization and nobody else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text

from services._mesh.clock import Clock
from services._mesh.database import Database, scope
from services._mesh.errors import Problem
from services._mesh.failpoints import reach
from services._mesh.metrics import Metrics

log = logging.getLogger(__name__)

BATCH = 500
# The log limits one append to 4 MiB on the wire.
BATCH_BYTES = 2 * 1024 * 1024
ORGANIZATIONS_A_ROUND = 50
# So many organizations' batches are under way at once; the log commits them together.
CONCURRENCY = 4
IDLE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0
_NIL = UUID(int=0)


@dataclass(frozen=True, slots=True)
class PendingEvent:
    """An outbox row on its way: what the log needs to know."""

    event_id: UUID
    organization_id: UUID
    counter: int
    payload: bytes


# Appends a batch and returns the log index of each event, in order; raises when it isn't known to be durable.
Append = Callable[[Sequence[PendingEvent]], Awaitable[Sequence[int]]]

# Goes round: after the last organization of one round comes the next, so that fifty that can't be relayed don't hide
# the others.
_WAITING = """
SELECT organization_id FROM {schema}.outbox_counters WHERE value > relayed
ORDER BY organization_id <= :after, organization_id LIMIT :limit
"""
_PENDING = """
SELECT event_id, counter, payload FROM {schema}.outbox
WHERE organization_id = :organization_id AND log_index IS NULL ORDER BY counter LIMIT :limit
"""
_MARK = """
UPDATE {schema}.outbox AS o SET log_index = m.log_index
FROM unnest(CAST(:ids AS uuid[]), CAST(:indexes AS bigint[])) AS m(event_id, log_index)
WHERE o.organization_id = :organization_id AND o.event_id = m.event_id
"""
_ADVANCE = """
UPDATE {schema}.outbox_counters SET relayed = greatest(relayed, :through) WHERE organization_id = :organization_id
"""
# An advisory lock instead of the counter's row: holding that row during the append would hold up every writer.
_CLAIM = "SELECT pg_try_advisory_xact_lock(hashtextextended('relay {schema} ' || :organization_id, 0))"


class Relay:
    """The relay task of one service, under its relay role."""

    def __init__(
        self,
        database: Database,
        schema: str,
        append: Append,
        clock: Clock | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._database, self._schema, self._append = database, schema, append
        self._clock = clock or Clock()
        metrics = metrics or Metrics()
        self._age = metrics.gauge("recoup_outbox_age_seconds", "Age of the oldest unrelayed event.", service=schema)
        self._behind = metrics.gauge(
            "recoup_outbox_organizations", "Organizations with events to relay.", service=schema
        )
        self._moved = metrics.counter("recoup_outbox_relayed", "Events that the log has taken.", service=schema)
        self._refused = metrics.counter("recoup_outbox_refused", "Batches that the log refused.", service=schema)
        self._wake = asyncio.Event()
        self._after = _NIL
        self._places = asyncio.Semaphore(CONCURRENCY)

    @property
    def behind(self) -> int:
        """How many organizations had events to relay when it was last looked (at most a round's worth)."""
        return int(self._behind.value)

    def wake(self) -> None:
        """Something was committed just now: don't wait for the next round."""
        self._wake.set()

    async def run(self) -> None:
        """Relay until cancelled. Failures are logged and tried again, with growing pauses."""
        pause = IDLE_SECONDS
        while True:
            try:
                moved = await self.round()
                pause = IDLE_SECONDS
            except Exception as error:
                moved, pause = 0, min(pause * 2, LONGEST_PAUSE_SECONDS)
                log.warning("the relay of %s failed and will try again: %s", self._schema, _name(error))
            if moved == 0:
                await self._rest(pause)

    async def round(self) -> int:
        """Relay one batch for each organization that has any; returns how many events went.

        Raises the first failure, after all the others had their turn.
        """
        async with self._database.unscoped() as connection:
            found = await connection.execute(
                text(_WAITING.format(schema=self._schema)), {"limit": ORGANIZATIONS_A_ROUND, "after": self._after}
            )
            waiting = [row.organization_id for row in found]
        self._behind.set(len(waiting))
        if not waiting:
            self._age.set(0)
            return 0
        self._after = waiting[-1]
        ages: list[float] = []
        results = await asyncio.gather(*(self._relay(each, ages) for each in waiting), return_exceptions=True)
        self._age.set(max(ages, default=0.0))
        failures = [result for result in results if isinstance(result, BaseException)]
        if failures:
            self._refused.add(len(failures))
            raise failures[0]
        return sum(result for result in results if isinstance(result, int))

    async def _relay(self, organization_id: UUID, ages: list[float]) -> int:
        """One organization's batch. It is claimed first, so that two relays don't do the same work."""
        async with self._places, self._database.unscoped() as connection:
            await scope(connection, organization_id)
            claimed = await connection.execute(
                text(_CLAIM.format(schema=self._schema)), {"organization_id": str(organization_id)}
            )
            if not claimed.scalar():
                return 0
            rows = await connection.execute(
                text(_PENDING.format(schema=self._schema)), {"organization_id": organization_id, "limit": BATCH}
            )
            events = within_limit(
                [PendingEvent(r.event_id, organization_id, r.counter, bytes(r.payload)) for r in rows], BATCH_BYTES
            )
            if not events:
                return 0
            ages.append(self._clock.wall_seconds() - made_at(events[0].event_id))
            reach("relay.claimed")
            indexes = await self._append(events)
            reach("relay.appended")
            if len(indexes) != len(events):
                raise ValueError(f"the log answered {len(indexes)} indexes for {len(events)} events")
            await connection.execute(
                text(_MARK.format(schema=self._schema)),
                {
                    "organization_id": organization_id,
                    "ids": [event.event_id for event in events],
                    "indexes": list(indexes),
                },
            )
            await connection.execute(
                text(_ADVANCE.format(schema=self._schema)),
                {"organization_id": organization_id, "through": events[-1].counter},
            )
            self._moved.add(len(events))
            return len(events)

    async def _rest(self, seconds: float) -> None:
        self._wake.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass


def within_limit(events: Sequence[PendingEvent], most_bytes: int) -> list[PendingEvent]:
    """The first of `events` that together have at most `most_bytes` of payload; at least one."""
    taken: list[PendingEvent] = []
    size = 0
    for event in events:
        size += len(event.payload)
        if taken and size > most_bytes:
            break
        taken.append(event)
    return taken


def made_at(event_id: UUID) -> float:
    """The wall-clock time within a UUIDv7, in seconds: good enough for a gauge, and never evidence."""
    return (event_id.int >> 80) / 1000


def _name(error: Exception) -> str:
    return error.reason_name if isinstance(error, Problem) else type(error).__name__
