"""The dispatcher: announces due jobs, frees lapsed leases, and announces again what nobody took.

A task of the API process under a database role of its own, which sees no job's payload. Whether work is due is a
question to a row (`due_at`, by the injected clock), never a timer in memory.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

from opentelemetry.trace import SpanKind
from sqlalchemy import text

from services._mesh import telemetry
from services._mesh.clock import Clock, monotonic
from services._mesh.database import Database
from services._mesh.metrics import Metrics

log = logging.getLogger(__name__)

# Longer than a short queue takes to drain, so that what is waiting isn't announced over and over.
REPUBLISH_AFTER = timedelta(seconds=30)
BATCH = 200
# One organization has at most so many jobs announced or leased at a time: its flood waits here, in its own rows,
# and not in a queue before everybody else.
SHARE = 50
IDLE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0
WATCH_SECONDS = 5.0
# A job this late, by the injected clock, is worth a person's attention.
OVERDUE_AFTER = timedelta(minutes=5)


class Announcer(Protocol):
    """Where jobs are announced: a job stream."""

    async def publish(self, kind: str, job_id: UUID, trace_parent: str) -> None:
        """Announce a job; raises when the stream hasn't taken it."""

    async def ensure(self) -> bool:
        """See that the stream is there; True when it had to be made, so that what it held is lost."""


class Dispatcher:
    """The dispatch task of one service. Several at once are harmless: each takes rows that no other has."""

    def __init__(
        self, database: Database, schema: str, clock: Clock, stream: Announcer, metrics: Metrics | None = None
    ) -> None:
        self._database, self._schema, self._clock, self._stream = database, schema, clock, stream
        self._any = _ANY.format(schema=schema)
        metrics = metrics or Metrics()
        self._announced = metrics.counter("recoup_jobs_announced", "Announcements of jobs.", service=schema)
        self._lapsed = metrics.counter("recoup_job_leases_lapsed", "Leases that ran out.", service=schema)
        self._overdue = metrics.gauge("recoup_jobs_overdue", "Jobs that are over five minutes late.", service=schema)
        self._due = metrics.gauge("recoup_jobs_due", "Jobs that are due and wait for a worker.", service=schema)
        text = "For how long the job has been due that waits longest."
        self._oldest = metrics.gauge("recoup_jobs_oldest_seconds", text, service=schema)
        self._wake = asyncio.Event()
        self._watched_at = float("-inf")

    @property
    def overdue(self) -> int:
        """How many jobs were late when it was last looked."""
        return int(self._overdue.value)

    def wake(self) -> None:
        """A job was committed just now: don't wait for the next round."""
        self._wake.set()

    async def run(self) -> None:
        """Dispatch until cancelled. Failures are logged and tried again, with growing pauses."""
        pause = IDLE_SECONDS
        while True:
            try:
                announced = await self.round()
                pause = IDLE_SECONDS
            except Exception as error:
                announced, pause = 0, min(pause * 2, LONGEST_PAUSE_SECONDS)
                log.warning("the dispatcher of %s will try again: %s", self._schema, type(error).__name__)
            if announced == 0:
                await self._rest(pause)

    async def round(self) -> int:
        """Announce one batch of due jobs; returns how many."""
        if monotonic() - self._watched_at >= WATCH_SECONDS:
            await self._watch()
            self._watched_at = monotonic()
        due = await self._take()
        # The rows are marked first: a message must not be waited for while they are locked. What doesn't reach the
        # stream is unmarked, and what a crash leaves marked comes again after REPUBLISH_AFTER.
        results = await asyncio.gather(*map(self._announce, due), return_exceptions=True)
        failed = [(row, result) for row, result in zip(due, results, strict=True) if result is not None]
        self._announced.add(len(due) - len(failed))
        if failed:
            await self._unmark([row.job_id for row, _ in failed])
            raise failed[0][1]
        return len(due)

    async def _announce(self, row: Any) -> None:
        """In the trace of the request that planned the job; the worker's part hangs below this."""
        with telemetry.active().span(
            f"publish jobs.{self._schema}.{row.kind}",
            kind=SpanKind.PRODUCER,
            trace_parent=row.trace_parent,
            attributes={
                "messaging.system": "nats",
                "messaging.message.id": str(row.job_id),
                telemetry.ORGANIZATION: str(row.organization_id),
            },
        ):
            await self._stream.publish(row.kind, row.job_id, telemetry.trace_parent())

    async def _take(self) -> list[Any]:
        wall, now = self._clock.wall_now(), self._clock.now()
        # Most rounds find nothing, and then one read says so.
        if not (await self._database.ask(self._any, wall, now, wall - REPUBLISH_AFTER))[0][0]:
            return []
        async with self._database.unscoped() as connection:
            freed = await connection.execute(text(_FREE.format(schema=self._schema)), {"wall": wall})
            self._lapsed.add(freed.rowcount)
            taken = await connection.execute(
                text(_TAKE.format(schema=self._schema)),
                {"now": now, "wall": wall, "before": wall - REPUBLISH_AFTER, "share": SHARE, "limit": BATCH},
            )
            # RETURNING keeps no order.
            return sorted(taken, key=lambda row: (row.turn, row.due_at))

    async def _unmark(self, job_ids: list[UUID]) -> None:
        async with self._database.unscoped() as connection:
            await connection.execute(text(_UNMARK.format(schema=self._schema)), {"ids": job_ids})

    async def _watch(self) -> None:
        """Have a lost stream made again, and all that it held announced again; count what is due and late."""
        made = await self._stream.ensure()
        async with self._database.unscoped() as connection:
            if made:
                await connection.execute(text(_UNMARK_ALL.format(schema=self._schema)))
            now = self._clock.now()
            waiting = await connection.execute(
                text(_WAITING.format(schema=self._schema)), {"now": now, "before": now - OVERDUE_AFTER}
            )
            due, late, since = waiting.one()
        self._due.set(due)
        self._oldest.set(0.0 if since is None else (now - since).total_seconds())
        self._note_overdue(late, since)

    def _note_overdue(self, count: int, since: datetime | None) -> None:
        if count and not self._overdue.value:
            log.error("%d jobs of %s are overdue, the first since %s", count, self._schema, since)
        self._overdue.set(count)

    async def _rest(self, seconds: float) -> None:
        self._wake.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass


