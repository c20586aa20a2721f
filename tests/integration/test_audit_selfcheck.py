"""The self-check on a real log: it finds nothing in a sound one, and names every field of every row that was changed.

The fields are read from the catalog, so that a new column is changed as well, or the test goes red.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy import event as hook

from services._mesh.clock import Clock
from services._mesh.metrics import Metrics
from services.audit import checking
from services.audit.check_task import CheckTask, is_due
from services.audit.model.alarms import Alarm
from services.audit.model.check_result import CheckResult
from services.audit.model.progress import Progress, Scope
from services.audit.opener import DESTROYED
from services.audit.pace import Pace
from services.audit.store import checking as store
from tests.support.log import destroy_key
from tests.support.postgres import drop, new_database
from tests.support.signed_log import BATCHES, LEAVES, SignedLog, signed_log
from tests.support.tampering import as_superuser, columns, flipped

# What is held against the log; of what stands beside it, test_audit_selfcheck_beside.py has more.
TABLES = (
    "entries",
    "payloads",
    "nodes",
    "dedup",
    "checkpoints",
    "cosignatures",
    "head",
    "chains",
    "producers",
    "shards",
)
# What nothing stands behind, with why that does no harm.
UNCOVERED = {
    "head.singleton": "there is one row, and a check keeps it so",
    "head.erasures": "whatever it changes to, the sequencer looks its keys up again",
    "head.keys_generation": "the watch of the subjects' keys holds it against their database",
    "shards.opened_at": "nothing is decided by it; the log's own events say when a shard began",
}
# The row that is changed is one in the middle, so that something stands before and after it.
WHERE = {
    "entries": "idx = 7",
    "payloads": "idx = 7",
    "nodes": "height = 0 AND position = 7",
    "dedup": "idx = 7",
    "checkpoints": "size = 9",
    "cosignatures": "place = 9",
    "chains": "organization_id = '00000000-0000-0000-0000-000000000001'",
    "producers": "producer = 'identity'",
    "head": "true",
    "shards": "shard = 0",
}
# Where a change shows as something else too, what is named is still one of these.
ALSO = {
    "entries.organization_id": {"entries", "payloads.idx"},
    "payloads.organization_id": {"payloads"},
    "payloads.idx": {"payloads"},
    "nodes.height": {"nodes", "nodes.hash"},
    "nodes.position": {"nodes", "nodes.hash"},
    "dedup.event_id": {"dedup"},
    "cosignatures.witness": {"cosignatures.line"},
    "chains.organization_id": {"chains"},
    "producers.organization_id": {"producers", "producers.producer"},
    "producers.producer": {"producers"},
    "shards.shard": {"shards.origin", "shards.kind", "head.size"},
}


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[SignedLog]:
    database = await new_database(("audit",))
    async with signed_log(database, tmp_path) as made:
        yield made
    await drop(database)


async def check(log: SignedLog, scope: Scope = Scope.FULL) -> CheckResult:
    return await log.checker.check(scope, keep=False)


async def test_a_sound_log_is_found_sound(log: SignedLog) -> None:
    for scope in Scope:
        result = await check(log, scope)
        assert result.faults == ()
        assert (result.leaves, result.checkpoints, result.organizations) == (LEAVES, 5, 2)
    assert list(result.lines())[-1] == "the log is what it should be"


async def test_each_changed_field_is_named(log: SignedLog) -> None:
    superuser = await log.database.superuser()
    await as_superuser(log.database)  # Takes the guards away.
    await superuser.execute("SET session_replication_role = replica")
    names = await columns(superuser, TABLES)
    assert len(names) > 35
    for name in names:
        if name in UNCOVERED:
            continue
        table, _, column = name.partition(".")
        value = await superuser.fetchval(f"SELECT {column} FROM audit.{table} WHERE {WHERE[table]}")
        changed = flipped(value, column)
        change = f"UPDATE audit.{table} SET {column} = $1 WHERE {WHERE[table]}"
        if name == "head.epoch":
            changed = value - 1  # A higher one fences the sequencer, which takes over again; a lower one lets one in.
        await superuser.execute(change, changed)
        result = await check(log)
        undo = f"UPDATE audit.{table} SET {column} = $1 WHERE {column} IS NOT DISTINCT FROM $2"
        if table in ("entries", "payloads", "nodes", "dedup", "checkpoints") and column not in WHERE[table]:
            undo += f" AND {WHERE[table]}"
        await superuser.execute(undo, value, changed)
        assert result.faults, name
        first = result.faults[0]
        assert first.field in {name, *ALSO.get(name, ())}, (name, first)
        if table in ("entries", "payloads", "nodes", "dedup"):
            assert first.place == 7, (name, first)
        if table in ("checkpoints", "cosignatures") and column != "place":
            assert first.place == 8, (name, first)
    assert (await check(log)).faults == ()
    await superuser.close()


async def test_every_bit_of_a_leaf_and_of_a_note_is_covered(log: SignedLog) -> None:
    superuser = await log.database.superuser()
    await as_superuser(log.database)
    await superuser.execute("SET session_replication_role = replica")
    for table, column, where, place in (
        ("entries", "leaf", "idx = 4", 4),
        ("checkpoints", "note", "size = 9", 8),
    ):
        value = await superuser.fetchval(f"SELECT {column} FROM audit.{table} WHERE {where}")
        for at in range(0, len(value), 17):
            spoiled = (
                value[:at] + bytes([value[at] ^ 1 << at % 8]) + value[at + 1 :]
                if isinstance(value, bytes)
                else value[:at] + chr(ord(value[at]) ^ 1) + value[at + 1 :]
            )
            await superuser.execute(f"UPDATE audit.{table} SET {column} = $1 WHERE {where}", spoiled)
            first = (await check(log)).faults[0]
            assert (first.place, first.field) == (place, f"{table}.{column}"), at
        await superuser.execute(f"UPDATE audit.{table} SET {column} = $1 WHERE {where}", value)
    await superuser.close()


@pytest.mark.parametrize(
    ("statement", "place", "field"),
    [
        ("DELETE FROM audit.entries WHERE idx = 6", 6, "entries"),
        ("DELETE FROM audit.payloads WHERE idx = 6", 6, "payloads"),
        ("DELETE FROM audit.entries WHERE idx = 14", 14, "entries"),
        ("DELETE FROM audit.nodes WHERE height = 2 AND position = 1", 4, "nodes.hash"),
        ("DELETE FROM audit.dedup WHERE idx = 6", 6, "dedup"),
        ("DELETE FROM audit.chains WHERE organization_id = '00000000-0000-0000-0000-000000000002'", 14, "chains"),
        ("DELETE FROM audit.producers WHERE producer = 'scanner'", 14, "producers"),
        ("INSERT INTO audit.nodes VALUES (0, 900, decode(repeat('00', 32), 'hex'))", 15, "nodes"),
        ("INSERT INTO audit.nodes VALUES (41, 0, decode(repeat('00', 32), 'hex'))", 15, "nodes.height"),
        ("INSERT INTO audit.nodes VALUES (3, -1, decode(repeat('00', 32), 'hex'))", 15, "nodes.position"),
        ("INSERT INTO audit.dedup VALUES (gen_random_uuid(), '', -1)", 15, "dedup"),
        ("INSERT INTO audit.dedup VALUES (gen_random_uuid(), '', 900)", 15, "dedup.idx"),
        ("UPDATE audit.head SET size = 12", 12, "head.size"),
        ("UPDATE audit.head SET size = size + (1::bigint << 39)", 15, "head.size"),
        ("UPDATE audit.head SET size = size + (1::bigint << 41)", 15, "head.size"),
        ("UPDATE audit.entries SET idx = idx + 1000 WHERE idx = 6", 6, "entries.idx"),
        (
            "INSERT INTO audit.payloads SELECT organization_id, 8, format, subject, key_id, content"
            " FROM audit.payloads WHERE idx = 7",
            8,
            "payloads.idx",
        ),
    ],
)
async def test_rows_that_are_missing_or_too_many_are_named(
    log: SignedLog, statement: str, place: int, field: str
) -> None:
    await as_superuser(log.database, statement)
    result = await check(log)
    assert (result.faults[0].place, result.faults[0].field) == (place, field), result.faults[:5]


async def key_at(log: SignedLog, place: int) -> UUID:
    superuser = await log.database.superuser()
    key_id = await superuser.fetchval(f"SELECT key_id FROM audit.payloads WHERE idx = {place}")
    await superuser.close()
    assert isinstance(key_id, UUID)
    return key_id


async def test_a_key_that_was_destroyed_without_an_erasure_is_named(log: SignedLog) -> None:
    await destroy_key(log.database, await key_at(log, 0), erased=False)
    for scope in Scope:
        first = (await check(log, scope)).faults[0]
        assert (first.place, first.field, first.detail) == (0, "payloads.key_id", DESTROYED)


async def test_an_erased_payload_is_counted_and_its_leaf_still_checked(log: SignedLog) -> None:
    await destroy_key(log.database, await key_at(log, 0))
    result = await check(log)
    assert (result.faults, result.erased) == ((), 2 * BATCHES)
    assert "10 payloads were erased" in "\n".join(result.lines())
    await as_superuser(log.database, "UPDATE audit.entries SET producer = 'scanner' WHERE idx = 4")
    first = (await check(log)).faults[0]
    assert (first.place, first.field) == (4, "entries.producer")


async def test_an_erasure_hides_the_payloads_of_its_own_subject_only(log: SignedLog) -> None:
    """A superuser points an entry at a key that was destroyed: nobody erased what this actor did."""
    await log.append(1, BATCHES, actor="user:2")
    other = await key_at(log, LEAVES)
    await destroy_key(log.database, other)
    assert (await check(log)).faults == ()
    await as_superuser(log.database, f"UPDATE audit.payloads SET key_id = '{other}' WHERE idx = 4")
    first = (await check(log)).faults[0]
    assert (first.place, first.field) == (4, "payloads.key_id")


async def test_of_a_detached_shard_the_tree_is_still_checked(log: SignedLog) -> None:
    await as_superuser(
        log.database,
        f"UPDATE audit.shards SET closed_size = {LEAVES}",
        "INSERT INTO audit.archive (shard, location, size, complete, archived_at, detached_at)"
        f" VALUES (0, 'archive', {LEAVES}, true, now(), now())",
        "ALTER TABLE audit.entries DETACH PARTITION audit.entries_s0",
        "ALTER TABLE audit.payloads DETACH PARTITION audit.payloads_s0",
    )
    # No event says that it was detached, which is all that is wrong with it.
    result = await check(log)
    assert [(f.place, f.field) for f in result.faults] == [(LEAVES - 1, "archive.detached_at")]
    assert (result.leaves, result.checkpoints) == (0, BATCHES)
    await as_superuser(log.database, "UPDATE audit.nodes SET hash = sha256('') WHERE height = 1 AND position = 3")
    assert (await check(log)).faults[0].field == "nodes.hash"


async def test_the_recent_part_begins_at_an_older_checkpoint(log: SignedLog) -> None:
    await as_superuser(
        log.database,
        "UPDATE audit.checkpoints SET signed_at = signed_at - interval '1 day' WHERE size <= 9",
        "UPDATE audit.entries SET role = 'VIEWER' WHERE idx = 3",
    )
    recent = await check(log, Scope.RECENT)
    assert (recent.faults, recent.leaves, recent.checkpoints) == ((), LEAVES - 9, 2)
    await as_superuser(log.database, "UPDATE audit.entries SET role = 'VIEWER' WHERE idx = 10")
    assert [(f.place, f.field) for f in (await check(log, Scope.RECENT)).faults] == [(10, "entries.role")]
    assert (await check(log)).faults[0].place == 3


async def test_what_is_appended_meanwhile_is_left_for_the_next_check(log: SignedLog) -> None:
    grown = False

    async def append_more(seconds: float) -> None:
        nonlocal grown
        if not grown:
            grown = True
            await log.append(3, 5)

    checker = replace(log.checker, pace=Pace(1.0, append_more), chunk=2)
    result = await checker.check(Scope.FULL, keep=False)
    assert grown
    assert result.faults == ()
    assert result.checkpoints == 5
    assert (await check(log)).checkpoints == 8


async def test_an_interrupted_check_goes_on_where_it_was(log: SignedLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that is killed after any chunk, again and again, ends with the result of one that wasn't."""
    monkeypatch.setattr("services.audit.checking._KEEP_EVERY_ROWS", 1)
    await as_superuser(log.database, "UPDATE audit.entries SET target = '' WHERE idx = 2")

    async def killed(seconds: float) -> None:
        raise InterruptedError

    paced = replace(log.checker, pace=Pace(0.001, killed), chunk=2)
    kills, result = 0, None
    states = set()
    while result is None:
        try:
            result = await paced.check(Scope.FULL)
        except InterruptedError:
            kills += 1
            async with log.checker.database.unscoped() as connection:
                states.add((await store.find_state(connection, Scope.FULL)).progress)
            assert kills < 100
    assert kills == len(states) > 10
    assert (result.leaves, result.checkpoints, result.organizations) == (LEAVES, 5, 2)
    assert [(f.place, f.field) for f in result.faults] == [(2, "entries.target")]
    again = await paced.last_result(Scope.FULL)
    assert again == result
    async with log.checker.database.unscoped() as connection:
        assert (await store.find_state(connection, Scope.FULL)).progress == ""


