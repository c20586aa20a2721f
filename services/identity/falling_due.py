"""The task that finds what has fallen due, in any organization, and has it dealt with. It decides nothing.

Nothing is in force because this task is late: whatever has an end is compared with it in SQL. It tells, and opens
reviews.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

from services._mesh.clock import Clock
from services._mesh.database import Database
from services._mesh.errors import Problem
from services._mesh.metrics import Metrics
from services._mesh.uow import Store
from services.identity.store import due
from services.identity.usecases.dues import DUES

log = logging.getLogger(__name__)

EVERY_SECONDS = 5.0
LATE_AFTER = timedelta(seconds=60)
# In one round; what comes behind them waits for the next.
_MOST = 1000


class FallingDue:
    """`dispatcher` is under the role that sees what is due where; `store` deals with it under each organization."""

    def __init__(self, dispatcher: Database, store: Store, clock: Clock, metrics: Metrics | None = None) -> None:
        self._dispatcher, self._store, self._clock = dispatcher, store, clock
        metrics = metrics or Metrics()
        self._late = metrics.gauge("recoup_identity_due_late", "Items that fell due over a minute ago and still wait.")
        self._failures = metrics.counter(
            "recoup_identity_due_failures", "Attempts to deal with a due item that failed."
        )

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                await self.round()
            except Exception as error:
                log.warning("what is due will be looked for again: %s", _name(error))
            await asyncio.sleep(EVERY_SECONDS)

    async def round(self) -> int:
        """Deal with what is due now; returns how much was. One item's failure holds up no other. Raises Problem."""
        now, done = self._clock.now(), 0
        async with self._dispatcher.unscoped() as connection:
            found = await due.list_due(connection, now, _MOST)
        for item in found:
            try:
                async with self._store.begin(item.organization_id) as work:
                    key = (item.organization_id, item.kind, item.subject_id, item.due_at)
                    if await due.take_due(work.connection, *key):
                        await DUES[item.kind](work, item.subject_id)
                        done += 1
            except Exception as error:
                self._failures.add(1)
                log.error("%s of %s failed: %s", item.kind, item.subject_id, _name(error))
        async with self._dispatcher.unscoped() as connection:
            self._late.set(await due.count_late(connection, now - LATE_AFTER))
        return done


def _name(error: Exception) -> str:
    return error.reason_name if isinstance(error, Problem) else type(error).__name__
