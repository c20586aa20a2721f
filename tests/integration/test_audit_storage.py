"""Where the log keeps things: places, partitions, closed shards, the actor's hash, and what stood in the old table."""

from __future__ import annotations

import hmac
from uuid import UUID, uuid4

import asyncpg
import pytest

from services._mesh.errors import Unavailable
from services.audit import usecases
from services.audit.model.actors import actor_hash
from services.audit.model.leaf import commitment
from services.audit.model.shards import SHARD_SIZE, node_offset, origin_of, place_of, split
from tests.support.log import ACME, ACTORS, GLOBEX, event, recorded, sequencer
from tests.support.postgres import TestDatabase, drop, new_database


def test_a_place_names_shard_and_index() -> None:
    assert [place_of(0, 7), place_of(1, 0), place_of(3, 5)] == [7, 1 << 40, (3 << 40) + 5]
    assert [split(place_of(shard, index)) for shard, index in ((0, 9), (7, SHARD_SIZE - 1))] == [
        (0, 9),
        (7, SHARD_SIZE - 1),
    ]
    for shard, index in ((0, SHARD_SIZE), (0, -1), (-1, 0)):
        with pytest.raises(ValueError, match="no place"):
            place_of(shard, index)
    assert [origin_of("a.example/log", shard) for shard in (0, 2)] == ["a.example/log", "a.example/log/2"]


def test_no_two_shards_share_a_node() -> None:
    for height in (0, 1, 12, 39):
        last_of_first = (SHARD_SIZE - 1) >> height
        assert last_of_first + node_offset(0, height) < node_offset(1, height)


def test_an_actor_is_hashed_under_the_key_and_the_organization() -> None:
    expected = hmac.digest(bytes(range(32)), f"{ACME}/user:1".encode(), "sha256")
    assert ACTORS(ACME, "user:1") == expected
    assert len({expected, ACTORS(GLOBEX, "user:1"), ACTORS(ACME, "user:2"), actor_hash(bytes(32))(ACME, "user:1")}) == 4
    with pytest.raises(ValueError, match="32 bytes, not 31"):
        actor_hash(bytes(31))


@pytest.mark.services("audit")
async def test_the_projection_holds_the_actors_hash_and_the_payload_is_apart(database: TestDatabase) -> None:
    async with sequencer(database) as log:
        made = [event(1), event(2, actor="process:identity")]
        await usecases.append_events(log, "identity", made)
    superuser = await database.superuser()
    entries = await superuser.fetch("SELECT * FROM audit.entries ORDER BY idx")
    payloads = await superuser.fetch("SELECT * FROM audit.payloads ORDER BY idx")
    await superuser.close()
    assert [row["actor_hash"] for row in entries] == [ACTORS(ACME, "user:1"), ACTORS(ACME, "process:identity")]
    assert b"user:1" not in repr(entries).encode()
    assert [(row["subject"], row["format"]) for row in payloads] == [("", 2), ("", 2)]
    found = await recorded(database)
    assert [each.payload for each in found] == [each.payload for each in made]
    for each in found:
        assert f'"payload_commitment":"{commitment(each.payload, each.salt)}"'.encode() in each.leaf


@pytest.mark.services("audit")
async def test_the_database_itself_refuses_an_append_to_a_closed_shard(database: TestDatabase) -> None:
    async with sequencer(database) as log:
        await usecases.append_events(log, "identity", [event(1)])
        superuser = await database.superuser()
        await superuser.execute("UPDATE audit.shards SET closed_size = 1")
        await superuser.execute("INSERT INTO audit.shards VALUES (1, 'x/1', 'YEARLY', now(), NULL)")
        with pytest.raises(Unavailable):
            await usecases.append_events(log, "identity", [event(2)])
        assert await superuser.fetchval("SELECT count(*) FROM audit.entries") == 1
        assert await superuser.fetchval("SELECT count(*) FROM audit.dedup") == 1
        # To the shard that is open, the same sequencer's role may append.
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
            await _insert_as_sequencer(database, place_of(0, 1))
        await _insert_as_sequencer(database, place_of(1, 0))
        assert await superuser.fetchval("SELECT count(*) FROM audit.entries_s1") == 1
        await superuser.close()


async def _insert_as_sequencer(database: TestDatabase, place: int) -> None:
    connection = await database.login("audit_sequencer")
    try:
        await connection.execute(
            "INSERT INTO audit.entries VALUES ($1, $2, $3, 2, 'identity', 2, 'a', 't', 'OK', 'ADMIN', NULL,"
            " now(), now(), '', '', '')",
            ACME,
            uuid4(),
            place,
        )
    finally:
        await connection.close()


@pytest.fixture
async def old() -> TestDatabase:
    made = await new_database()
    await made.migrate("audit", version="0001")
    return made


_OLD = """
INSERT INTO audit.events (organization_id, event_id, idx, organization_seq, producer, producer_counter, action, target,
  result, role, occurred_at, appended_at, request_id, trace_id, payload, salt, leaf)
VALUES ($1, $2, $3, $4, 'identity', $4, 'identity.x.y', 't', 'OK', 'ADMIN', now(), now(), 'r', '', $5, $6, $7)"""


async def _fill_old(database: TestDatabase, links: int) -> list[tuple[UUID, UUID, int, bytes]]:
    """Three events of two organizations as version 0001 kept them; Acme's chain says that it has `links`."""
    filled = []
    superuser = await database.superuser()
    for index, (organization, seq, actor) in enumerate(
        ((ACME, 1, "user:1"), (GLOBEX, 1, "process:identity"), (ACME, 2, "user:2"))
    ):
        event_id, payload = uuid4(), f'{{"actor":"{actor}"}}'.encode()
        await superuser.execute(_OLD, organization, event_id, index, seq, payload, bytes(32), b"leaf%d" % index)
        filled.append((organization, event_id, index, bytes(32) + payload))
    await superuser.execute("INSERT INTO audit.chains VALUES ($1, $2, ''), ($3, 1, '')", ACME, links, GLOBEX)
    await superuser.execute("UPDATE audit.head SET size = 3")
    await superuser.close()
    return filled


async def test_what_stood_in_the_old_table_is_copied_and_nothing_is_added_to_it(old: TestDatabase) -> None:
    filled = await _fill_old(old, links=2)
    await old.migrate("audit")
    superuser = await old.superuser()
    rows = await superuser.fetch(
        "SELECT e.organization_id, e.event_id, e.idx, p.content FROM audit.entries e"
        " JOIN audit.payloads p USING (organization_id, idx) ORDER BY idx"
    )
    subjects = await superuser.fetch("SELECT subject FROM audit.payloads ORDER BY idx")
    await superuser.close()
    assert [tuple(row) for row in rows] == filled
    assert [row[0] for row in subjects] == ["user:1", "", "user:2"]
    older = await old.login("audit_sequencer")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await older.execute(_OLD, ACME, uuid4(), 3, 3, b"{}", bytes(32), b"leaf")
    await older.close()
    await drop(old)


async def test_a_log_whose_counts_differ_is_not_migrated(old: TestDatabase) -> None:
    await _fill_old(old, links=3)
    with pytest.raises(Exception, match="has 2 events, but its chain 3 links"):
        await old.migrate("audit")
    await drop(old)
