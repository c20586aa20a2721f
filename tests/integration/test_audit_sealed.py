"""Payloads on their way into the log and out of it: sealed in the tables, opened for readers, keys made once."""

from __future__ import annotations

import asyncio
import logging
from uuid import UUID

import pytest

from services._mesh.errors import AlreadyExists, Unavailable
from services._mesh.uow import PLATFORM
from services.audit import store, usecases
from services.audit.model.alarms import Alarm, Note, only_log
from services.audit.model.batch import Submission
from services.audit.model.events import PayloadState, Produced, Recorded
from services.audit.model.leaf import commitment, parse_payload
from services.audit.serving import Serving
from tests.support.log import ACME, DIGEST, GLOBEX, destroy_key, event, keys_of, opener, sealer, sequencer
from tests.support.postgres import TestDatabase

pytestmark = pytest.mark.services("audit")


async def fetch(database: TestDatabase, query: str) -> list[dict[str, object]]:
    superuser = await database.superuser()
    rows = await superuser.fetch(query)
    await superuser.close()
    return [dict(row) for row in rows]


async def read(
    database: TestDatabase, events: list[Produced], organization: UUID = ACME, note: Note = only_log
) -> list[Recorded]:
    role = database.role("audit_api")
    async with role.scoped(organization) as connection:
        found = await store.get_events(connection, [each.event_id for each in events])
    await role.close()
    async with opener(database, note) as opening:
        return await opening.open(found)


async def test_nothing_of_a_payload_stands_in_the_clear_and_readers_get_all_of_it(database: TestDatabase) -> None:
    made = [event(n + 1, actor=f"user:person-{n % 3}") for n in range(9)]
    async with sequencer(database) as log:
        await usecases.append_events(log, "identity", made)
    stored = await fetch(database, "SELECT format, subject, key_id, content FROM audit.payloads ORDER BY idx")
    assert {(row["format"], row["subject"]) for row in stored} == {(2, "")}
    assert len({row["key_id"] for row in stored}) == 3
    assert not [row for row in stored if b"person" in row["content"]]  # type: ignore[operator]
    found = await read(database, made)
    assert [each.payload for each in found] == [each.payload for each in made]
    for each in found:
        assert commitment(each.payload, each.salt).encode() in each.leaf


async def test_what_is_not_opened_is_not_read(database: TestDatabase) -> None:
    made = event(1)
    async with sequencer(database) as log:
        await usecases.append_events(log, "identity", [made])
    role = database.role("audit_api")
    async with role.scoped(ACME) as connection:
        found = await store.get_event(connection, made.event_id)
    await role.close()
    with pytest.raises(ValueError, match="isn't opened"):
        _ = found.payload


async def test_each_subject_has_one_key_in_each_organization_and_processes_share_one(database: TestDatabase) -> None:
    made = [
        event(1, actor="user:1"),
        event(2, actor="user:1"),
        event(3, actor="process:identity"),
        event(4, actor="spiffe://recoup/scanner-worker"),
        event(1, GLOBEX, actor="user:1"),
    ]
    async with sequencer(database) as log:
        await asyncio.gather(*(usecases.append_events(log, "identity", [each]) for each in made))
    async with sequencer(database) as log:  # A second one finds the keys that the first one made.
        await usecases.append_events(log, "identity", [event(5, actor="user:1")])
    keys = await fetch(await keys_of(database), "SELECT organization_id, subject_hash, wrapped_key FROM subjects.keys")
    assert sorted(row["organization_id"] for row in keys) == [ACME, ACME, GLOBEX]  # type: ignore[type-var]
    assert len({row["subject_hash"] for row in keys}) == 3
    used = await fetch(database, "SELECT organization_id, key_id FROM audit.payloads ORDER BY organization_id, idx")
    assert len({row["key_id"] for row in used}) == 3
    assert len({row["key_id"] for row in used if row["organization_id"] == GLOBEX}) == 1


async def test_keys_of_a_flush_are_looked_up_at_once_and_not_again(database: TestDatabase) -> None:
    async with sealer(database) as sealing:
        statements: list[str] = []
        from sqlalchemy import event as hook

        hook.listen(
            sealing._database._engine.sync_engine,
            "before_cursor_execute",
            lambda _c, _k, statement, *_: statements.append(statement),
        )
        submissions = [submitted(event(n + 1, UUID(int=n % 50 + 1), actor=f"user:{n}")) for n in range(500)]
        await sealing.seal(submissions, 0)
        assert len(statements) == 3, statements
        await sealing.seal(submissions)
        assert len(statements) == 3
        await sealing.seal(submissions, 1)  # After an erasure nothing is known any more.
        assert len(statements) == 4


def submitted(made: Produced) -> Submission:
    payload = parse_payload(made.payload, made.event_id, made.organization_id, DIGEST)
    return Submission(made.event_id, made.organization_id, "identity", made.producer_counter, payload)


