"""Publishes the organization heads: a leaf of the log with the root over the ends of all organizations' chains.

On a fixed cadence, and only when a chain has moved, so that the leaf tells nobody how much there was to say.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Sequence
from uuid import UUID

from services._mesh.clock import Clock
from services._mesh.database import Database
from services._mesh.errors import Problem
from services._mesh.uow import PLATFORM, Store
from services.audit import store as sql
from services.audit.checkpointer import Checkpointer
from services.audit.model.heads import PUBLISH, Chain, HeadTree, head_tree

log = logging.getLogger(__name__)

APPEND_SECONDS = 30.0
_LOOK_SECONDS = 0.1


class HeadPublisher:
    """The publishing task of the audit process. `database` is the sequencer's role, `store` writes audit's outbox."""

    def __init__(
        self, database: Database, store: Store, checkpointer: Checkpointer, clock: Clock, seconds: float
    ) -> None:
        self._database, self._store, self._checkpointer = database, store, checkpointer
        self._clock, self._seconds = clock, seconds
        self._published = b""

    async def run(self) -> None:
        """Publish until cancelled, every `seconds` of the wall clock."""
        while True:
            try:
                await self.publish()
            except Exception as error:
                name = error.reason_name if isinstance(error, Problem) else type(error).__name__
                log.warning("the organization heads will be published at the next turn: %s", name)
            await asyncio.sleep(self._seconds)

    async def publish(self) -> UUID | None:
        """Publish the heads, and keep each organization's entry once the leaf is under a checkpoint.

        Returns the event's id; None when no chain moved. Raises TimeoutError, Problem.
        """
        async with self._database.unscoped() as connection:
            chains = await sql.list_chains(connection)
        moved = _digest(chains)
        if not chains or moved == self._published:
            return None
        tree = await asyncio.to_thread(head_tree, chains)
        async with self._store.begin(PLATFORM) as work:
            metadata = {"root": tree.root.hex(), "size": str(tree.size)}
            event_id = work.emit(PUBLISH, "heads", metadata)
        async with asyncio.timeout(APPEND_SECONDS):
            await self._checkpointer.wait_for(await self._appended(event_id))
        await self._keep(event_id, tree)
        self._published = moved
        return event_id

    async def _appended(self, event_id: UUID) -> int:
        """The place of the event, once our relay has appended it."""
        while True:
            async with self._database.unscoped() as connection:
                found = await sql.find_known(connection, [event_id])
            if found:
                return found[event_id][1]
            await asyncio.sleep(_LOOK_SECONDS)

    async def _keep(self, event_id: UUID, tree: HeadTree) -> None:
        async with self._database.unscoped() as connection:
            await sql.replace_head_entries(connection, event_id, tree.entries, self._clock.wall_now())


def _digest(chains: Sequence[Chain]) -> bytes:
    """Tells whether a chain moved. The installation's own doesn't count: each publication is an event of it."""
    digest = hashlib.sha256()
    for chain in chains:
        if chain.organization_id != PLATFORM:
            digest.update(chain.organization_id.bytes + chain.leaf_hash)
    return digest.digest()
