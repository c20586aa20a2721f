"""Executes approved erasures: destroys the keys, and records that it is done. Resumed wherever a crash ended it.

    1  the decision, with its event, is committed                         (erasing.py, the log's database)
    2  under the organization's lock: no legal hold covers the subject    (the log's database)
    3  the subject's keys are destroyed, and the generation changes       (the database of keys)
    4  the head says so: flushes look for their keys again                (the log's database)
    5  done, with the event and the list of keys                          (the log's database, same transaction as 2)

Between 3 and 5 the erasure is APPROVED, though its keys are gone: the keys name the erasure that destroyed them, so
that it is finished when it is found again, also under a hold that was placed too late. What is sealed between 3 and 4
is under a destroyed key, and erased with the rest.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from uuid import UUID, uuid4

from services._mesh.clock import Clock
from services._mesh.database import Database
from services._mesh.errors import Problem
from services._mesh.failpoints import reach
from services._mesh.metrics import Metrics
from services._mesh.uow import Store
from services.audit.model.erasures import Erasure, ErasureState
from services.audit.serving import Serving, away
from services.audit.store import erasures as store
from services.audit.store import keys as key_store

log = logging.getLogger(__name__)

IDLE_SECONDS = 2.0
_PAGE = 500
_NIL = UUID(int=0)


class Eraser:
    """The erasing task of the audit process.

    `dispatcher` sees which organizations have erasures, `head` moves the log's head, `keys` is the eraser's role in the
    database of keys.
    """

    def __init__(
        self,
        log_store: Store,
        dispatcher: Database,
        head: Database,
        keys: Database,
        serving: Serving,
        clock: Clock,
        metrics: Metrics | None = None,
    ) -> None:
        self._store, self._dispatcher, self._head = log_store, dispatcher, head
        self._keys, self._serving, self._clock = keys, serving, clock
        self._woken = asyncio.Event()
        metrics, text = (
            metrics or Metrics(),
            "Age of the oldest approval of an erasure that no hold blocks and isn't done.",
        )
        self._overdue = metrics.gauge("recoup_audit_erasure_overdue_seconds", text)
        self._failures = metrics.counter("recoup_audit_erasure_failures", "Attempts to execute an erasure that failed.")
        self._oldest: datetime | None = None

    def wake(self) -> None:
        """Something was approved, or a hold was released."""
        self._woken.set()

    async def run(self) -> None:
        """Execute until cancelled."""
        while True:
            try:
                if self._serving.ready:
                    await self.round()
            except Exception as error:
                name = error.reason_name if isinstance(error, Problem) else type(error).__name__
                log.warning("erasing will be tried again: %s", name)
            self._measure()
            try:
                async with asyncio.timeout(IDLE_SECONDS):
                    await self._woken.wait()
            except TimeoutError:
                pass
            self._woken.clear()

    async def round(self) -> int:
        """Execute what is approved and not held; returns how many were done.

        Raises the first failure, after all the others had their turn.
        """
        done, after, failures, oldest = 0, _NIL, list[Exception](), list[datetime]()
        while organizations := await self._due(after):
            for organization_id in organizations:
                try:
                    async for erasure in self._waiting(organization_id):
                        try:
                            done += await self._execute(organization_id, erasure.erasure_id)
                        except Exception as error:
                            oldest += [erasure.decided_at] if erasure.decided_at else []
                            failures.append(error)
                            log.error("erasure %s failed: %s", erasure.erasure_id, type(error).__name__)
                except Exception as error:
                    failures.append(error)
            after = UUID(int=organizations[-1].int + 1)
        self._failures.add(len(failures))
        self._oldest = min(oldest, default=None)
        if failures:
            raise failures[0]
        return done

    async def _waiting(self, organization_id: UUID) -> AsyncIterator[Erasure]:
        """What is to be executed, page by page: held ones at the front hold up nobody. Begun ones are held no more."""
        after = _NIL
        while True:
            async with self._store.read(organization_id) as connection:
                found = await store.list_approved(connection, after, _PAGE)
            if not found:
                return
            held = [erasure.erasure_id for erasure in found if erasure.held]
            begun = await self._begun_of(organization_id, held) if held else set()
            for erasure in found:
                if not erasure.held or erasure.erasure_id in begun:
                    yield erasure
            after = found[-1].erasure_id

    async def _begun_of(self, organization_id: UUID, erasures: Sequence[UUID]) -> set[UUID]:
        async with self._keys.scoped(organization_id, read_only=True) as connection:
            return await key_store.find_begun(connection, erasures)

    def _measure(self) -> None:
        age = 0.0 if self._oldest is None else (self._clock.now() - self._oldest).total_seconds()
        self._overdue.set(max(age, 0.0))

    async def _due(self, after: UUID) -> list[UUID]:
        async with self._dispatcher.unscoped() as connection:
            return await store.list_due(connection, ErasureState.APPROVED, after, _PAGE)

    async def _execute(self, organization_id: UUID, erasure_id: UUID) -> int:
        async with self._store.begin(organization_id) as work:
            await store.lock_erasures(work.connection, organization_id)
            erasure = await store.get_erasure(work.connection, erasure_id)
            begun = await self._begun(organization_id, erasure_id)
            if erasure.state is not ErasureState.APPROVED or (erasure.held and not begun):
                return 0
            reach("erasure.locked")
            generation = await self._destroy(organization_id, erasure)
            reach("erasure.destroyed")
            async with self._head.unscoped() as connection:
                await store.mark_generation(connection, generation)
            reach("erasure.fenced")
            # A flush that was under way may have made none, but a sealer elsewhere may have made one: all that name us.
            key_ids = await self._begun(organization_id, erasure_id)
            events = await store.mark_done(work.connection, organization_id, erasure_id, key_ids, work.now)
            about = {
                "subject_hash": erasure.subject_hash.hex(),
                "key_ids": ",".join(str(each) for each in key_ids),
                "events": str(events),
            }
            work.emit("audit.payload.erase", erasure.target, about)
        reach("erasure.recorded")
        log.info("%d keys of organization %s were destroyed: erasure %s", len(key_ids), organization_id, erasure_id)
        return 1

    async def _begun(self, organization_id: UUID, erasure_id: UUID) -> list[UUID]:
        async with self._keys.scoped(organization_id, read_only=True) as connection:
            return await key_store.list_destroyed(connection, erasure_id)

    async def _destroy(self, organization_id: UUID, erasure: Erasure) -> UUID:
        """Destroy the subject's keys; returns the generation after it, in which this process goes on reading."""
        known, generation = self._serving.generation, uuid4()
        if known is None:
            raise away()
        async with self._keys.scoped(organization_id) as connection:
            at = self._clock.wall_now()
            await key_store.destroy_subject(connection, erasure.subject_hash, erasure.erasure_id, at)
            if not await key_store.change_generation(connection, known, generation):
                self._serving.doubt()
                raise away()
        self._serving.trust(generation)
        return generation
