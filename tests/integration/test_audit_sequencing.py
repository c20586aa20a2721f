"""One sequencer in force: fences, failover, and what a process does that can't take over."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from services._mesh.clock import Clock
from services._mesh.database import Database
from services._mesh.errors import Conflict, Unavailable
from services.audit import store, usecases
from services.audit.model import merkle
from services.audit.model.events import Produced
from services.audit.sequencer import Sequencer
from tests.support.log import ACME, ACTORS, GLOBEX, LOG, event, sealer, sequencer
from tests.support.postgres import TestDatabase

pytestmark = pytest.mark.services("audit")


async def appended(log: Sequencer, batches: list[list[Produced]]) -> None:
    """Append each batch as a relay does: again and again, until the log has taken it."""
    for batch in batches:
        while True:
            try:
                await usecases.append_events(log, "identity", batch)
                break
            except (Conflict, Unavailable):
                await asyncio.sleep(0)


async def test_two_sequencers_at_once_lose_nothing_and_append_nothing_twice(database: TestDatabase) -> None:
    async with sequencer(database) as first, sequencer(database) as second:
        ours = [[event(n)] for n in range(1, 31)]
        theirs = [[event(n, GLOBEX)] for n in range(1, 31)]
        async with asyncio.timeout(60):
            # Both try to append everything: each batch reaches the log through one of them.
            await asyncio.gather(
                appended(first, ours), appended(second, theirs), appended(second, ours), appended(first, theirs)
            )
    superuser = await database.superuser()
    rows = await superuser.fetch("SELECT organization_id, organization_seq, idx, leaf FROM audit.entries ORDER BY idx")
    size = await superuser.fetchval("SELECT size FROM audit.head")
    await superuser.close()
    assert [row["idx"] for row in rows] == list(range(60)) == list(range(size))
    for organization in (ACME, GLOBEX):
        assert [row["organization_seq"] for row in rows if row["organization_id"] == organization] == list(range(1, 31))
    frontier = merkle.Frontier()
    for row in rows:
        frontier.append(merkle.leaf_hash(bytes(row["leaf"])))
    # The tree that is stored is the one over these leaves.
    role = database.role("audit_sequencer")
    async with role.unscoped() as connection:
        assert (await store.take_over(connection)).frontier.root() == frontier.root()
    await role.close()


async def test_a_sequencer_paused_under_the_lock_is_followed_by_another(database: TestDatabase) -> None:
    """It holds the head as a process does that was stopped in the middle of a flush: without a word."""
    paused = database.role("audit_sequencer")
    async with sequencer(database) as first:
        await usecases.append_events(first, "identity", [event(1)])
    held = asyncio.Event()

    async def pause() -> None:
        async with paused.unscoped() as connection:
            await store.lock_head(connection)
            held.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(pause())
    await held.wait()
    async with asyncio.timeout(12), sequencer(database) as second:
        assert await usecases.append_events(second, "identity", [event(2)]) == [1]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await paused.close()


async def test_what_a_fenced_sequencer_had_begun_is_never_written(database: TestDatabase) -> None:
    async with sequencer(database) as first:
        await usecases.append_events(first, "identity", [event(1)])
        async with sequencer(database) as second:
            await usecases.append_events(second, "identity", [event(2)])
            late = event(3)
            with pytest.raises(Conflict, match="taken over"):
                await usecases.append_events(first, "identity", [late])
            superuser = await database.superuser()
            assert await superuser.fetchval("SELECT count(*) FROM audit.dedup WHERE event_id = $1", late.event_id) == 0
            await superuser.close()
            # It takes over again when it is asked again: either of them may be the one in force, never both.
            assert await usecases.append_events(first, "identity", [late]) == [2]
            with pytest.raises(Conflict):
                await usecases.append_events(second, "identity", [event(4)])


@asynccontextmanager
async def starting(database: TestDatabase, role: Database) -> AsyncIterator[tuple[Sequencer, asyncio.Task[None]]]:
    """A sequencer's task, from its very beginning."""
    async with sealer(database) as sealing:
        made = Sequencer(role, Clock(), LOG, ACTORS, sealing)
        task = asyncio.create_task(made.run())
        try:
            yield made, task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await role.close()


async def test_a_missing_right_ends_the_sequencer_instead_of_being_tried_for_ever(database: TestDatabase) -> None:
    superuser = await database.superuser()
    await superuser.execute("REVOKE UPDATE ON audit.head FROM audit_sequencer")
    await superuser.close()
    async with starting(database, database.role("audit_sequencer")) as (_, task), asyncio.timeout(20):
        with pytest.raises(Exception, match="permission denied"):
            await task


async def test_a_database_that_is_away_is_waited_for_and_said_once(
    database: TestDatabase, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = database.settings("audit_sequencer")
    somewhere = tmp_path / "s"
    absent = Database(replace(settings, host=str(somewhere)), settings.user, settings.password_file)
    with caplog.at_level(logging.DEBUG, "services.audit.sequencer"):
        async with starting(database, absent) as (log, task), asyncio.timeout(30):
            while len(caplog.records) < 1:
                await asyncio.sleep(0.01)
            assert not log.ready
            os.symlink(settings.host, somewhere)
            while not log.ready:
                await asyncio.sleep(0.01)
            assert not task.done()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "taking over the log will be tried again: " in caplog.text