def test_progress_that_cannot_be_read_is_none() -> None:
    for text in ("", "{}", "[]", '{"link":[1,2]}', "nonsense"):
        assert Progress.load(text) is None


async def test_the_bound_on_rows_is_kept(log: SignedLog) -> None:
    """The check takes as long as its rows may: on a clock that only its rests move."""
    passed = 0.0

    async def rest(seconds: float) -> None:
        nonlocal passed
        passed += seconds

    pace = Pace(100.0, rest, lambda: passed)
    checker = replace(log.checker, pace=pace, chunk=2)
    result = await checker.check(Scope.FULL, keep=False)
    assert result.rows > 100
    assert passed == pytest.approx(result.rows / 100.0)


async def test_organizations_that_didnt_move_cost_little_and_count_against_the_bound(log: SignedLog) -> None:
    await as_superuser(log.database, "UPDATE audit.checkpoints SET signed_at = signed_at - interval '1 day'")
    passed, statements = 0.0, list[str]()

    async def rest(seconds: float) -> None:
        nonlocal passed
        passed += seconds

    hook.listen(
        log.checker.database._engine.sync_engine,
        "before_cursor_execute",
        lambda _c, _k, statement, *_: statements.append(statement),
    )
    checker = replace(log.checker, pace=Pace(100.0, rest, lambda: passed))
    result = await checker.check(Scope.RECENT, keep=False)
    assert (result.faults, result.leaves, result.organizations) == ((), 0, 2)
    assert passed == pytest.approx(result.rows / 100.0)
    assert result.rows >= 2 * checking._UNMOVED_ROWS
    looked = [each for each in statements if "audit.payloads" in each or "audit.producers p" in each]
    assert len(looked) == 2  # One look each, and nothing of payloads and producers.
    # Whatever moved, or isn't where its chain ends, is walked.
    await as_superuser(log.database, "UPDATE audit.chains SET leaf_hash = sha256('') WHERE seq = 5")
    assert [f.field for f in (await checker.check(Scope.RECENT, keep=False)).faults] == ["chains.leaf_hash"]


