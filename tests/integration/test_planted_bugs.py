"""Bugs planted on purpose, on a real PostgreSQL: the nemesis's checker catches each, and finds nothing without them.

Each run writes transactions with events, relays them, and has a flush fail between its writes and its commit.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from recoup_verify.log import parse_key
from services._mesh import failpoints
from services._mesh.clock import Clock
from services._mesh.relay import PendingEvent, Relay
from services._mesh.uow import Store
from services.audit import usecases
from services.audit.model.events import Produced
from services.audit.model.notes import Signer, TreeHead
from services.audit.model.shards import place_of
from services.audit.sequencer import Sequencer
from tests.support.log import ACTORS, LOG, sealer
from tests.support.nemesis.checker import check
from tests.support.nemesis.collecting import collect
from tests.support.nemesis.history import Committed, History
from tests.support.postgres import TestDatabase

pytestmark = pytest.mark.services("pricing", "audit")
ORGANIZATIONS = [UUID(int=number) for number in range(1, 5)]
EVENTS = 5


class AcknowledgesBeforeCommit(Sequencer):
    """The first bug: the index is told as soon as it is known, and not only once it is durable."""

    async def _flush(self, group: Sequence[Any]) -> None:
        place = place_of(self._shard, self._frontier.size)
        for waiting in group:
            waiting.answer.set_result(list(range(place, place + len(waiting.submissions))))
            place += len(waiting.submissions)
        await super()._flush(group)


class Unfenced(Sequencer):
    """The second bug: nobody asks whether another has taken over."""

    def _require_own(self, epoch: int, place: int) -> None:
        """It goes on."""


# The keys that are a second fence behind the epoch: the bug shows only where they're gone, too.
_SECOND_FENCE = """
SET event_triggers = off;
ALTER TABLE audit.dedup DROP CONSTRAINT dedup_idx_key;
ALTER TABLE audit.nodes DROP CONSTRAINT nodes_pkey;
"""


class Run:
    """A producer, a relay and a log, and what is recorded of them."""

    def __init__(self, database: TestDatabase) -> None:
        self.database, self.history = database, History()
        self.signer = Signer(LOG, Ed25519PrivateKey.generate())
        self.log: Sequencer | None = None
        self.deletes_early = False

    @contextlib.asynccontextmanager
    async def sequencer(self, kind: type[Sequencer]) -> AsyncIterator[Sequencer]:
        """A sequencer of this kind in force, which the relay appends to."""
        role = self.database.role("audit_sequencer")
        async with sealer(self.database) as sealing:
            made = kind(role, Clock(), LOG, ACTORS, sealing)
            await made.take_over()
            task = asyncio.create_task(made.run())
            self.log = made
            try:
                yield made
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                await role.close()

    async def write(self, organizations: Sequence[UUID], times: int = EVENTS) -> None:
        """Transactions of the service, an event each."""
        role = self.database.role("pricing_api")
        service = Store(role, "pricing", Clock())
        for organization in organizations:
            for number in range(times):
                async with service.begin(organization) as work:
                    event_id = work.emit("pricing.nemesis.write", f"things/{number}")
                self.history.committed.append(Committed("pricing", organization, event_id))
        await role.close()

    async def relay(self) -> None:
        """Relay until nothing moves, whatever fails on the way."""
        role = self.database.role("pricing_relay")
        relay = Relay(role, "pricing", self._append)
        moved, failed = 1, 0
        while moved and failed < 3:
            try:
                moved = await relay.round()
            except Exception:
                failed += 1
        await role.close()

    async def _append(self, events: Sequence[PendingEvent]) -> list[int]:
        if self.deletes_early:
            await self._superuser(
                "SET session_replication_role = replica",
                f"DELETE FROM pricing.outbox WHERE event_id IN ({', '.join(repr(str(e.event_id)) for e in events)})",
            )
        assert self.log is not None
        produced = [Produced(e.event_id, e.organization_id, e.counter, e.payload) for e in events]
        return await usecases.append_events(self.log, "pricing", produced)

    def see_checkpoint(self) -> None:
        """A checkpoint of the head as the sequencer has it, signed by a signer that believes everything."""
        assert self.log is not None
        size, root = self.log.head
        if size:
            self.history.checkpoints.append(self.signer.sign(TreeHead(LOG, size, root).text()))

    async def wrong(self) -> list[str]:
        """What the checker says of it all."""
        async with self.sequencer(Sequencer):
            self.see_checkpoint()
        connection = await self.database.superuser()
        await collect(connection, ["pricing"], self.history)
        await connection.close()
        return check(self.history, parse_key(self.signer.verifier_key.text()))

    async def _superuser(self, *statements: str) -> None:
        connection = await self.database.superuser()
        for statement in statements:
            await connection.execute(statement)
        await connection.close()

    async def lose_second_fence(self) -> None:
        """Take away the keys that no two entries can share."""
        await self._superuser(_SECOND_FENCE)


@pytest.fixture
def run(database: TestDatabase) -> Run:
    return Run(database)


@pytest.fixture
def second_flush_fails(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The process "dies" in its second flush, after the writes and before the commit. Returns the places reached."""
    reached: list[str] = []

    def reach(name: str) -> None:
        reached.append(name)
        if reached.count("flush.written") == 2 and name == "flush.written":
            raise ConnectionError("killed here")

    monkeypatch.setattr(failpoints, "_reached", reach)
    return reached


