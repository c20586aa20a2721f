"""The last shard that has partitions: the log stays in it, says so, loses nothing, and goes on once there are more."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from services._mesh.clock import Clock
from services._mesh.metrics import Metrics
from services.audit import usecases
from services.audit.control_watch import ControlWatch
from services.audit.model.alarms import Alarm
from services.audit.model.progress import Scope
from services.audit.model.shards import place_of
from services.audit.recover import CannotRecover
from tests.support.catalog import faults
from tests.support.log import checkpointer, event, sequencer
from tests.support.postgres import ROOT, TestDatabase
from tests.support.sharded_log import ROOT as OFFLINE
from tests.support.sharded_log import ShardedLog, sharded_log

SCRIPT = (ROOT / "deploy" / "add_shards.sql").read_text()
LAST = 7
SHAPES = """
SELECT string_agg(x.what, E'\\n' ORDER BY x.what) FROM pg_class c CROSS JOIN LATERAL (
  SELECT regexp_replace(pg_get_indexdef(indexrelid), '^.* USING', '') FROM pg_index WHERE indrelid = c.oid
  UNION ALL SELECT pg_get_triggerdef(oid) || tgenabled::text FROM pg_trigger WHERE tgrelid = c.oid
  UNION ALL SELECT polname || polcmd::text || pg_get_expr(polqual, polrelid) FROM pg_policy WHERE polrelid = c.oid
  UNION ALL SELECT concat(c.relrowsecurity, c.relforcerowsecurity, c.relowner::regrole, c.relacl)
) AS x(what) WHERE c.relispartition AND c.relname ~ $1 AND c.relkind = 'r' GROUP BY c.oid
"""


@pytest.fixture
async def full(tmp_path: Path) -> AsyncIterator[ShardedLog]:
    """A log that has gone through all years that there are partitions for."""
    async with sharded_log(tmp_path, 1) as log:
        for _ in range(LAST):
            await log.turn()
            await log.grow(1)
        yield log


async def more(database: TestDatabase, number: str = "8") -> None:
    superuser = await database.superuser()
    try:
        async with superuser.transaction():
            await superuser.execute(SCRIPT.replace(":'more'", f"'{number}'"))
    finally:
        await superuser.close()


async def last_place(database: TestDatabase) -> int:
    superuser = await database.superuser()
    place = await superuser.fetchval("SELECT max(idx) FROM audit.entries")
    await superuser.close()
    assert isinstance(place, int)
    return place


async def left(database: TestDatabase) -> str:
    """What the watch on controls says of shards, having found nothing else to say."""
    alarms: list[Alarm] = []
    metrics, role = Metrics(), database.role("audit_checker", 1)
    assert await ControlWatch(role, Clock(), alarms.append, metrics).look() == []
    await role.close()
    return next(line for line in metrics.render().splitlines() if line.startswith("recoup_log_shards_left"))


async def test_without_a_partition_the_log_stays_in_its_shard_and_goes_on_when_there_is_one(
    full: ShardedLog, caplog: pytest.LogCaptureFixture
) -> None:
    assert full.memory.newest == LAST
    before = await last_place(full.database)
    with caplog.at_level(logging.ERROR):
        await full.turn()
        await full.grow()
    assert await last_place(full.database) == before + 6  # Durable, signed, and in the old shard.
    assert full.memory.newest == LAST
    said = [each.message for each in caplog.records if "add_shards.sql" in each.message]
    assert said == ["shard 7 stays open: there is no partition for the next one. Run deploy/add_shards.sql"]
    # A recovery is refused before anything is changed.
    backup, counters = await full.backup(), full.counters
    await full.grow(1)
    await full.put_back(backup, counters)
    with pytest.raises(CannotRecover, match=r"no partition for another shard: run deploy/add_shards\.sql"):
        await full.recover()

    await more(full.database)
    assert await full.recover() == LAST + 1
    await full.grow(1)
    assert await last_place(full.database) == place_of(LAST + 1, 3)
    await full.turn()
    await full.grow(1)
    assert await last_place(full.database) == place_of(LAST + 2, 3)
    async with full.checker() as checker:
        assert (await checker.check(Scope.FULL, keep=False)).faults == ()


async def test_the_running_sequencer_turns_as_soon_as_there_is_a_partition(full: ShardedLog) -> None:
    await full.turn()
    async with (
        sequencer(full.database, clock=full.clock) as log,
        checkpointer(full.database, log, full.folder, OFFLINE.verifier_key),
    ):
        counter = 2 * full.counters
        (place,) = await usecases.append_events(log, "identity", [event(counter + 1)])
        assert place >> 40 == LAST
        await more(full.database, "1")
        assert await usecases.append_events(log, "identity", [event(counter + 2)]) == [place_of(LAST + 1, 1)]


@pytest.mark.services("identity", "scanner", "pricing", "actions", "audit")
async def test_new_partitions_are_sealed_like_the_old_ones(database: TestDatabase) -> None:
    assert await left(database) == "recoup_log_shards_left 7"
    await more(database, "2")
    assert await left(database) == "recoup_log_shards_left 9"
    await more(database, "8")
    assert await left(database) == "recoup_log_shards_left 17"
    superuser = await database.superuser()
    assert await faults(superuser) == []
    for table in ("entries_s9", "payloads_s17"):
        with pytest.raises(asyncpg.PostgresError, match="append-only"):
            await superuser.execute(f"DROP TABLE audit.{table}")
        with pytest.raises(asyncpg.PostgresError, match="append-only"):
            await superuser.execute(f"DELETE FROM audit.{table}")
    # Indexes, triggers, policies and rights are those of the partitions that the migrations made.
    for table in ("entries", "payloads"):
        rows = await superuser.fetch(SHAPES, f"^{table}_s[0-9]+$")
        shapes = {re.sub(rf"{table}_s\d+", "", row[0]) for row in rows}
        assert (len(rows), len(shapes)) == (18, 1)
    await superuser.close()


@pytest.mark.services("audit")
async def test_only_a_superuser_makes_partitions(database: TestDatabase) -> None:
    statement = f"CREATE TABLE audit.entries_s8 PARTITION OF audit.entries FOR VALUES FROM ({8 << 40}) TO ({9 << 40})"
    with pytest.raises(asyncpg.PostgresError, match="append-only"):
        await database.run_as_owner("audit", [statement])
    for login in ("audit_sequencer", "audit_api", "audit_migrate"):
        connection = await database.login(login)
        try:
            for each in (statement, SCRIPT.replace(":'more'", "'1'")):
                with pytest.raises(asyncpg.PostgresError, match=r"permission denied|must be owner"):
                    await connection.execute(each)
        finally:
            await connection.close()
    with pytest.raises(asyncpg.PostgresError, match="isn't a number from 1 to 100"):
        await more(database, "1000")
