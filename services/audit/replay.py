"""Holds the database of keys against the erasures in the log, and destroys again what a restored backup brought back.

Runs before any key is used: at the start, and whenever the database of keys isn't the one that was looked at last.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

from services._mesh.clock import Clock
from services._mesh.database import Database
from services._mesh.failpoints import reach
from services._mesh.uow import Store
from services.audit.model.erasures import ErasureState
from services.audit.store import erasures as store
from services.audit.store import keys as key_store

log = logging.getLogger(__name__)

_PAGE = 500


class Replay:
    """Looks at all keys that were erased. Roles as the eraser's (eraser.py)."""

    def __init__(self, log_store: Store, dispatcher: Database, head: Database, keys: Database, clock: Clock) -> None:
        self._store, self._dispatcher, self._head = log_store, dispatcher, head
        self._keys, self._clock = keys, clock

    async def look(self) -> UUID:
        """Destroy what came back; returns the generation in which no erased key is there."""
        async with self._keys.unscoped() as connection:
            generation = await key_store.read_generation(connection)
        async for organization_id in self._organizations():
            generation = await self._destroy_again(organization_id) or generation
        async with self._head.unscoped() as connection:
            await store.mark_generation(connection, generation)
        return generation

    async def _organizations(self) -> AsyncIterator[UUID]:
        after = UUID(int=0)
        while True:
            async with self._dispatcher.unscoped() as connection:
                found = await store.list_due(connection, ErasureState.DONE, after, _PAGE)
            for organization_id in found:
                yield organization_id
            if not found:
                return
            after = UUID(int=found[-1].int + 1)

    async def _destroy_again(self, organization_id: UUID) -> UUID | None:
        """The new generation, where any key came back. Its event is committed before the destruction is."""
        async with self._store.read(organization_id) as connection:
            erased = await store.list_erased_keys(connection)
        generation = uuid4()
        async with self._keys.scoped(organization_id) as connection:
            returned = await key_store.destroy_returned(connection, erased, self._clock.wall_now())
            if not returned:
                return None
            await key_store.change_generation(connection, None, generation)
            await self._record(organization_id, {key_id: erased[key_id] for key_id in returned})
            reach("replay.recorded")
        log.error(
            "security: %d erased keys of organization %s were back, and are destroyed again",
            len(returned),
            organization_id,
        )
        return generation

    async def _record(self, organization_id: UUID, returned: dict[UUID, UUID]) -> None:
        by_erasure: defaultdict[UUID, list[UUID]] = defaultdict(list)
        for key_id, erasure_id in returned.items():
            by_erasure[erasure_id].append(key_id)
        async with self._store.begin(organization_id) as work:
            for erasure_id, key_ids in by_erasure.items():
                about = {"key_ids": ",".join(str(each) for each in key_ids), "replayed": "true"}
                work.emit("audit.payload.erase", f"erasures/{erasure_id}", about)