async def test_two_sealers_at_once_make_one_key(database: TestDatabase) -> None:
    made = submitted(event(1))
    async with sealer(database) as first, sealer(database) as second:
        sealed = await asyncio.gather(*(each.seal([made], 0) for each in (first, second)))
    assert len({each.key_id for (each,) in sealed}) == 1
    assert len(await fetch(await keys_of(database), "SELECT 1 FROM subjects.keys")) == 1


async def test_while_the_keys_are_in_doubt_nothing_is_appended_or_read(database: TestDatabase) -> None:
    made, serving = event(1), Serving()
    async with sequencer(database, serving=serving) as log:
        with pytest.raises(Unavailable):
            await usecases.append_events(log, "identity", [made])
        (row,) = await fetch(await keys_of(database), "SELECT generation FROM subjects.generation")
        serving.trust(row["generation"])  # type: ignore[arg-type]
        assert await usecases.append_events(log, "identity", [made]) == [0]
    async with opener(database) as opening:
        role = database.role("audit_api")
        async with role.scoped(ACME) as connection:
            found = await store.get_events(connection, [made.event_id])
        await role.close()
        await fetch(await keys_of(database), "UPDATE subjects.generation SET generation = gen_random_uuid()")
        with pytest.raises(Unavailable):
            await opening.open(found)


async def test_a_group_with_two_contents_of_one_event_keeps_the_first(database: TestDatabase) -> None:
    first = event(1)
    second = Produced(first.event_id, ACME, 2, first.payload.replace(b'"OK"', b'"NO"'))
    async with sequencer(database) as log:
        answers = await asyncio.gather(
            *(usecases.append_events(log, "identity", [each]) for each in (first, second)), return_exceptions=True
        )
    assert answers[0] == [0]
    assert isinstance(answers[1], AlreadyExists)
    assert [each.payload for each in await read(database, [first])] == [first.payload]


async def test_the_deduplication_tells_nothing_to_who_guesses(database: TestDatabase) -> None:
    made = event(1)
    async with sequencer(database) as log:
        await usecases.append_events(log, "identity", [made])
    (row,) = await fetch(database, "SELECT payload_sha256 FROM audit.dedup")
    assert row["payload_sha256"] == DIGEST(made.payload)


@pytest.mark.parametrize("how", ["key lost", "key changed"])
async def test_what_nobody_erased_is_told_from_what_was(
    database: TestDatabase, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    made = [event(1, actor="user:1"), event(2, actor="user:2"), event(3, actor="process:identity")]
    async with sequencer(database) as log:
        await usecases.append_events(log, "identity", made)
    lost, erased, _ = [each.key_id for each in await read(database, made)]
    keys = await keys_of(database)
    spoil = {
        "key lost": f"DELETE FROM subjects.keys WHERE key_id = '{lost}'",
        "key changed": f"UPDATE subjects.keys SET wrapped_key = set_byte(wrapped_key, 40, 7) WHERE key_id = '{lost}'",
    }[how]
    superuser = await keys.superuser()
    await superuser.execute("ALTER TABLE subjects.keys DISABLE TRIGGER only_destroyed")
    await superuser.execute(spoil)
    await superuser.close()
    assert erased is not None
    await destroy_key(database, erased)
    with caplog.at_level(logging.ERROR):
        found = await read(database, made)
    assert [each.state for each in found] == [PayloadState.UNREADABLE, PayloadState.ERASED, PayloadState.PRESENT]
    assert [each.payload for each in found] == [b"", b"", made[2].payload]
    assert str(made[0].event_id) in caplog.text
    assert str(made[1].event_id) not in caplog.text


async def test_a_key_that_was_destroyed_without_an_erasure_is_no_erasure(database: TestDatabase) -> None:
    """As a superuser of the keys, or the eraser's role, would hide what a person did."""
    made = [event(n, actor="user:1") for n in (1, 2)]
    async with sequencer(database) as log:
        await usecases.append_events(log, "identity", made)
    (key_id,) = {each.key_id for each in await read(database, made)}
    assert key_id is not None
    await destroy_key(database, key_id, erased=False)
    alarms: list[Alarm] = []
    found = await read(database, made, note=alarms.append)
    assert [each.state for each in found] == [PayloadState.UNREADABLE] * 2
    assert [(each.kind, each.organization_id, each.metadata["key_id"]) for each in alarms] == [
        ("SUBJECT_KEY_BROKEN", PLATFORM, str(key_id))
    ]
    # The erasure of somebody else doesn't stand behind it, nor one that was only asked for.
    superuser = await database.superuser()
    await superuser.execute("SET session_replication_role = replica")
    for change in ("state = 'REQUESTED', decider_hash = NULL, decided_at = NULL", "subject_hash = sha256('other')"):
        await destroy_key(database, key_id)
        assert [each.state for each in await read(database, made)] == [PayloadState.ERASED] * 2
        await superuser.execute(f"UPDATE audit.erasures SET {change}")
        assert [each.state for each in await read(database, made)] == [PayloadState.UNREADABLE] * 2
        await superuser.execute("DELETE FROM audit.erasures")
    await superuser.close()
