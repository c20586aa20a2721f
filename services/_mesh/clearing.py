"""Takes payloads out of an outbox once the log has had them for long enough, or has erased them.

A row, its counter and its event id stay, which is what the reconciler compares. What the log doesn't hold any more
keeps its payload, however old: from there it can be appended again. It must not touch a row without an index.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Protocol
from uuid import UUID

from sqlalchemy import Row, text

from services._mesh.clock import Clock
from services._mesh.database import Database
from services._mesh.errors import Problem
from services._mesh.failpoints import reach
from services._mesh.log_client import Erased, Summary
from services._mesh.metrics import Metrics
from services._mesh.reconcile import WINDOW, digest_of

log = logging.getLogger(__name__)

# How often the log is asked what was erased, and every how many times it is looked for what is old.
EVERY_SECONDS = 10.0
AGED_EVERY_ROUNDS = 60
# Between two batches of each organization, so that a long backlog is no burden.
PAUSE_SECONDS = 1.0
BATCH = 500
# What was erased in the whole window is asked for at the start, and again in every so many rounds; else what is new,
# with so much more before: another process's clock, and what was relayed at the same moment.
FULL_EVERY_ROUNDS = 360
SLACK = timedelta(minutes=10)
_ORGANIZATIONS = 500


# Takes an organization's erased events out of what else a service keeps of them. It may be told twice.
OnErased = Callable[[UUID, Sequence[UUID]], Awaitable[None]]


class Kept(Protocol):
    """What the log says about a producer's events: a `LogClient`."""

    async def summarize(self, organization_id: UUID, first: int, last: int, *, with_ids: bool = False) -> Summary:
        """What the log holds between two counters."""

    async def next_erased(self, since: datetime, after: Erased | None) -> Erased | None:
        """The next events that were erased since, or None."""


@dataclass(frozen=True, slots=True)
class _Place:
    """How far an organization's events are relayed, and how far they were cleared."""

    organization_id: UUID
    relayed: int
    cleared: int


_PLACES = """
SELECT organization_id, relayed, cleared FROM {schema}.outbox_counters
WHERE relayed > cleared AND (organization_id > :after OR :first) ORDER BY organization_id LIMIT :limit
"""
# Rows that the version before relayed don't say when.
_NEXT = """
SELECT event_id, counter, log_index IS NOT NULL AS relayed, coalesce(relayed_at, occurred_at) AS relayed_at
FROM {schema}.outbox WHERE organization_id = :organization_id AND counter > :cleared AND counter <= :through
ORDER BY counter LIMIT :limit
"""
_CLEAR = """
UPDATE {schema}.outbox SET payload = NULL WHERE organization_id = :organization_id
  AND event_id = ANY(CAST(:ids AS uuid[])) AND log_index IS NOT NULL AND payload IS NOT NULL
"""
_CLEARED = """
UPDATE {schema}.outbox_counters SET cleared = greatest(cleared, :through) WHERE organization_id = :organization_id
"""


