"""Carries committed events from a service's outbox to the log, and keeps each row until the log has named its index.

Events of one organization go in counter order, those of several organizations in one append. Losing an answer costs a
repeated, idempotent append, never an event. What the log refuses holds up its own organization and nobody else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from services._mesh.clock import Clock
from services._mesh.database import Database, execute_raw
from services._mesh.errors import DeadlinePassed, Exhausted, Problem, Unavailable
from services._mesh.failpoints import reach
from services._mesh.metrics import Metrics

log = logging.getLogger(__name__)

BATCH = 500
# The log limits one append to 4 MiB on the wire.
BATCH_BYTES = 2 * 1024 * 1024
ORGANIZATIONS_A_ROUND = 64
# So many organizations share one append, each with its share of it; so many appends are under way at once.
ORGANIZATIONS_AN_APPEND = 16
LEAST_SHARE = 50
CONCURRENCY = 4
IDLE_SECONDS = 0.2
# After a round that wasn't full, so that one append carries many.
LINGER_SECONDS = 0.05
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
ORDER BY organization_id <= $1, organization_id LIMIT $2
"""
# Both are made by `relaying` (schema.py).
_CLAIM = "SELECT organization, event, number, body FROM {schema}.relay_claim($1, $2)"
_MARK = "SELECT {schema}.relay_mark($1, $2, $3, $4, $5)"
# After these the log said nothing about the events: trying each organization's apart would ask it the same again.
_NOT_ANSWERED = (Unavailable, DeadlinePassed, Exhausted)


@dataclass(frozen=True, slots=True)
class _Taken:
    """An organization's events, and the index that the log gave to each."""

    events: Sequence[PendingEvent]
    indexes: Sequence[int]


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
        self._waiting, self._claim, self._mark = (each.format(schema=schema) for each in (_WAITING, _CLAIM, _MARK))
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
            elif moved < BATCH:
                await asyncio.sleep(LINGER_SECONDS)

    async def round(self) -> int:
        """Relay a batch of each organization that has any; returns how many events went.

        Raises the first failure, after all the others had their turn.
        """
        found = await self._database.ask(self._waiting, self._after, ORGANIZATIONS_A_ROUND)
        waiting = [row["organization_id"] for row in found]
        self._behind.set(len(waiting))
        if not waiting:
            self._age.set(0)
            return 0
        self._after = waiting[-1]
        ages: list[float] = []
        groups = [waiting[i : i + ORGANIZATIONS_AN_APPEND] for i in range(0, len(waiting), ORGANIZATIONS_AN_APPEND)]
        results = await asyncio.gather(*(self._relay(each, ages) for each in groups), return_exceptions=True)
        self._age.set(max(ages, default=0.0))
        failures = [result for result in results if isinstance(result, BaseException)]
        if failures:
            raise failures[0]
        return sum(result for result in results if isinstance(result, int))

    async def _relay(self, group: Sequence[UUID], ages: list[float]) -> int:
        """A batch of each organization of a group. They are claimed first, so that two relays don't do the same."""
        async with self._places, self._database.unscoped() as connection:
            pending = await self._claimed(connection, group)
            ages += [self._clock.wall_seconds() - made_at(events[0].event_id) for events in pending]
            reach("relay.claimed")
            taken, failures = await self._appended(within_limit(pending, BATCH_BYTES))
            reach("relay.appended")
            await self._marked(connection, taken)
        moved = sum(len(each.events) for each in taken)
        self._moved.add(moved)
        self._refused.add(len(failures))
        if failures:
            raise failures[0]
        return moved

    async def _claimed(self, connection: AsyncConnection, group: Sequence[UUID]) -> list[list[PendingEvent]]:
        """The next events of each organization, in counter order; none of one where another relay is at them."""
        rows = await execute_raw(connection, self._claim, group, max(BATCH // len(group), LEAST_SHARE))
        events = (PendingEvent(event, organization, number, body) for organization, event, number, body in rows)
        return [list(each) for _, each in groupby(events, key=attrgetter("organization_id"))]

    async def _appended(self, pending: Sequence[Sequence[PendingEvent]]) -> tuple[list[_Taken], list[Exception]]:
        """Append all at once, or each organization's apart where one is refused; what was taken, and what failed."""
        if not pending:
            return [], []
        try:
            indexes = await self._append([event for events in pending for event in events])
            return _shared_out(pending, indexes), []
        except Exception as error:
            if len(pending) == 1 or not isinstance(error, Problem) or isinstance(error, _NOT_ANSWERED):
                return [], [error]
        taken, failures = list[_Taken](), list[Exception]()
        for events in pending:
            more, failed = await self._appended([events])
            taken, failures = taken + more, failures + failed
        return taken, failures

    async def _marked(self, connection: AsyncConnection, taken: Sequence[_Taken]) -> None:
        events = [event for each in taken for event in each.events]
        if events:
            organizations, ids = [each.organization_id for each in events], [each.event_id for each in events]
            counters, places = [each.counter for each in events], [place for each in taken for place in each.indexes]
            now = self._clock.now()
            await execute_raw(connection, self._mark, now, organizations, ids, counters, places)

    async def _rest(self, seconds: float) -> None:
        self._wake.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass


def _shared_out(pending: Sequence[Sequence[PendingEvent]], indexes: Sequence[int]) -> list[_Taken]:
    """The indexes of one append, to the organizations whose events were in it."""
    expected = sum(len(events) for events in pending)
    if len(indexes) != expected:
        raise ValueError(f"the log answered {len(indexes)} indexes for {expected} events")
    found, start = [], 0
    for events in pending:
        found.append(_Taken(events, indexes[start : start + len(events)]))
        start += len(events)
    return found


def within_limit(pending: Sequence[Sequence[PendingEvent]], most_bytes: int) -> list[list[PendingEvent]]:
    """The first events of each organization that together have at most `most_bytes` of payload; at least one."""
    taken: list[list[PendingEvent]] = []
    size = 0
    for events in pending:
        own: list[PendingEvent] = []
        for event in events:
            size += len(event.payload)
            if (taken or own) and size > most_bytes:
                return [*taken, own] if own else taken
            own.append(event)
        taken.append(own)
    return taken


def made_at(event_id: UUID) -> float:
    """The wall-clock time within a UUIDv7, in seconds: good enough for a gauge, and never evidence."""
    return (event_id.int >> 80) / 1000


def _name(error: Exception) -> str:
    return error.reason_name if isinstance(error, Problem) else type(error).__name__
