"""Carries committed events from a service's outbox to the log, and keeps each row until the log has named its index.

Events of one organization go in counter order. Losing an answer costs a repeated, idempotent append, never an event.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text

from services._mesh.database import Database, scope

log = logging.getLogger(__name__)

BATCH = 500
ORGANIZATIONS_A_ROUND = 50
IDLE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class PendingEvent:
    """An outbox row on its way: what the log needs to know."""

    event_id: UUID
    organization_id: UUID
    counter: int
    payload: bytes


# Appends a batch and returns the log index of each event, in order; raises when it isn't known to be durable.
Append = Callable[[Sequence[PendingEvent]], Awaitable[Sequence[int]]]

_WAITING = """
SELECT organization_id FROM {schema}.outbox_counters WHERE value > relayed ORDER BY organization_id LIMIT :limit
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
_CLAIM_TRY = "SELECT pg_try_advisory_xact_lock(hashtextextended('relay {schema} ' || :organization_id, 0))"


class Relay:
    """The relay task of one service, under its relay role."""

    def __init__(self, database: Database, schema: str, append: Append) -> None:
        self._database, self._schema, self._append = database, schema, append
        self._wake = asyncio.Event()
        self.behind = 0
        self.observe: Callable[[float], None] = lambda _: None

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
            except asyncio.CancelledError:
                raise
            except Exception as error:
                moved, pause = 0, min(pause * 2, LONGEST_PAUSE_SECONDS)
                log.warning("the relay of %s failed and will try again: %s", self._schema, type(error).__name__)
            if moved == 0:
                await self._rest(pause)

    async def round(self) -> int:
        """Relay one batch for each organization that has any; returns how many events went."""
        async with self._database.unscoped() as connection:
            found = await connection.execute(
                text(_WAITING.format(schema=self._schema)), {"limit": ORGANIZATIONS_A_ROUND}
            )
            waiting = [row.organization_id for row in found]
        self.behind = len(waiting)
        self.observe(self.behind)
        return sum([await self._relay(organization_id) for organization_id in waiting])

    async def _relay(self, organization_id: UUID) -> int:
        """One organization's batch. Its counter row is claimed first, so that two relays never race for order."""
        async with self._database.unscoped() as connection:
            await scope(connection, organization_id)
            claimed = await connection.execute(
                text(_CLAIM_TRY.format(schema=self._schema)), {"organization_id": str(organization_id)}
            )
            if not claimed.scalar():
                return 0
            rows = await connection.execute(
                text(_PENDING.format(schema=self._schema)), {"organization_id": organization_id, "limit": BATCH}
            )
            events = [PendingEvent(r.event_id, organization_id, r.counter, bytes(r.payload)) for r in rows]
            if not events:
                return 0
            indexes = await self._append(events)
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
            return len(events)

    async def _rest(self, seconds: float) -> None:
        self._wake.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass


def digest_of(event_ids: Sequence[UUID]) -> bytes:
    """SHA-256 over the sorted event ids, as 16-byte UUIDs one after the other: what a reconciler compares."""
    return hashlib.sha256(b"".join(sorted(event_id.bytes for event_id in event_ids))).digest()