class Clearing:
    """The clearing task of one service, under its relay role. Payloads are kept for `days` after they were relayed."""

    def __init__(
        self,
        database: Database,
        schema: str,
        to: Kept,
        clock: Clock,
        days: int,
        metrics: Metrics | None = None,
        on_erased: OnErased | None = None,
    ) -> None:
        self._database, self._schema, self._log, self._clock = database, schema, to, clock
        self._window, self._on_erased = timedelta(days=days), on_erased
        self._places, self._next, self._clear, self._moved = (
            text(each.format(schema=schema)) for each in (_PLACES, _NEXT, _CLEAR, _CLEARED)
        )
        metrics = metrics or Metrics()
        what = "Payloads that were taken out of the outbox."
        self._by_age = metrics.counter("recoup_outbox_payloads_cleared", what, service=schema, cause="age")
        self._by_erasure = metrics.counter("recoup_outbox_payloads_cleared", what, service=schema, cause="erasure")
        self._overdue = metrics.gauge(
            "recoup_outbox_payload_overdue_seconds",
            "How long past its time the oldest payload is that the outbox keeps.",
            service=schema,
        )
        self._round, self._asked = 0, clock.now()

    async def run(self) -> None:
        """Clear until cancelled."""
        rounds = 0
        while True:
            await asyncio.sleep(EVERY_SECONDS if rounds >= 0 else PAUSE_SECONDS)
            await self._tried(self.clear_erased)
            if rounds <= 0:
                rounds = 0 if await self._tried(self.clear_aged) else AGED_EVERY_ROUNDS
            rounds -= 1

    async def _tried(self, step: Callable[[], Awaitable[int]]) -> int:
        try:
            return await step()
        except Exception as error:
            name = error.reason_name if isinstance(error, Problem) else type(error).__name__
            log.warning("clearing the outbox of %s will be tried again: %s", self._schema, name)
            return 0

    async def clear_erased(self, *, full: bool = False) -> int:
        """Clear what the log says was erased; returns how many payloads went. Raises Problem."""
        began = self._clock.now()
        full = full or self._round % FULL_EVERY_ROUNDS == 0
        since = (began - self._window if full else self._asked) - SLACK
        cleared, found = 0, await self._log.next_erased(since, None)
        while found is not None:
            if self._on_erased is not None and found.event_ids:
                await self._on_erased(found.organization_id, found.event_ids)
            cleared += await self._taken_out(found.organization_id, found.event_ids)
            found = await self._log.next_erased(since, found)
        self._round, self._asked = self._round + 1, began
        self._by_erasure.add(cleared)
        return cleared

    async def clear_aged(self) -> int:
        """Clear a batch of each organization that is old enough; returns how many rows were gone past. Raises Problem.

        What stops one organization stops no other: the first failure is raised after all had their turn.
        """
        now = self._clock.now()
        passed, overdue, failures = 0, timedelta(), list[Exception]()
        places = await self._waiting(None)
        while places:
            for place in places:
                try:
                    rows, oldest = await self._clear_batch(place, now - self._window)
                except Exception as error:
                    failures.append(error)
                    continue
                passed += rows
                overdue = max(overdue, now - self._window - oldest if oldest else timedelta())
            places = await self._waiting(places[-1].organization_id)
        self._overdue.set(overdue.total_seconds())
        if failures:
            raise failures[0]
        return passed

    async def _waiting(self, after: UUID | None) -> list[_Place]:
        values = {"after": after or UUID(int=0), "first": after is None, "limit": _ORGANIZATIONS}
        async with self._database.unscoped() as connection:
            rows = await connection.execute(self._places, values)
            return [_Place(row.organization_id, row.relayed, row.cleared) for row in rows]

    async def _clear_batch(self, place: _Place, before: datetime) -> tuple[int, datetime | None]:
        """Clear the next rows that are old enough and in the log; returns how many, and when the next one was relayed.

        The log is asked between two transactions. What it doesn't have any more stops the organization here.
        """
        through = min(place.relayed, place.cleared + WINDOW)
        values = {"organization_id": place.organization_id, "cleared": place.cleared, "through": through}
        async with self._database.scoped(place.organization_id, read_only=True) as connection:
            rows = list(await connection.execute(self._next, {**values, "limit": BATCH}))
        due = list(takewhile(lambda row: row.relayed and row.relayed_at <= before, rows))
        held = await self._held(place.organization_id, due) if due else set()
        taken = list(takewhile(lambda row: row.event_id in held, due))
        if len(taken) == len(rows) < BATCH:
            end = through  # Counters without a row are gone past, too; the reconciler names them.
        elif taken:
            end = taken[-1].counter
        else:
            return 0, rows[0].relayed_at
        cleared = await self._taken_out(place.organization_id, [row.event_id for row in taken], end)
        self._by_age.add(cleared)
        return end - place.cleared, rows[len(taken)].relayed_at if len(taken) < len(rows) else None

    async def _held(self, organization_id: UUID, rows: Sequence[Row[tuple[UUID, int]]]) -> set[UUID]:
        """Those of the rows' events that the log has. Ids are asked for only where the digests differ."""
        ids, first, last = [row.event_id for row in rows], rows[0].counter, rows[-1].counter
        summary = await self._log.summarize(organization_id, first, last)
        if summary.digest == digest_of(ids):
            return set(ids)
        return set((await self._log.summarize(organization_id, first, last, with_ids=True)).event_ids)

    async def _taken_out(self, organization_id: UUID, event_ids: Sequence[UUID], through: int = 0) -> int:
        """Clear the payloads of relayed rows, and remember how far; returns how many there were."""
        if not event_ids and not through:
            return 0
        async with self._database.scoped(organization_id) as connection:
            values = {"organization_id": organization_id, "ids": list(event_ids)}
            cleared = int((await connection.execute(self._clear, values)).rowcount)
            reach("clearing.cleared")
            if through:
                values = {"organization_id": organization_id, "through": through}
                await connection.execute(self._moved, values)
        return cleared
