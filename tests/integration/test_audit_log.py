"""The log on a real PostgreSQL: order, repetition, conflict, fences, and what no role may change."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from services._mesh.errors import AlreadyExists, Conflict, Denied, Invalid
from services.audit import store, usecases
from services.audit.model import merkle
from services.audit.model.alarms import Alarm, AlarmKind
from services.audit.model.events import EventFilter, Produced
from tests.support.log import ACME, GLOBEX, event, sequencer
from tests.support.postgres import TestDatabase

pytestmark = pytest.mark.services("audit")


async def rows(database: TestDatabase, query: str) -> list[asyncpg.Record]:
    connection = await database.superuser()
    try:
        found: list[asyncpg.Record] = await connection.fetch(query)
        return found
    finally:
        await connection.close()


async def test_concurrent_appends_are_gapless_and_chained(database: TestDatabase) -> None:
    async with sequencer(database) as log:
        batches = [[event(n * 5 + i + 1, ACME if n % 2 else GLOBEX) for i in range(5)] for n in range(20)]
        indexes = await asyncio.gather(*(usecases.append_events(log, "identity", batch) for batch in batches))
        size, root = log.head
    assert sorted(index for each in indexes for index in each) == list(range(100))
    stored = await rows(database, "SELECT * FROM audit.entries ORDER BY idx")
    leaves = [merkle.leaf_hash(bytes(row["leaf"])) for row in stored]
    frontier = merkle.Frontier()
    for leaf in leaves:
        frontier.append(leaf)
    assert (size, root) == (100, frontier.root())
    for organization in (ACME, GLOBEX):
        previous = b""
        own = [row for row in stored if row["organization_id"] == organization]
        assert [row["organization_seq"] for row in own] == list(range(1, len(own) + 1))
        for row in own:
            assert f'"prev_leaf":"{previous.hex()}"'.encode() in bytes(row["leaf"])
            previous = merkle.leaf_hash(bytes(row["leaf"]))


async def test_the_same_event_again_has_no_effect_and_another_content_is_refused(database: TestDatabase) -> None:
    noted: list[Alarm] = []
    async with sequencer(database, noted.append) as log:
        first, second = event(1), event(2)
        assert await usecases.append_events(log, "identity", [first]) == [0]
        assert await usecases.append_events(log, "identity", [second, first, second]) == [1, 0, 1]
        changed = Produced(first.event_id, ACME, 3, first.payload.replace(b'"OK"', b'"NO"'))
        with pytest.raises(AlreadyExists):
            await usecases.append_events(log, "identity", [event(3), changed])
        assert log.head[0] == 2
    assert [(alarm.kind, alarm.metadata["event_id"]) for alarm in noted] == [
        (AlarmKind.EVENT_CONFLICT, str(first.event_id))
    ]


async def test_an_event_comes_from_the_owner_of_its_prefix(database: TestDatabase) -> None:
    async with sequencer(database) as log:
        tried = (("scanner", "actions.action.approve"), ("scanner", "scanners.x"), ("gateway", "gateway.x.y"))
        noted: list[Alarm] = []
        for producer, action in tried:
            with pytest.raises(Denied):
                await usecases.append_events(log, producer, [event(1, action=action)], noted.append)
        assert {alarm.kind for alarm in noted} == {AlarmKind.PREFIX_NOT_OWNED}
        assert [(alarm.metadata["producer"], alarm.metadata["action"]) for alarm in noted] == list(tried)
        assert await usecases.append_events(log, "scanner", [event(1, action="scanner.scan.start")]) == [0]


async def test_a_payload_that_is_not_its_envelopes_is_refused(database: TestDatabase) -> None:
    good = event(1)
    async with sequencer(database) as log:
        for payload in (
            good.payload + b" ",
            b"{}",
            b"[]",
            b"not json",
            event(1).payload,
            event(1, organization_id=str(GLOBEX)).payload,
        ):
            with pytest.raises(Invalid):
                await usecases.append_events(log, "identity", [Produced(good.event_id, ACME, 1, payload)])
        assert log.head[0] == 0


async def test_a_second_sequencer_fences_the_first(database: TestDatabase) -> None:
    async with sequencer(database) as first:
        await usecases.append_events(first, "identity", [event(1)])
        async with sequencer(database) as second:
            with pytest.raises(Conflict):
                await usecases.append_events(first, "identity", [event(2)])
            assert await usecases.append_events(second, "identity", [event(2)]) == [1]
    assert len(await rows(database, "SELECT 1 FROM audit.entries")) == 2


async def test_a_gap_in_a_producers_counter_is_noticed(database: TestDatabase) -> None:
    noted: list[Alarm] = []
    async with sequencer(database, noted.append) as log:
        await usecases.append_events(log, "identity", [event(1)])
        await usecases.append_events(log, "identity", [event(2), event(5)])
    (alarm,) = noted
    assert (alarm.kind, alarm.organization_id) == (AlarmKind.COUNTER_GAP, ACME)
    assert alarm.metadata == {"producer": "identity", "after": "2", "before": "5"}


async def test_proofs_come_from_stored_nodes(database: TestDatabase) -> None:
    async with sequencer(database) as log:
        await usecases.append_events(log, "identity", [event(n) for n in range(1, 38)])
        size, root = log.head
    role = database.role("audit_sequencer")
    async with role.unscoped() as connection:
        for index in (0, 17, 36):
            ranges = merkle.inclusion_ranges(index, size)
            proof = merkle.hash_ranges(ranges, await store.read_ranges(connection, 0, ranges))
            leaf = (await rows(database, f"SELECT leaf FROM audit.entries WHERE idx = {index}"))[0]["leaf"]
            merkle.verify_inclusion(merkle.leaf_hash(bytes(leaf)), index, size, proof, root)
            with pytest.raises(merkle.ProofInvalid):
                merkle.verify_inclusion(merkle.leaf_hash(bytes(leaf) + b" "), index, size, proof, root)
    await role.close()


@pytest.mark.parametrize("table", ["entries", "entries_s0", "payloads", "payloads_s3", "nodes", "dedup", "checkpoints"])
@pytest.mark.parametrize(
    "statement", ["UPDATE audit.{} SET {} = {}", "DELETE FROM audit.{}", "TRUNCATE audit.{}", "DROP TABLE audit.{}"]
)
async def test_no_role_changes_the_log(database: TestDatabase, table: str, statement: str) -> None:
    async with sequencer(database) as log:
        await usecases.append_events(log, "identity", [event(1)])
    column = {"nodes": "position", "checkpoints": "size"}.get(table, "idx")
    wrong = statement.format(table, column, column)
    for role in ("audit_api", "audit_sequencer", "identity_relay", "scanner_api"):
        connection = await database.login(role)
        with pytest.raises(asyncpg.PostgresError):
            await connection.execute(wrong)
        await connection.close()
    owner = await database.login("audit_migrate")
    await owner.execute("SET ROLE audit_owner")
    with pytest.raises(asyncpg.PostgresError):
        await owner.execute(wrong)
    await owner.close()


async def test_another_organizations_events_are_not_there(database: TestDatabase) -> None:
    async with sequencer(database) as log:
        await usecases.append_events(log, "identity", [event(1), event(1, GLOBEX)])
    role = database.role("audit_api")
    async with role.scoped(ACME) as connection:
        found = await store.list_events(connection, EventFilter(), None, None, None, 10)
    await role.close()
    assert {row.organization_id for row in found} == {ACME}
