"""The archive on a real PostgreSQL, in a folder and in an emulated S3: copied, resumed, read back, and found out."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import boto3
import pytest

from services._mesh.aws_settings import AwsCredentials, AwsSettings
from services._mesh.clock import Clock
from services._mesh.database import execute_raw
from services._mesh.storage import Missing, Occupied, Storage, StorageFailed
from services._mesh.storage.s3 import Bucket, S3Storage
from services._mesh.threads import BoundedThreads
from services.audit import store, usecases
from services.audit.archiver import Archiver
from services.audit.model.alarms import AlarmKind
from services.audit.model.archive import bundle_object, checkpoint_object, tile_object
from services.audit.model.merkle import Frontier, leaf_hash
from services.audit.model.tiles import Tile, read_bundle, tiles_of
from tests.support.archive import LEAVES, ArchivedLog, folder, root_in
from tests.support.log import ACME, GLOBEX, LOG, event, sequencer
from tests.support.postgres import TestDatabase

pytestmark = pytest.mark.services("audit")


@pytest.fixture
async def log(database: TestDatabase) -> AsyncIterator[ArchivedLog]:
    made = ArchivedLog(database)
    yield made
    await made.close()


def bucket_of(endpoint: str, retention_days: int = 0, made: bool = True, region: str = "us-east-1") -> S3Storage:
    name = f"archive-{uuid4().hex[:12]}"
    if made:
        client = boto3.client(
            "s3", region_name=region, endpoint_url=endpoint, aws_access_key_id="x", aws_secret_access_key="x"
        )
        client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    bucket = Bucket(name, region, "recoup/", retention_days)
    credentials = AwsCredentials("x", "x", "")
    return S3Storage(BoundedThreads(4, "archive"), bucket, AwsSettings(endpoint), credentials, Clock().wall_now)


@pytest.fixture(params=["folder", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "folder":
        return folder(tmp_path / "archive")
    return bucket_of(request.getfixturevalue("endpoint"), retention_days=3)


async def drained(archiver: Archiver) -> int:
    """How many steps there were work for."""
    steps = 0
    while await archiver.step():
        steps += 1
    return steps


async def test_an_object_is_written_once(storage: Storage) -> None:
    await storage.put("a/tile/0/000", b"one")
    await storage.put("a/tile/0/000", b"one")
    with pytest.raises(Occupied):
        await storage.put("a/tile/0/000", b"two")
    assert await storage.get("a/tile/0/000") == b"one"
    with pytest.raises(Missing):
        await storage.get("a/tile/0/001")


async def test_a_shard_is_copied_closed_and_read_back(log: ArchivedLog, storage: Storage) -> None:
    archiver = log.archiver(storage)
    async with sequencer(log.database) as appending:
        assert not await archiver.step()
        await log.grow(appending)
        await log.sign(appending)
        await drained(archiver)
        # The shard may still grow: what isn't full stays out.
        state = await log.state()
        assert (state["size"], state["complete"], state["verified_at"]) == (512, False, None)
        with pytest.raises(Missing):
            await storage.get(bundle_object(LOG, Tile(0, 2, 88)))
        root = appending.head[1]
    await log.close_shard(LEAVES)
    await drained(archiver)
    state = await log.state()
    assert (state["size"], state["complete"], state["verified_size"]) == (LEAVES, True, LEAVES)
    assert (state["verified_root"], state["problem"]) == (root, "")
    # Somebody else's reading of it: entries from bundles, the root from entries, tiles beside them.
    frontier = Frontier()
    for tile in (tile for tile in tiles_of(LEAVES) if tile.level == 0):
        entries = read_bundle(await storage.get(bundle_object(LOG, tile)))
        hashes = [leaf_hash(entry) for entry in entries]
        assert await storage.get(tile_object(LOG, tile)) == b"".join(hashes)
        assert {set(json.loads(entry)) & {"actor", "payload", "metadata"} == set() for entry in entries} == {True}
        for each in hashes:
            frontier.append(each)
    note = (await storage.get(checkpoint_object(LOG, LEAVES))).decode()
    assert frontier.root() == root_in(note) == root
    assert len(await storage.get(tile_object(LOG, Tile(1, 0, 2)))) == 64
    (event,) = await log.emitted()
    payload = json.loads(event.payload)
    assert (payload["action"], payload["target"], payload["result"]) == ("audit.archive.verify", "shards/0", "OK")
    assert payload["metadata"] == {
        "origin": LOG,
        "size": str(LEAVES),
        "root": root.hex(),
        "objects": "8",
        "location": storage.where,
        "verified_at": str(state["verified_at"]).replace(" ", "T"),
    }
    assert state["verified_event_id"] == event.event_id
    rendered = log.metrics.render()
    assert 'recoup_audit_archived_size{shard="0"} 600' in rendered
    assert 'recoup_audit_archive_lag{shard="0"} 0' in rendered
    assert 'recoup_audit_archive_verified{shard="0"} 1' in rendered
    assert archiver.failures.value == 0
    assert log.noted == []


async def test_it_goes_on_where_it_was(log: ArchivedLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between two objects or before its progress was kept: what is there is found again, and fits."""
    storage = folder(tmp_path / "archive")
    async with sequencer(log.database) as appending:
        await log.grow(appending)
        await log.sign(appending)
    await log.close_shard(LEAVES)
    put, left = storage.put, [4]

    async def failing(name: str, content: bytes) -> None:
        if not left[0]:
            raise StorageFailed("gone")
        left[0] -= 1
        await put(name, content)

    monkeypatch.setattr(storage, "put", failing)
    archiver = log.archiver(storage)
    assert not await archiver.step()
    assert archiver.failures.value == 1
    assert 'recoup_audit_archive_lag{shard="0"} 600' in log.metrics.render()
    left[0] = 1_000_000
    assert await drained(log.archiver(storage)) == 2
    assert (await log.state())["verified_size"] == LEAVES
    assert not list((tmp_path / "archive").rglob("*unfinished*"))