async def test_the_checkers_role_changes_nothing(log: SignedLog) -> None:
    checker = await log.database.login("audit_checker")
    for table in (*TABLES, "events", "outbox", "jobs"):
        for statement in (f"UPDATE audit.{table} SET x = 1", f"DELETE FROM audit.{table}", f"TRUNCATE audit.{table}"):
            with pytest.raises(asyncpg.PostgresError):
                await checker.execute(statement)
    assert await checker.fetchval("SELECT count(*) FROM audit.entries") == 0
    assert await checker.fetchval("SELECT count(*) FROM audit.payloads") == 0
    await checker.close()


async def test_a_failure_is_a_log_line_a_metric_and_one_alarm(log: SignedLog, caplog: pytest.LogCaptureFixture) -> None:
    alarms: list[Alarm] = []
    metrics = Metrics()
    task = CheckTask(log.checker, Clock(), alarms.append, metrics, lambda: True)
    assert [result.scope for result in await task.round()] == [Scope.FULL, Scope.RECENT]
    text = metrics.render()
    assert 'recoup_log_self_check_bad_index{scope="full"} -1' in text
    assert f'recoup_log_self_check_leaves{{scope="full"}} {LEAVES}' in text
    assert 'last_success_timestamp_seconds{scope="full"} 1' in text
    assert alarms == []
    assert await task.round() == []  # Nothing is due.
    await as_superuser(log.database, "UPDATE audit.entries SET result = 'NO' WHERE idx IN (5, 9)")
    await task.check(Scope.FULL)
    assert 'recoup_log_self_check_bad_index{scope="full"} 5' in metrics.render()
    assert "index 5, entries.result" in caplog.text
    # The one organization is read before the other: each time that the first bad index changes, it is told.
    assert [(a.kind, a.metadata["index"], a.metadata["field"]) for a in alarms] == [
        ("SELF_CHECK_FAILED", "9", "entries.result"),
        ("SELF_CHECK_FAILED", "5", "entries.result"),
    ]
    # Another process finds out at its start what this one found.
    other = Metrics()
    await CheckTask(log.checker, Clock(), alarms.append, other, lambda: True).round()
    assert 'recoup_log_self_check_bad_index{scope="full"} 5' in other.render()


def test_when_a_check_is_due() -> None:
    noon = datetime(2026, 3, 5, 12, tzinfo=UTC)
    hour = timedelta(hours=1)
    assert is_due(Scope.RECENT, None, noon, hour, 2)
    assert is_due(Scope.FULL, None, noon, hour, 2)
    assert is_due(Scope.RECENT, noon - hour, noon, hour, 2)
    assert not is_due(Scope.RECENT, noon - hour + timedelta(seconds=1), noon, hour, 2)
    assert is_due(Scope.FULL, noon.replace(hour=1, minute=59), noon, hour, 2)
    assert not is_due(Scope.FULL, noon.replace(hour=2), noon, hour, 2)
    early = noon.replace(hour=1)
    assert not is_due(Scope.FULL, early - timedelta(hours=20), early, hour, 2)
    assert is_due(Scope.FULL, early - timedelta(hours=24), early, hour, 2)
