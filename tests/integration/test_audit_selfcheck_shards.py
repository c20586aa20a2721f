"""The self-check over several shards, a recovery's among them: what is changed is named by its shard and its index."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services._mesh.clock import Clock
from services._mesh.metrics import Metrics
from services.audit.check_task import CheckTask
from services.audit.checking import Checker
from services.audit.model.alarms import Alarm
from services.audit.model.progress import Scope
from services.audit.model.shards import place_of, split
from tests.support.sharded_log import ShardedLog, sharded_log
from tests.support.tampering import as_superuser, rewrite

# The leaves of each shard: six of two batches, and before them the opening in all but the first.
SIZES = (6, 7, 7)


@pytest.fixture(params=[2, 3], ids=["yearly", "recovered"])
async def log(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ShardedLog]:
    async with sharded_log(tmp_path, request.param) as made:
        yield made


@pytest.fixture
async def checker(log: ShardedLog) -> AsyncIterator[Checker]:
    async with log.checker() as made:
        yield made


async def faults(checker: Checker) -> list[tuple[int, int, str]]:
    """What is wrong, as (shard, index, field)."""
    result = await checker.check(Scope.FULL, keep=False)
    return [(*split(each.place), each.field) for each in result.faults]


async def test_several_shards_are_found_sound(log: ShardedLog, checker: Checker) -> None:
    result = await checker.check(Scope.FULL, keep=False)
    assert result.faults == ()
    assert result.leaves == sum(SIZES[: log.shards])
    assert result.organizations == 3  # The openings are the installation's own.
    recent = await checker.check(Scope.RECENT, keep=False)
    assert recent.faults == ()


@pytest.mark.parametrize(
    ("table", "column", "field"),
    [
        ("entries", "leaf", "entries.leaf"),
        ("payloads", "content", "payloads.content"),
        ("nodes", "hash", "nodes.hash"),
        ("checkpoints", "root", "checkpoints.root"),
    ],
)
async def test_a_bit_that_flips_is_located_by_shard_and_index(
    log: ShardedLog, checker: Checker, table: str, column: str, field: str
) -> None:
    """In each shard, the closed ones too; and put right again, nothing is said of it."""
    for shard in range(log.shards):
        index = 3
        place = place_of(shard, index)
        where = {
            "checkpoints": f"size = (SELECT max(size) FROM audit.checkpoints WHERE size < {place_of(shard + 1, 0)})",
            "nodes": f"height = 0 AND position = {place}",
        }.get(table, f"idx = {place}")
        flip = f"UPDATE audit.{table} SET {column} = set_bit({column}, 9, 1 - get_bit({column}, 9)) WHERE {where}"
        await as_superuser(log.database, flip)
        expected = SIZES[shard] - 1 if table == "checkpoints" else index
        found = await faults(checker)
        assert found[0] == (shard, expected, field)
        assert len(found) == 1
        await as_superuser(log.database, flip)
        assert await faults(checker) == []


async def test_the_metrics_and_the_alarm_name_the_shard(log: ShardedLog, checker: Checker) -> None:
    alarms: list[Alarm] = []
    metrics = Metrics()
    task = CheckTask(checker, Clock(), alarms.append, metrics, lambda: True)
    await as_superuser(log.database, f"UPDATE audit.entries SET role = 'OTHER' WHERE idx = {place_of(1, 2)}")
    await task.check(Scope.FULL)
    rendered = metrics.render()
    assert 'recoup_log_self_check_bad_shard{scope="full"} 1' in rendered
    assert 'recoup_log_self_check_bad_index{scope="full"} 2' in rendered
    (alarm,) = alarms
    assert (alarm.metadata["shard"], alarm.metadata["index"], alarm.metadata["field"]) == ("1", "2", "entries.role")


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("DELETE FROM audit.shards WHERE shard = 0", (1, 0, "shards.shard")),
        ("UPDATE audit.shards SET origin = origin || 'x' WHERE shard = 1", (1, 0, "shards.origin")),
        ("UPDATE audit.shards SET closed_size = 5 WHERE shard = 0", (0, 6, "shards.closed_size")),
        (f"DELETE FROM audit.entries WHERE idx = {place_of(0, 5)}", (0, 5, "entries")),
        (f"DELETE FROM audit.nodes WHERE height = 1 AND position = {(1 << 39) + 1}", (1, 2, "nodes.hash")),
        (f"DELETE FROM audit.dedup WHERE idx = {place_of(0, 4)}", (0, 4, "dedup")),
    ],
)
async def test_rows_that_are_missing_in_an_old_shard_are_named(
    log: ShardedLog, checker: Checker, statement: str, expected: tuple[int, int, str]
) -> None:
    await as_superuser(log.database, statement)
    assert expected in (await faults(checker))[:2]


async def test_an_old_shard_that_is_rewritten_without_a_contradiction_is_held_against_what_was_signed(
    log: ShardedLog, checker: Checker
) -> None:
    """All that follows is computed anew, and no checkpoint is left: the signer knows the last one of each shard."""
    await as_superuser(log.database, "DELETE FROM audit.checkpoints")
    assert await faults(checker) == []  # By itself this proves nothing: each shard's last one is the signer's.
    await rewrite(log.database, 3)
    result = await checker.check(Scope.FULL, keep=False)
    first = result.faults[0]
    assert (*split(first.place), first.field) == (0, 0, "nodes")
    assert "aren't the ones that were signed at size 6" in first.detail


async def test_a_database_from_before_the_newest_shard_is_behind_what_was_signed(tmp_path: Path) -> None:
    """Put back to the last moment of its first shard: by itself it is whole."""
    async with sharded_log(tmp_path, 1) as log:
        backup = await log.backup()
        await log.turn()
        await log.grow()
        await log.put_back(backup, 2)
        async with log.checker() as checker:
            (fault,) = (await checker.check(Scope.FULL, keep=False)).faults
    assert (fault.place, fault.field) == (6, "head.size")
    assert fault.detail == "it says 6, but size 7 of shard 1 was signed"