_FREE = """
UPDATE {schema}.jobs SET status = 'READY', failures = failures + 1, published_at = NULL
WHERE status = 'LEASED' AND lease_until < :wall
"""
# Organizations are found by skipping through the index, not by reading all rows.
_ORGANIZATIONS = """
WITH RECURSIVE organizations AS (
  (SELECT organization_id FROM {schema}.jobs WHERE status = 'READY' ORDER BY organization_id LIMIT 1)
  UNION ALL
  SELECT (SELECT j.organization_id FROM {schema}.jobs AS j
          WHERE j.status = 'READY' AND j.organization_id > o.organization_id ORDER BY j.organization_id LIMIT 1)
  FROM organizations AS o WHERE o.organization_id IS NOT NULL
)"""
# Whether any lease has lapsed, or any job is due that isn't announced.
_ANY = f"""{_ORGANIZATIONS}
SELECT EXISTS (SELECT FROM {{schema}}.jobs WHERE status = 'LEASED' AND lease_until < $1)
  OR EXISTS (SELECT FROM organizations AS o JOIN {{schema}}.jobs AS j ON j.organization_id = o.organization_id
             WHERE j.status = 'READY' AND j.due_at <= $2 AND (j.published_at IS NULL OR j.published_at < $3))
"""
# Each organization's n-th job comes before anybody's n+1-th. SKIP LOCKED lets several dispatchers work side by side.
_TAKE = f"""{_ORGANIZATIONS}, shares AS (
  SELECT o.organization_id, :share
    - (SELECT count(*) FROM {{schema}}.jobs AS l WHERE l.organization_id = o.organization_id AND l.status = 'LEASED')
    - (SELECT count(*) FROM {{schema}}.jobs AS p WHERE p.organization_id = o.organization_id AND p.status = 'READY'
         AND p.due_at <= :now AND p.published_at >= :before) AS free
  FROM organizations AS o WHERE o.organization_id IS NOT NULL
), due AS (
  SELECT s.organization_id, d.job_id, d.due_at, row_number() OVER (PARTITION BY s.organization_id) AS turn
  FROM shares AS s CROSS JOIN LATERAL (
    SELECT j.job_id, j.due_at FROM {{schema}}.jobs AS j
    WHERE j.organization_id = s.organization_id AND j.status = 'READY' AND j.due_at <= :now
      AND (j.published_at IS NULL OR j.published_at < :before)
    ORDER BY j.due_at LIMIT greatest(s.free, 0) FOR UPDATE SKIP LOCKED
  ) AS d
  ORDER BY turn, d.due_at LIMIT :limit
)
UPDATE {{schema}}.jobs AS j SET published_at = :wall
FROM due WHERE j.organization_id = due.organization_id AND j.job_id = due.job_id
RETURNING j.job_id, j.organization_id, j.kind, j.trace_parent, due.turn, due.due_at
"""
_UNMARK = "UPDATE {schema}.jobs SET published_at = NULL WHERE job_id = ANY(CAST(:ids AS uuid[])) AND status = 'READY'"
_UNMARK_ALL = "UPDATE {schema}.jobs SET published_at = NULL WHERE status = 'READY' AND published_at IS NOT NULL"
_WAITING = """
SELECT count(*), count(*) FILTER (WHERE due_at < :before), min(due_at)
FROM {schema}.jobs WHERE status = 'READY' AND due_at <= :now
"""
