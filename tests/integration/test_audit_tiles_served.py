"""Tiles on a real PostgreSQL: only what is signed, shard by shard, and each refusal with what would be right."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services._mesh.clock import Clock
from services._mesh.context import CallContext, entered
from services._mesh.errors import Invalid, NotFound
from services._mesh.ids import PLATFORM
from services._mesh.uow import Store
from services.audit import store, usecases
from services.audit.model.events import Checkpoint
from services.audit.model.merkle import leaf_hash, node_hash
from services.audit.model.notes import Signer, TreeHead
from services.audit.model.shards import SHARD_BITS
from services.audit.model.tiles import index_name
from tests.support.log import LOG, event, sequencer
from tests.support.postgres import TestDatabase

pytestmark = pytest.mark.services("audit")
SIZE = 300


@pytest.fixture
async def log(database: TestDatabase) -> AsyncIterator[Store]:
    """A log of 300 leaves, of which 270 are signed, as a call of a platform member sees it."""
    role = database.role("audit_sequencer")
    async with sequencer(database) as appending:
        await usecases.append_events(appending, "identity", [event(n + 1) for n in range(270)])
        size, root = appending.head
        note = Signer(LOG, Ed25519PrivateKey.generate()).sign(TreeHead(LOG, size, root).text())
        async with role.unscoped() as connection:
            await store.insert_checkpoint(connection, Checkpoint(0, size, root, note, Clock().wall_now()))
        await usecases.append_events(appending, "identity", [event(n + 1) for n in range(270, SIZE)])
    await role.close()
    reading = database.role("audit_api")
    context = CallContext(
        rpc="tests",
        peer="gateway",
        request_id="r",
        trace_id="",
        deadline=None,
        organization_id=PLATFORM,
        actor="user:x",
    )
    with entered(context):
        yield Store(reading, "audit", Clock())
    await reading.close()


async def leaves(database: TestDatabase) -> list[bytes]:
    connection = await database.superuser()
    try:
        rows = await connection.fetch("SELECT leaf FROM audit.entries ORDER BY idx")
    finally:
        await connection.close()
    return [leaf_hash(bytes(row["leaf"])) for row in rows]


async def test_a_tile_is_the_hashes_of_its_level_and_only_what_is_signed(database: TestDatabase, log: Store) -> None:
    hashes = await leaves(database)
    assert len(hashes) == SIZE
    assert await usecases.get_log_tile(log, None, "0/000") == b"".join(hashes[:256])
    assert await usecases.get_log_tile(log, 0, "0/001.p/14") == b"".join(hashes[256:270])
    assert await usecases.get_log_tile(log, 0, "0/001.p/5") == b"".join(hashes[256:261])
    level = hashes[:256]
    while len(level) > 1:
        level = [node_hash(left, right) for left, right in zip(level[::2], level[1::2], strict=True)]
    assert await usecases.get_log_tile(log, 0, "1/000.p/1") == level[0]
    # 30 more are in the log, and under no signature: they aren't there yet.
    with pytest.raises(NotFound, match=r"size 270, signed last, has 14 of its hashes: 0/001\.p/14"):
        await usecases.get_log_tile(log, 0, "0/001.p/15")
    with pytest.raises(NotFound, match=r"0/001\.p/14"):
        await usecases.get_log_tile(log, 0, "0/001")


@pytest.mark.parametrize(
    "name", ["0/002", "0/x001/000", "1/001", "2/000", "2/000.p/1", "63/000", f"0/{index_name(2**60)}"]
)
async def test_what_the_tree_hasnt_isnt_found(log: Store, name: str) -> None:
    with pytest.raises(NotFound, match="doesn't have it") as caught:
        await usecases.get_log_tile(log, None, name)
    assert caught.value.metadata == {"resource": "tile"}


async def test_a_name_that_is_none_is_invalid_and_bundles_are_never_served(log: Store) -> None:
    for name in ("0/1", "0/000.p/256", "64/000", "0/../000", "x"):
        with pytest.raises(Invalid) as caught:
            await usecases.get_log_tile(log, None, name)
        assert caught.value.field_violations[0].field == "tile"
    for name in ("entries", "entries/000", "entries/001.p/14"):
        with pytest.raises(NotFound, match="exports"):
            await usecases.get_log_tile(log, None, name)


async def test_a_shard_is_a_tree_of_its_own(database: TestDatabase, log: Store) -> None:
    """The second shard's first leaves stand at other positions, and its checkpoint is the newest."""
    other = [bytes([n]) * 32 for n in range(3)]
    connection = await database.superuser()
    try:
        await connection.executemany(
            "INSERT INTO audit.nodes (height, position, hash) VALUES (0, $1, $2)",
            [((1 << SHARD_BITS) + n, hashed) for n, hashed in enumerate(other)],
        )
        await connection.execute(
            "INSERT INTO audit.checkpoints (size, root, note, signed_at) VALUES ($1, $2, 'second', now())",
            (1 << SHARD_BITS) + 3,
            bytes(32),
        )
    finally:
        await connection.close()
    assert await usecases.get_log_tile(log, None, "0/000.p/3") == b"".join(other)
    assert await usecases.get_log_tile(log, 1, "0/000.p/2") == b"".join(other[:2])
    assert await usecases.get_log_tile(log, 0, "0/000.p/3") == b"".join((await leaves(database))[:3])
    assert (await usecases.get_log_checkpoint(log, None)).note == "second"
    assert (await usecases.get_log_checkpoint(log, 0)).size == 270
    with pytest.raises(NotFound, match="shard 2"):
        await usecases.get_log_checkpoint(log, 2)


async def test_a_hash_that_is_gone_is_our_fault_and_no_short_tile(database: TestDatabase, log: Store) -> None:
    connection = await database.superuser()
    try:
        await connection.execute("SET session_replication_role = replica")
        await connection.execute("ALTER TABLE audit.nodes DISABLE TRIGGER append_only")
        await connection.execute("DELETE FROM audit.nodes WHERE height = 0 AND position = 7")
    finally:
        await connection.close()
    with pytest.raises(LookupError, match="255 hashes of tile 0/000"):
        await usecases.get_log_tile(log, 0, "0/000")