async def one_run(run: Run, kind: type[Sequencer]) -> None:
    async with run.sequencer(kind):
        for part in (ORGANIZATIONS[:2], ORGANIZATIONS[2:]):
            await run.write(part)
            await run.relay()
            run.see_checkpoint()


async def test_nothing_is_wrong_without_a_bug(run: Run, second_flush_fails: list[str]) -> None:
    await one_run(run, Sequencer)
    assert await run.wrong() == []
    assert len(run.history.log) == len(ORGANIZATIONS) * EVENTS
    assert second_flush_fails.count("flush.written") > second_flush_fails.count("flush.committed") > 0


@pytest.mark.usefixtures("second_flush_fails")
async def test_acknowledging_before_the_commit_is_caught(run: Run) -> None:
    await one_run(run, AcknowledgesBeforeCommit)
    found = await run.wrong()
    assert any("was committed and isn't in the log" in each for each in found)
    assert any("was relayed to" in each and "isn't there" in each for each in found)


@pytest.mark.usefixtures("second_flush_fails")
async def test_deleting_an_outbox_row_before_its_index_came_back_is_caught(run: Run) -> None:
    run.deletes_early = True
    await one_run(run, Sequencer)
    found = await run.wrong()
    assert any("was committed and isn't in the log" in each for each in found)
    assert any("counters [1, 2, 3, 4, 5] of 5 are missing" in each for each in found)


async def two_at_once(run: Run, kind: type[Sequencer]) -> None:
    """The first goes on after the second has taken over."""
    async with run.sequencer(kind) as first:
        await run.write(ORGANIZATIONS[:1])
        await run.relay()
        async with run.sequencer(kind) as second:
            await run.write(ORGANIZATIONS[1:2])
            await run.relay()
            run.see_checkpoint()
            run.log = first
            await run.write(ORGANIZATIONS[2:])
            await run.relay()
            run.see_checkpoint()
            assert second.ready


async def test_two_sequencers_are_harmless(run: Run) -> None:
    await two_at_once(run, Sequencer)
    assert await run.wrong() == []


async def test_two_sequencers_without_a_fence_are_harmless_by_the_second_one(run: Run) -> None:
    await two_at_once(run, Unfenced)
    assert await run.wrong() == []


async def test_two_sequencers_without_any_fence_are_caught(run: Run) -> None:
    await run.lose_second_fence()
    await two_at_once(run, Unfenced)
    found = await run.wrong()
    assert any("an index twice" in each for each in found)
    assert any("isn't consistent with the last" in each for each in found)
