"""What an installation from before sealing has in the clear: sealed later, without a proof or a check to lose."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest

from services._mesh.clock import Clock
from services._mesh.database import Database
from services._mesh.uow import Store
from services.audit import reseal
from services.audit.model.entry_check import subject_of
from services.audit.model.events import PayloadState, Recorded
from services.audit.model.progress import Scope
from services.audit.reseal import CannotReseal, Resealing
from tests.support.erasing import ADA, EVE, vault
from tests.support.log import ACME, ACTORS, GLOBEX, keys_of, opener, recorded, sealer
from tests.support.postgres import TestDatabase, drop, new_database
from tests.support.signed_log import BATCHES, LEAVES, SignedLog, signed_log

PERSON = f"user:{EVE}"
LIFTED = (
    "SET LOCAL event_triggers = off",
    *(f"ALTER TABLE audit.{table} DISABLE TRIGGER append_only" for table in ("payloads_s0", "entries_s0", "events")),
)
SEALED_AGAIN = [each.replace("DISABLE", "ENABLE ALWAYS") for each in LIFTED[1:]]


async def fetch(database: TestDatabase, query: str) -> list[Any]:
    superuser = await database.superuser()
    rows = await superuser.fetch(query)
    await superuser.close()
    return list(rows)


async def everything(database: TestDatabase) -> list[Recorded]:
    return [each for organization in (ACME, GLOBEX) for each in await recorded(database, organization)]


async def set_back(database: TestDatabase) -> None:
    """Make the log what it would be if version 0001 had begun it: in the clear, without actors' hashes, and copied."""
    events = await everything(database)
    superuser = await database.superuser()
    async with superuser.transaction():
        for statement in LIFTED:
            await superuser.execute(statement)
        for each in events:
            place, content, subject = each.place, each.salt + each.payload, subject_of(_actor(each))
            await superuser.execute(
                "UPDATE audit.payloads_s0 SET format = 1, key_id = NULL, subject = $1, content = $2 WHERE idx = $3",
                subject,
                content,
                place,
            )
            await superuser.execute("UPDATE audit.entries_s0 SET actor_hash = NULL WHERE idx = $1", place)
            await superuser.execute(_OLD, place, each.payload, each.salt)
        for statement in SEALED_AGAIN:
            await superuser.execute(statement)
    await superuser.close()
    keys = await (await keys_of(database)).superuser()
    await keys.execute("ALTER TABLE subjects.keys DISABLE TRIGGER ALL")
    await keys.execute("DELETE FROM subjects.keys")
    await keys.execute("ALTER TABLE subjects.keys ENABLE TRIGGER ALL")
    await keys.close()


_OLD = """
INSERT INTO audit.events SELECT organization_id, event_id, 1, idx, organization_seq, producer, producer_counter, action,
  target, result, role, occurred_at, appended_at, request_id, trace_id, $2, $3, leaf FROM audit.entries WHERE idx = $1
"""


def _actor(event: Recorded) -> str:
    return str(orjson.loads(event.payload)["actor"])


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[SignedLog]:
    database = await new_database(("audit",))
    async with signed_log(database, tmp_path) as made:
        await made.append(1, BATCHES, actor=PERSON)
        await set_back(database)
        assert (await made.checker.check(Scope.FULL, keep=False)).faults == ()
        yield made
    await drop(database)


@asynccontextmanager
async def resealing(database: TestDatabase, tmp_path: Path, user: str = "") -> AsyncIterator[Resealing]:
    password = tmp_path / "superuser"
    password.touch(mode=0o600)
    password.write_text(database.handle.superuser_password)
    owner = database.role(user, 1)
    if not user:
        settings = database.settings(database.handle.superuser, 1)
        owner = Database(settings, database.handle.superuser, password, 1)
    api = database.role("audit_api")
    async with sealer(database) as sealing:
        yield Resealing(owner, sealing, ACTORS, Store(api, "audit", Clock()))
    await asyncio.gather(owner.close(), api.close())


async def in_the_clear(database: TestDatabase) -> set[str]:
    """The tables of the log that hold a person or a salted payload of theirs as it was."""
    found = set()
    for table in ("payloads", "entries", "events", "dedup", "checkpoints"):
        rows = await fetch(database, f"SELECT to_jsonb(t)::text FROM audit.{table} t")
        if any(needle in row[0] for row in rows for needle in ("user:", b"user:".hex())):
            found.add(table)
    return found