async def test_another_place_begins_anew_and_unverified(log: ArchivedLog, tmp_path: Path) -> None:
    async with sequencer(log.database) as appending:
        await log.grow(appending)
        await log.sign(appending)
    await log.close_shard(LEAVES)
    await drained(log.archiver(folder(tmp_path / "one")))
    other = folder(tmp_path / "other")
    archiver = log.archiver(other)
    assert await archiver.step()
    state = await log.state()
    assert (state["location"], state["complete"], state["verified_at"]) == (other.where, True, None)
    assert await drained(archiver) == 1
    assert (await log.state())["verified_size"] == LEAVES


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[10] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)


def _cut(path: Path) -> None:
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-3])


@pytest.mark.parametrize(
    ("damaged", "damage", "named"),
    [
        (bundle_object(LOG, Tile(0, 1)), _flip, "tile/0/001 isn't what the entries"),
        (bundle_object(LOG, Tile(0, 1)), _cut, "entries/001: the bundle ends"),
        (bundle_object(LOG, Tile(0, 2, 88)), Path.unlink, r"entries/002\.p/88 is missing"),
        (tile_object(LOG, Tile(0, 0)), _flip, "tile/0/000 isn't what"),
        (tile_object(LOG, Tile(1, 0, 2)), _flip, r"tile/1/000\.p/2 isn't what"),
        (tile_object(LOG, Tile(1, 0, 2)), Path.unlink, r"tile/1/000\.p/2 is missing"),
        (checkpoint_object(LOG, LEAVES), _flip, "checkpoints/600"),
        (checkpoint_object(LOG, LEAVES), _cut, "checkpoints/600"),
    ],
)
async def test_reading_back_names_what_differs(
    log: ArchivedLog, tmp_path: Path, damaged: str, damage: Callable[[Path], None], named: str
) -> None:
    async with sequencer(log.database) as appending:
        await log.grow(appending)
        await log.sign(appending)
    await log.close_shard(LEAVES)
    storage = folder(tmp_path)
    archiver = log.archiver(storage, verify_days=1e-9)
    assert await archiver.step()
    assert await archiver.step()
    assert (await log.state())["verified_size"] == LEAVES
    damage(tmp_path / damaged)
    # A fresh process, so that it doesn't remember which checkpoints it wrote; its head is kept first.
    assert not await log.archiver(storage, verify_days=1e-9).step()
    state = await log.state()
    if "checkpoints" not in damaged:
        assert (state["verified_at"], state["verified_size"], state["verified_event_id"]) == (None, None, None)
        assert [json.loads(each.payload)["result"] for each in await log.emitted()] == ["OK", "FAILED"]
    (alarm,) = log.noted
    assert alarm.kind is AlarmKind.SELF_CHECK_FAILED
    assert re.search(named, alarm.metadata["difference"])
    assert log.metrics.render().count("recoup_audit_archive_failures 1") == 1


