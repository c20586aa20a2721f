"""A log that the signer doesn't go on with takes no events: nothing is acknowledged that can never be proven."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services._mesh.errors import Reason, Unavailable, WrongState, dependency_down
from services._mesh.metrics import Metrics
from services.audit import usecases
from services.audit.checkpointer import Checkpointer
from services.audit.model.alarms import Alarm, AlarmKind
from services.audit.model.events import Produced
from services.audit.model.signing import SignedHead
from services.audit.refusals import Refusals
from services.audit.sequencer import Sequencer
from services.audit.standing import Standing
from tests.support.log import ACME, checkpointer, event, one_shard, recorded, sequencer
from tests.support.mesh import soon
from tests.support.postgres import TestDatabase
from tests.support.sharded_log import ShardedLog, sharded_log
from tests.support.tampering import rewrite
from tests.support.things import MovableClock

pytestmark = pytest.mark.services("audit")


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[ShardedLog]:
    async with sharded_log(tmp_path, 1) as made:
        yield made


@asynccontextmanager
async def process(
    log: ShardedLog, metrics: Metrics | None = None
) -> AsyncIterator[tuple[Sequencer, Checkpointer, Standing]]:
    """The audit process as far as appending and signing go."""
    role = log.database.role("audit_sequencer")
    async with (
        sequencer(log.database, clock=log.clock) as appending,
        checkpointer(log.database, appending, log.folder) as signing,
    ):
        standing = Standing(role, signing._last_signed, metrics)
        standing.doubt()
        appending.standing = signing.standing = standing
        yield appending, signing, standing
    await role.close()


def acme(log: ShardedLog, n: int = 1) -> list[Produced]:
    return [event(2 * log.counters + n)]


async def size(database: TestDatabase) -> int:
    return len(await recorded(database, ACME))


async def test_a_process_on_an_older_database_appends_nothing(log: ShardedLog) -> None:
    backup, counters = await log.backup(), log.counters
    await log.grow(1)
    await log.put_back(backup, counters)
    before, metrics = await size(log.database), Metrics()
    async with process(log, metrics) as (appending, _signing, standing):
        for n in (1, 2):
            with pytest.raises(Unavailable, match="nothing is appended") as refused:
                await usecases.append_events(appending, "identity", acme(log, n))
            assert refused.value.reason == Reason.ERROR_REASON_LOG_INCONSISTENT
        assert not standing.ready
        assert metrics.gauge("recoup_log_appends_refused", "").value == 1
    assert await size(log.database) == before


async def test_a_process_on_a_database_from_before_the_newest_shard_appends_nothing(log: ShardedLog) -> None:
    backup, counters = await log.backup(), log.counters
    await log.turn()
    await log.grow(1)
    await log.put_back(backup, counters)
    async with process(log) as (appending, _, _):
        with pytest.raises(Unavailable, match="shard 1 was signed"):
            await usecases.append_events(appending, "identity", acme(log))


async def test_a_process_on_a_rewritten_log_appends_nothing(log: ShardedLog) -> None:
    await rewrite(log.database, 4)
    async with process(log) as (appending, _, _):
        with pytest.raises(Unavailable, match="isn't the one that was signed"):
            await usecases.append_events(appending, "identity", acme(log))


async def test_what_the_signer_refuses_ends_appends_and_what_it_signs_lets_them_go_on(log: ShardedLog) -> None:
    """Rewritten while the process runs: it took the log over when it was whole, and learns of it from the signer."""
    async with process(log) as (appending, signing, standing):
        places = await usecases.append_events(appending, "identity", acme(log))
        await signing.wait_for(places[-1])
        assert standing.ready
        await rewrite(log.database, 4)
        await usecases.append_events(appending, "identity", acme(log, 2))

        async def refused() -> bool | None:
            return None if standing.ready else True

        await soon(refused)
        with pytest.raises(Unavailable, match="doesn't continue the signed one"):
            await usecases.append_events(appending, "identity", acme(log, 3))
        # The sequencer that takes over again knows no better.
        await appending.take_over()
        with pytest.raises(Unavailable, match="nothing is appended"):
            await usecases.append_events(appending, "identity", acme(log, 3))
        standing.confirm(standing.doubts - 1)  # What was signed before the last doubt says nothing.
        assert not standing.ready
        standing.confirm(standing.doubts)
        assert standing.ready


async def test_while_the_signer_cant_be_asked_a_process_that_took_over_appends_nothing(log: ShardedLog) -> None:
    async with process(log) as (appending, signing, standing):
        right, away = standing._last_signed, True

        async def last_signed(shard: int) -> SignedHead:
            if away:
                raise dependency_down("audit-signer")
            return await right(shard)

        await signing.sign_now()
        standing._last_signed = signing._last_signed = last_signed
        standing.doubt()
        with pytest.raises(Unavailable, match="audit-signer can't be reached"):
            await usecases.append_events(appending, "identity", acme(log))
        away = False
        (place,) = await usecases.append_events(appending, "identity", acme(log))
        await signing.wait_for(place)
        assert standing.ready
        # Once it is known, a signer that is away holds up no event.
        away = True
        await usecases.append_events(appending, "identity", acme(log, 2))


async def test_an_empty_log_is_asked_about_too(database: TestDatabase, tmp_path: Path) -> None:
    made = ShardedLog(database, tmp_path, MovableClock(), 1)
    async with process(made) as (appending, _, standing):
        appending.grown.set()

        async def ready() -> bool | None:
            return standing.ready or None

        assert await soon(ready)


async def test_a_head_that_another_process_had_signed_in_between_is_no_refusal(log: ShardedLog) -> None:
    role = log.database.role("audit_sequencer")
    async with process(log) as (appending, signing, standing):
        await signing.sign_now()
        right, told, signed = signing._last_signed, list[int](), list[int]()
        other = Checkpointer(role, appending, log.clock, signing._sign, right, 1.0, one_shard)

        async def refused(shard: int, size: int, signed: SignedHead) -> None:
            told.append(size)

        async def last_signed(shard: int) -> SignedHead:
            found = await right(shard)
            if not signed and appending.head[0] > found.size:
                signed.append(found.size)
                await other.sign_now()
            return found

        signing.refused, signing._last_signed = refused, last_signed
        (place,) = await usecases.append_events(appending, "identity", acme(log))
        await signing.wait_for(place)
        assert (told, signed, signing.refusals, standing.ready) == ([], [6], 1, True)
    await role.close()


async def test_a_signer_that_knows_less_than_it_signed_is_an_alarm_and_signs_nothing(
    log: ShardedLog, tmp_path: Path
) -> None:
    older = (log.folder / "signed.json").read_text()
    await log.grow(1)
    (log.folder / "signed.json").write_text(older)
    signed, noted, role = log.memory.of(0).head, list[Alarm](), log.database.role("audit_sequencer", 1)
    async with process(log) as (appending, signing, _):
        signing.behind = Refusals(role, noted.append).behind
        for _ in range(2):
            with pytest.raises(WrongState, match="signed size 6 of shard 0 last, but it signed 9"):
                await signing.sign_now()
        with pytest.raises(Unavailable, match="nothing is appended"):
            await usecases.append_events(appending, "identity", acme(log))
    assert log.memory.of(0).head == signed
    assert {(each.kind, each.metadata["size"], each.metadata["signed_size"]) for each in noted} == {
        (AlarmKind.SIGNER_REFUSED, "9", "6")
    }
    await role.close()


async def test_a_refusal_isnt_undone_by_a_look_that_began_before_it(log: ShardedLog) -> None:
    role = log.database.role("audit_sequencer", 1)

    async def last_signed(shard: int) -> SignedHead:
        standing.refuse("the signer refused meanwhile")
        return log.memory.of(shard).head

    standing = Standing(role, last_signed)
    with pytest.raises(Unavailable, match="refused meanwhile"):
        await standing.require()
    assert not standing.ready
    await role.close()
