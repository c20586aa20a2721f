"""The task that finds what has fallen due, in any organization, and has it dealt with. It decides nothing.

Nothing is in force because this task is late: whatever has an end is compared with it in SQL. It tells, opens reviews,
and asks outside what has to be asked again from time to time; that holds up nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType
from typing import Any
from uuid import UUID

from services._mesh.clock import Clock
from services._mesh.database import Database
from services._mesh.errors import Problem
from services._mesh.metrics import Metrics
from services._mesh.uow import Store, UnitOfWork
from services.identity.store import due
from services.identity.usecases.dues import DUES

log = logging.getLogger(__name__)

EVERY_SECONDS = 5.0
LATE_AFTER = timedelta(seconds=60)
# In one round; what comes behind them waits for the next.
_MOST = 1000
_AT_ONCE = 8

# What is asked outside of any transaction about an organization's subject; it says what is to be made of the answer.
Ask = Callable[[UUID, UUID], Awaitable[Callable[[UnitOfWork, UUID], Awaitable[None]]]]


class FallingDue:
    """`dispatcher` is under the role that sees what is due where; `store` deals with it under each organization."""

    def __init__(
        self,
        dispatcher: Database,
        store: Store,
        clock: Clock,
        metrics: Metrics | None = None,
        asks: Mapping[str, Ask] = MappingProxyType({}),
    ) -> None:
        self._dispatcher, self._store, self._clock, self._asks = dispatcher, store, clock, asks
        metrics = metrics or Metrics()
        self._late = metrics.gauge("recoup_identity_due_late", "Items that fell due over a minute ago and still wait.")
        self._failures = metrics.counter(
            "recoup_identity_due_failures", "Attempts to deal with a due item that failed."
        )

    async def run(self) -> None:
        """Look until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep(self.round))
            group.create_task(self._keep(self.ask))

    async def _keep(self, look: Callable[[], Awaitable[int]]) -> None:
        while True:
            try:
                await look()
            except Exception as error:
                log.warning("what is due will be looked for again: %s", _name(error))
            await asyncio.sleep(EVERY_SECONDS)

    async def round(self) -> int:
        """Deal with what is due now; returns how much was. One item's failure holds up no other. Raises Problem."""
        done = 0
        for item in await self._due(DUES):
            done += await self._deal(item)
        async with self._dispatcher.unscoped() as connection:
            self._late.set(await due.count_late(connection, self._clock.now() - LATE_AFTER))
        return done

    async def ask(self) -> int:
        """The same with what has to be asked outside first, a few at a time."""
        at_once = asyncio.Semaphore(_AT_ONCE)

        async def one(item: Any) -> bool:
            async with at_once:
                return await self._deal(item)

        return sum(await asyncio.gather(*(one(item) for item in await self._due(self._asks))))

    async def _due(self, kinds: Collection[str]) -> Sequence[Any]:
        async with self._dispatcher.unscoped() as connection:
            return await due.list_due(connection, list(kinds), self._clock.now(), _MOST)

    async def _deal(self, item: Any) -> bool:
        try:
            ask = self._asks.get(item.kind)
            decide = DUES[item.kind] if ask is None else await ask(item.organization_id, item.subject_id)
            async with self._store.begin(item.organization_id) as work:
                key = (item.organization_id, item.kind, item.subject_id, item.due_at)
                if await due.take_due(work.connection, *key):
                    await decide(work, item.subject_id)
                    return True
        except Exception as error:
            self._failures.add(1)
            log.error("%s of %s failed: %s", item.kind, item.subject_id, _name(error))
        return False


def _name(error: Exception) -> str:
    return error.reason_name if isinstance(error, Problem) else type(error).__name__