async def test_a_changed_entry_never_gets_into_the_archive(log: ArchivedLog, tmp_path: Path) -> None:
    async with sequencer(log.database) as appending:
        await log.grow(appending)
        await log.sign(appending)
    await log.superuser(
        "SET session_replication_role = replica",
        "ALTER TABLE audit.entries_s0 DISABLE TRIGGER append_only",
        "UPDATE audit.entries_s0 SET leaf = leaf || 'x'::bytea WHERE idx = 300",
    )
    assert not await log.archiver(folder(tmp_path)).step()
    assert [alarm.metadata["difference"] for alarm in log.noted] == ["entry 300 of the log isn't what its hash says"]
    assert not (tmp_path / bundle_object(LOG, Tile(0, 1))).exists()
    assert await log.superuser("SELECT * FROM audit.archive") == []


async def test_the_archiver_sees_leaves_of_one_organization_at_a_time(log: ArchivedLog) -> None:
    async with sequencer(log.database) as appending:
        await log.grow(appending, 4)
    connection = await log.database.login("audit_archiver")
    try:
        assert await connection.fetch("SELECT idx FROM audit.entries") == []
        assert len(await connection.fetch("SELECT organization_id FROM audit.chains")) == 2
        for organization in (ACME, GLOBEX):
            await connection.execute(f"SET app.organization_id = '{organization}'")
            assert len(await connection.fetch("SELECT idx, leaf FROM audit.entries")) == 2
            for beyond in ("SELECT action FROM audit.entries", "SELECT content FROM audit.payloads"):
                with pytest.raises(Exception, match="permission denied"):
                    await connection.fetch(beyond)
    finally:
        await connection.close()


async def test_leaves_of_many_organizations_are_read_in_one_round_trip(log: ArchivedLog) -> None:
    organizations = [UUID(int=n) for n in range(1, 41)]
    async with sequencer(log.database) as appending:
        for number in (1, 2, 3):
            await usecases.append_events(appending, "identity", [event(number, each) for each in organizations])
    role, asked = log.database.role("audit_archiver", pool_size=1), list[str]()

    def ask(record: Any) -> None:
        asked.append(record.query)

    async with role.unscoped() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None
        driver.add_query_logger(ask)
        leaves = await store.read_leaves(connection, 0, 10, 110)
        driver.remove_query_logger(ask)
        # It sees no organization's rows afterwards.
        assert await execute_raw(connection, "SELECT idx FROM audit.entries") == []
    await role.close()
    assert sorted(leaves) == list(range(10, 110))
    rows = await log.superuser("SELECT idx, leaf FROM audit.entries WHERE idx >= 10 AND idx < 110")
    assert leaves == {row["idx"]: row["leaf"] for row in rows}
    assert len(asked) == 1, asked