async def test_everything_is_sealed_and_reads_and_checks_as_before(log: SignedLog, tmp_path: Path) -> None:
    before = await everything(log.database)
    assert len(before) == LEAVES + 3
    assert await in_the_clear(log.database) == {"payloads", "events"}
    async with resealing(log.database, tmp_path) as made:
        assert await made.run() == LEAVES + 3
        assert await made.run() == 0
    assert await in_the_clear(log.database) == set()
    assert (await log.checker.check(Scope.FULL, keep=False)).faults == ()
    after = await everything(log.database)
    assert [(e.event_id, e.payload, e.salt, e.leaf) for e in after] == [
        (e.event_id, e.payload, e.salt, e.leaf) for e in before
    ]
    told = await fetch(log.database, "SELECT convert_from(payload, 'UTF8')::jsonb FROM audit.outbox")
    assert len(told) == 1
    assert '"audit.payload.seal"' in told[0][0]
    assert f'"payloads": "{LEAVES + 3}"' in told[0][0]
    # The seal is on the tables again.
    superuser = await log.database.superuser()
    for table in ("payloads_s0", "entries_s0", "events"):
        with pytest.raises(asyncpg.PostgresError, match="append-only"):
            await superuser.execute(f"DELETE FROM audit.{table}")
        with pytest.raises(asyncpg.PostgresError, match="append-only"):
            await superuser.execute(f"ALTER TABLE audit.{table} DISABLE TRIGGER append_only")
    await superuser.close()


async def test_what_was_in_the_clear_can_be_erased(log: SignedLog, tmp_path: Path) -> None:
    async with resealing(log.database, tmp_path) as made:
        await made.run()
    async with vault(log.database) as process:
        done = await process.erased(EVE)
        assert done.events_erased == 2
        await process.relay.round()
    states = [each.state for each in await recorded(log.database, ACME) if each.action == "identity.member.add"]
    assert states.count(PayloadState.ERASED) == 2
    assert states.count(PayloadState.PRESENT) == 2 * BATCHES
    async with opener(log.database) as opening:  # The keys' generation is another one.
        result = await replace(log.checker, open_payloads=opening.contents).check(Scope.FULL, keep=False)
    assert (result.faults, result.erased) == ((), 2)


@pytest.mark.parametrize("at", ["reseal.written", "reseal.committed"])
async def test_it_goes_on_where_it_ended(
    log: SignedLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    monkeypatch.setattr(reseal, "BATCH", 4)

    def killed(name: str) -> None:
        if name == at:
            raise ConnectionError(name)

    async with resealing(log.database, tmp_path) as made:
        with monkeypatch.context() as patched:
            patched.setattr(reseal, "reach", killed)
            with pytest.raises(ConnectionError):
                await made.run()
        left = await fetch(log.database, "SELECT count(*) FROM audit.payloads WHERE format = 1")
        assert left[0][0] == LEAVES + 3 - (4 if at == "reseal.committed" else 0)
        assert (await log.checker.check(Scope.FULL, keep=False)).faults == ()
        assert await made.run() == left[0][0]
    assert await in_the_clear(log.database) == set()
    assert (await log.checker.check(Scope.FULL, keep=False)).faults == ()


async def test_a_payload_that_is_not_its_copy_stops_it(log: SignedLog, tmp_path: Path) -> None:
    superuser = await log.database.superuser()
    async with superuser.transaction():
        for statement in LIFTED:
            await superuser.execute(statement)
        await superuser.execute("UPDATE audit.payloads_s0 SET content = content || ' ' WHERE idx = 4")
        for statement in SEALED_AGAIN:
            await superuser.execute(statement)
    await superuser.close()
    async with resealing(log.database, tmp_path) as made:
        with pytest.raises(CannotReseal, match="index 4"):
            await made.run()
    assert await in_the_clear(log.database) == {"payloads", "events"}


async def test_only_a_superuser_does_it(log: SignedLog, tmp_path: Path) -> None:
    for user in ("audit_api", "audit_migrate"):
        async with resealing(log.database, tmp_path, user) as made:
            with pytest.raises(CannotReseal, match="superuser"):
                await made.run()
    async with vault(log.database) as process:
        with pytest.raises(Exception, match="from before payloads were sealed"):
            await process.request(ADA, EVE)
