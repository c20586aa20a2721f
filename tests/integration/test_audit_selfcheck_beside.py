"""The self-check of what stands beside the log: each column that its own events bear out is changed, and named.

Tables and columns are read from the catalog: a new one is either checked, or listed with the reason why it can't be.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from services._mesh.clock import Clock
from services.audit.checking import Checker
from services.audit.heads import HeadPublisher
from services.audit.model.merkle import leaf_hash
from services.audit.model.progress import Scope
from tests.integration import test_audit_selfcheck
from tests.support.archive import ArchivedLog, folder
from tests.support.erasing import EVE, vault
from tests.support.log import checkpointer
from tests.support.sharded_log import ROOT, ShardedLog, sharded_log
from tests.support.tampering import as_superuser, columns, flipped, rewrite

TABLES = ("archive", "erased_keys", "head_entries")
# Where nothing in the log says what a table holds, with why that does no harm, or who looks at it instead.
UNCOVERED_TABLES = {
    "events": "what version 0001 kept; nothing reads it but the migration that copied it",
    "self_checks": "the check's own: a wrong progress is begun anew, and an operator's check keeps none",
    "outbox": "the reconciler holds it against the log, by counters and ids",
    "outbox_counters": "the same",
    "schema_versions": "which migrations ran",
    "state_seals": "seals of state rows, which are held against those rows by a watch of their own",
    "idempotency": "answers to repeated requests: what was done stands in the log by itself",
    "jobs": "work to be done: each is done under a warrant that the row can't change",
    "erasures": "state: its changes owe events, and what was executed is in erased_keys",
    "legal_holds": "state: its changes owe events",
    "evidence_exports": "state: its changes owe events, and bundles verify by themselves",
    "evidence_progress": "how far the worker is",
}
UNCOVERED = {
    "head_entries.published_at": "nothing is decided by it; the publication's own event says when it was",
    "archive.archived_at": "nothing is decided by it",
}
# Where a change shows as something else too, what is named is still one of these.
ALSO = {
    # Of entry, position and path together one root follows: which of them was changed, it can't tell.
    "head_entries.path": {"head_entries"},
    "head_entries.position": {"head_entries"},
    "head_entries.entry": {"head_entries"},
    # Each organization's rows are read under it: in another one's place they are missing where they belong.
    "erased_keys.organization_id": {"erased_keys"},
    "erased_keys.key_id": {"erased_keys"},
    # What isn't complete isn't the whole shard, whichever of the two was changed.
    "archive.complete": {"archive.size"},
    "archive.verified_size": {"archive.verified_size"},
}
WHERE = {
    "head_entries": f"organization_id = '{UUID(int=1)}'",
    "erased_keys": "true",
    "archive": "shard = 0",
}


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[ShardedLog]:
    """Two shards: the first in the archive, an erasure and a publication of heads in the second."""
    async with sharded_log(tmp_path, 2) as made:
        archived = ArchivedLog(made.database)
        async with (
            vault(made.database) as audit,
            checkpointer(made.database, audit.log, made.folder, ROOT.verifier_key) as signing,
        ):
            audit.counter = 2 * made.counters
            relaying = asyncio.create_task(audit.relay.run())
            await audit.act(EVE)
            await audit.erased(EVE)
            head = made.database.role("audit_sequencer", 1)
            assert await HeadPublisher(head, audit.store, signing, Clock(), 60.0).publish()
            await head.close()
            archiver = archived.archiver(folder(tmp_path / "archive"))
            while await archiver.step():
                pass
            async with asyncio.timeout(10):
                while (await archived.superuser("SELECT FROM audit.outbox WHERE log_index IS NULL")) != []:
                    await asyncio.sleep(0.02)
            await signing.sign_now()
            relaying.cancel()
            await asyncio.gather(relaying, return_exceptions=True)
        await archived.close()
        yield made


@pytest.fixture
async def checker(log: ShardedLog) -> AsyncIterator[Checker]:
    async with log.checker() as made:
        yield made


async def faults(checker: Checker) -> list[str]:
    return [each.field for each in (await checker.check(Scope.FULL, keep=False)).faults]


def changed(value: Any, name: str) -> Any:
    if name == "archive.detached_at":
        return datetime(2026, 1, 1, tzinfo=UTC)
    return flipped(value, name.partition(".")[2])


async def test_each_changed_column_is_named(log: ShardedLog, checker: Checker) -> None:
    assert await faults(checker) == []
    await as_superuser(log.database)  # Takes the guards away.
    superuser = await log.database.superuser()
    await superuser.execute("SET session_replication_role = replica")
    tables = await superuser.fetch(
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'audit'::regnamespace AND relkind IN ('r', 'p')"
        " AND NOT relispartition"
    )
    assert {row[0] for row in tables} == {*TABLES, *UNCOVERED_TABLES, *test_audit_selfcheck.TABLES}
    names = await columns(superuser, TABLES)
    assert set(UNCOVERED) <= set(names)
    assert len(names) > 20
    for name in names:
        if name in UNCOVERED:
            continue
        table, _, column = name.partition(".")
        value = await superuser.fetchval(f"SELECT {column} FROM audit.{table} WHERE {WHERE[table]}")
        new = changed(value, name)
        await superuser.execute(f"UPDATE audit.{table} SET {column} = $1 WHERE {WHERE[table]}", new)
        found = await faults(checker)
        undo = f"UPDATE audit.{table} SET {column} = $1 WHERE {column} IS NOT DISTINCT FROM $2"
        await superuser.execute(undo if column in WHERE[table] else f"{undo} AND {WHERE[table]}", value, new)
        assert found, name
        assert set(found) & {name, *ALSO.get(name, ())}, (name, found)
        # What isn't among the erased keys isn't erased.
        beside = {"payloads"} if table == "erased_keys" else set()
        assert {each.partition(".")[0] for each in found} - beside == {table}, (name, found)
    assert await faults(checker) == []
    await superuser.close()


@pytest.mark.parametrize(
    ("statement", "field"),
    [
        ("DELETE FROM audit.erased_keys", "erased_keys"),
        (
            f"INSERT INTO audit.erased_keys VALUES ('{UUID(int=1)}', gen_random_uuid(), gen_random_uuid())",
            "erased_keys.key_id",
        ),
        # An event that can't be read any more is named itself, and nothing else falls over it.
        ("UPDATE audit.entries SET target = 'x' WHERE action = 'audit.payload.erase'", "entries.target"),
        ("UPDATE audit.entries SET target = 'x' WHERE action = 'audit.archive.verify'", "archive.verified_event_id"),
        ("UPDATE audit.payloads SET content = 'x' WHERE idx IN (SELECT idx FROM audit.entries)", "payloads.content"),
        ("UPDATE audit.archive SET problem = 'x differs'", "archive.problem"),
        ("UPDATE audit.archive SET verified_at = NULL", "archive.verified_at"),
        ("UPDATE audit.archive SET size = 8, complete = false WHERE shard = 0", "archive.complete"),
        ("UPDATE audit.archive SET verified_event_id = gen_random_uuid()", "archive.verified_event_id"),
        (
            # An event of the log there is, but it isn't of a verification.
            "UPDATE audit.archive SET verified_event_id = (SELECT event_id FROM audit.dedup ORDER BY idx LIMIT 1)",
            "archive.verified_event_id",
        ),
        (
            "UPDATE audit.head_entries SET publish_event_id = (SELECT event_id FROM audit.dedup ORDER BY idx LIMIT 1)",
            "head_entries.publish_event_id",
        ),
    ],
)
async def test_rows_that_no_event_bears_out_are_named(
    log: ShardedLog, checker: Checker, statement: str, field: str
) -> None:
    await as_superuser(log.database, statement)
    assert field in await faults(checker)


async def test_an_organization_cant_be_shown_anothers_head(log: ShardedLog, checker: Checker) -> None:
    """A whole row of Globex's, entry and path, put in the place of Acme's."""
    await as_superuser(
        log.database,
        "UPDATE audit.head_entries a SET entry = g.entry, path = g.path, position = g.position,"
        " organization_seq = g.organization_seq FROM audit.head_entries g"
        f" WHERE a.organization_id = '{UUID(int=1)}' AND g.organization_id = '{UUID(int=2)}'",
    )
    assert "head_entries.organization_id" in await faults(checker)


async def test_what_is_on_its_way_to_the_log_is_no_fault(log: ShardedLog) -> None:
    """Erased keys are committed with their event, which the relay brings a moment later: here it doesn't."""
    async with vault(log.database) as audit:
        audit.counter = 2 * log.counters + 1
        await audit.act(EVE)
        await audit.erased(EVE)
    async with log.checker() as checker:
        assert await faults(checker) == []
    await as_superuser(log.database, "UPDATE audit.outbox SET log_index = 1 WHERE action = 'audit.payload.erase'")
    async with log.checker() as checker:
        assert await faults(checker) == ["erased_keys.key_id"]