async def test_a_locked_object_stays(endpoint: str) -> None:
    storage = bucket_of(endpoint, retention_days=3)
    await storage.put("a/b", b"one")
    name = storage.where.removeprefix("s3://").partition("/")[0]
    client = boto3.client(
        "s3", region_name="us-east-1", endpoint_url=endpoint, aws_access_key_id="x", aws_secret_access_key="x"
    )
    found = client.head_object(Bucket=name, Key="recoup/a/b")
    assert found["ObjectLockMode"] == "COMPLIANCE"
    assert 2 <= (found["ObjectLockRetainUntilDate"] - datetime.now(UTC)).total_seconds() / 86_400 <= 3
    with pytest.raises(client.exceptions.ClientError, match="AccessDenied"):
        client.delete_object(Bucket=name, Key="recoup/a/b", VersionId=found["VersionId"])
    assert len(client.list_object_versions(Bucket=name)["Versions"]) == 1


async def test_a_bucket_that_isnt_there_fails_and_holds_up_nothing(log: ArchivedLog, endpoint: str) -> None:
    archiver = log.archiver(bucket_of(endpoint, made=False))
    async with sequencer(log.database) as appending:
        await log.grow(appending)
        await log.sign(appending)
        assert not await archiver.step()
        assert archiver.failures.value == 1
        await log.grow(appending, 10)
        assert appending.head[0] == LEAVES + 10
    with pytest.raises(StorageFailed, match="NoSuchBucket"):
        await bucket_of(endpoint, made=False).get("x")


async def test_a_shard_is_detached_only_when_its_archive_was_read_back(log: ArchivedLog, tmp_path: Path) -> None:
    script = (
        (Path(__file__).resolve().parents[2] / "deploy" / "detach_shard.sql").read_text().replace(":'shard'", "'0'")
    )

    async def refused(why: str) -> None:
        connection = await log.database.superuser()
        try:
            with pytest.raises(Exception, match=why) as caught:
                async with connection.transaction():
                    await connection.execute(script)
            assert getattr(caught.value, "sqlstate", "") == "RC003"
        finally:
            await connection.close()

    async with sequencer(log.database) as appending:
        await log.grow(appending)
        await log.sign(appending)
    await refused("still appended to")
    await log.close_shard(LEAVES)
    await refused("0 of its 600 leaves are in the archive")
    archiver = log.archiver(folder(tmp_path))
    assert await archiver.step()
    await refused("wasn't read back")
    assert await drained(archiver) == 1
    # The event is on its way: the log itself must have it.
    await refused("no event of its verification")
    async with sequencer(log.database) as appending:
        await usecases.append_events(appending, "audit", await log.emitted())
        await log.superuser("UPDATE audit.archive SET verified_root = '\\x" + "00" * 32 + "'")
        await refused("isn't what was signed")
        await log.superuser(
            "UPDATE audit.archive SET verified_at = now() - interval '32 days',"
            " verified_root = (SELECT root FROM audit.checkpoints WHERE size = 600)"
        )
        await refused("last read back at")
        await log.superuser("UPDATE audit.archive SET verified_at = now(), problem = 'x differs'")
        await refused("x differs")
        await log.superuser("UPDATE audit.archive SET problem = ''")
        assert len(await log.superuser("SELECT 1 FROM audit.entries")) == LEAVES + 1

        connection = await log.database.superuser()
        said: list[str] = []
        connection.add_log_listener(lambda _, message: said.append(str(message)))
        try:
            async with connection.transaction():
                await connection.execute(script)
            with pytest.raises(Exception, match="append-only"):
                await connection.execute("DROP TABLE audit.entries_s1")
        finally:
            await connection.close()
        assert any("detached audit.entries_s0 (600 entries" in each for each in said)
        # The rows are there still, apart; the other shard goes on, and is proven.
        assert len(await log.superuser("SELECT 1 FROM audit.entries_s0")) == LEAVES
        await refused("it was detached at")
        await log.grow(appending, 5)
    assert len(await log.superuser("SELECT 1 FROM audit.entries")) == 6
    assert len(await log.superuser("SELECT 1 FROM audit.payloads")) == 6
    assert len(await log.superuser("SELECT 1 FROM audit.nodes WHERE height = 0 AND position < 600")) == LEAVES