async def test_a_shard_that_was_rewritten_isnt_what_the_next_was_opened_on(log: ShardedLog) -> None:
    """Without the signer, and without a checkpoint: the next shard's first leaf has the root of the one before."""
    await as_superuser(log.database, "DELETE FROM audit.checkpoints")

    async with log.checker() as checker:
        object.__setattr__(checker, "held", log.keys_only)
        assert await faults(checker) == []
        await rewrite(log.database, 3)
        found = (await checker.check(Scope.FULL, keep=False)).faults
    # What was published and archived of it says so, too.
    assert [each.field for each in found] == ["nodes", "archive.verified_root", "head_entries.entry"]
    assert found[0].place == 0
    assert "aren't those that recoup-test.local.invalid/log/1 follows" in found[0].detail


async def test_a_published_head_is_of_the_leaf_that_its_organization_has(log: ShardedLog) -> None:
    superuser = await log.database.superuser()
    row = await superuser.fetchrow(
        "SELECT h.entry, e.leaf FROM audit.head_entries h JOIN audit.entries e"
        " ON e.organization_id = h.organization_id AND e.organization_seq = h.organization_seq LIMIT 1"
    )
    await superuser.close()
    assert leaf_hash(row["leaf"]).hex() in bytes(row["entry"]).decode()
