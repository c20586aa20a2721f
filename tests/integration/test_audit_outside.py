"""Checkpoints held outside of the log's database, in a folder and in an emulated S3: written, locked, and matched."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import boto3
import pytest
from botocore.exceptions import ClientError
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services._mesh.aws_settings import AwsCredentials, AwsSettings
from services._mesh.clock import Clock
from services._mesh.errors import Unavailable, WrongState
from services._mesh.metrics import Metrics
from services._mesh.storage import Storage
from services._mesh.storage.folder import FolderStorage
from services._mesh.storage.s3 import Bucket, S3Storage
from services._mesh.threads import BoundedThreads
from services._mesh.uow import PLATFORM, Store
from services.audit import outside as outside_module
from services.audit import usecases
from services.audit.checkpointer import Checkpointer
from services.audit.model.alarms import Alarm, AlarmKind
from services.audit.model.archive import head_object, heads_of
from services.audit.model.manifest import LOG as LOG_USE
from services.audit.model.manifest import ListedKey
from services.audit.model.note_check import Held
from services.audit.model.notes import Signer, TreeHead, VerifierKey
from services.audit.model.shards import place_of
from services.audit.outside import Outside
from services.audit.recover import Recovery
from services.audit.sequencer import Sequencer
from services.audit.signer_memory import SignerMemory
from tests.support import log as support
from tests.support.archive import folder
from tests.support.log import KEY, LOG, checkpointer, event, sequencer
from tests.support.mesh import soon
from tests.support.postgres import TestDatabase, copied, drop

pytestmark = pytest.mark.services("audit")
ROOT = Signer(f"{LOG}/root", Ed25519PrivateKey.generate())


@dataclass
class Process:
    """The audit process as far as checkpoints go, with its signer, whose memory lies in `memory`."""

    log: Sequencer
    signing: Checkpointer
    outside: Outside
    storage: Storage
    noted: list[Alarm]
    metrics: Metrics
    counter: list[int]

    async def append(self) -> int:
        """An event of ACME; its place."""
        self.counter[0] += 1
        return (await usecases.append_events(self.log, "identity", [event(self.counter[0])]))[0]

    async def signed(self, count: int = 1) -> int:
        """Events that are under a signed checkpoint; the place of the last."""
        for _ in range(count):
            place = await self.append()
            await self.signing.wait_for(place)
        return place

    async def kept(self, size: int, origin: str = LOG) -> None:
        """Wait until the checkpoint of a size lies outside."""

        async def found() -> bool | None:
            names = await self.storage.first(heads_of(origin), 1)
            return names == [head_object(origin, size)] or None

        await soon(found)

    def matched(self) -> bool:
        """Whether the log was found to continue what is held outside, as the metric says."""
        return self.metrics.gauge("recoup_log_outside_matched", "").value == 1


@dataclass
class Installation:
    """Where the parts of one log lie; each can be put back to an older day."""

    memory: Path
    storage: Storage
    counter: list[int] = field(default_factory=lambda: [0])

    @asynccontextmanager
    async def at_work(self, database: TestDatabase, root: VerifierKey | None = None) -> AsyncIterator[Process]:
        """A process on a database, until it ends."""
        role, noted, metrics = database.role("audit_sequencer"), list[Alarm](), Metrics()

        async def held(shard: int) -> Held:
            note = SignerMemory(self.memory / "signed.json").of(shard).head.note
            return Held([ListedKey(LOG_USE, KEY.public_key().public_bytes_raw())], note)

        async with sequencer(database) as log, checkpointer(database, log, self.memory, root) as signing:
            outside = Outside(role, self.storage, LOG, signing, held, metrics, noted.append, 0.01)
            signing.require = outside.require
            task = asyncio.create_task(outside.run())
            try:
                yield Process(log, signing, outside, self.storage, noted, metrics, self.counter)
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                await role.close()


def bucket(endpoint: str) -> S3Storage:
    """A bucket with object lock, of which every object is locked for three days."""
    name, credentials = f"outside-{uuid4().hex[:12]}", AwsCredentials("x", "x", "")
    _client(endpoint).create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    made = Bucket(name, "us-east-1", "recoup/", 3)
    return S3Storage(BoundedThreads(4, "archive"), made, AwsSettings(endpoint), credentials, Clock().wall_now)


def _client(endpoint: str):  # type: ignore[no-untyped-def]
    return boto3.client(
        "s3", region_name="us-east-1", endpoint_url=endpoint, aws_access_key_id="x", aws_secret_access_key="x"
    )


@pytest.fixture(params=["folder", "s3"])
def installation(request: pytest.FixtureRequest, tmp_path: Path) -> Installation:
    if request.param == "folder":
        return _in_folder(tmp_path)
    return Installation(_memory(tmp_path), bucket(request.getfixturevalue("endpoint")))


@pytest.fixture
def in_folder(tmp_path: Path) -> Installation:
    return _in_folder(tmp_path)


@pytest.fixture(autouse=True)
def _soon_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside_module, "AGAIN_SECONDS", 0.05)


def _in_folder(path: Path) -> Installation:
    return Installation(_memory(path), folder(path / "outside"))


def _memory(path: Path) -> Path:
    (path / "memory").mkdir()
    return path / "memory"


async def _copied(database: TestDatabase) -> TestDatabase:
    """A backup of a log's database, restored beside it."""
    backup = await copied(database)
    support._keys[backup.name] = support._keys[database.name]
    return backup


async def test_the_first_names_of_a_folder_come_in_their_order(installation: Installation) -> None:
    storage = installation.storage
    assert await storage.first("a/heads", 2) == []
    for name in ("a/heads/3", "a/heads/1", "a/heads/2", "a/heads.x/0", "a/other/0"):
        await storage.put(name, b"x")
    assert await storage.first("a/heads", 2) == ["a/heads/1", "a/heads/2"]
    assert await storage.first("a/heads", 8) == ["a/heads/1", "a/heads/2", "a/heads/3"]
    assert await storage.first("a/heads", 8, "a/heads/1") == ["a/heads/2", "a/heads/3"]


async def test_signed_checkpoints_lie_outside_and_the_log_is_held_against_the_newest(
    database: TestDatabase, installation: Installation
) -> None:
    async with installation.at_work(database) as first:
        assert not first.matched()
        await first.signed(3)
        await first.kept(3)
        assert first.matched()  # There was nothing to hold it against.
    names = await installation.storage.first(heads_of(LOG), 8)
    assert names == sorted(names)
    note = (await installation.storage.get(names[0])).decode()
    assert TreeHead.parse(note.partition("\n\n")[0] + "\n").size == 3
    async with installation.at_work(database) as second:
        await second.signed()
        await second.kept(4)
        assert second.matched()
        assert second.noted == []


async def test_a_database_and_a_signer_put_back_together_are_refused(
    database: TestDatabase, installation: Installation, tmp_path: Path
) -> None:
    """Each would be content with the other: only what lies outside knows better."""
    async with installation.at_work(database) as log:
        await log.signed(2)
        await log.kept(2)
    backup = await _copied(database)
    shutil.copytree(installation.memory, tmp_path / "older")
    async with installation.at_work(database) as log:
        await log.signed(2)
        await log.kept(4)
    installation.memory, installation.counter = tmp_path / "older", [2]
    async with installation.at_work(backup) as log:
        await log.append()
        for _ in range(2):
            with pytest.raises(WrongState, match="doesn't continue the checkpoint held outside"):
                await log.signing.sign_now()
        assert log.signing.signed_place == 0
        assert not log.matched()
        # Also once it has grown beyond: it is another tree.
        for _ in range(3):
            await log.append()
        with pytest.raises(WrongState, match="size 4, root"):
            await log.outside.require()
        assert {(each.kind, each.organization_id, each.once) for each in log.noted} == {
            (AlarmKind.OUTSIDE_DIFFERS, PLATFORM, "0 4")
        }
        assert int(log.noted[0].metadata["log_size"]) <= 3
        assert log.noted[0].metadata["location"] == installation.storage.where
    assert SignerMemory(tmp_path / "older" / "signed.json").of(0).head.size == 2
    await drop(backup)


async def test_what_lies_in_a_bucket_is_locked(database: TestDatabase, tmp_path: Path, endpoint: str) -> None:
    storage = bucket(endpoint)
    async with Installation(_memory(tmp_path), storage).at_work(database) as log:
        await log.signed()
        await log.kept(1)
    client, key = _client(endpoint), f"recoup/{head_object(LOG, 1)}"
    found = client.head_object(Bucket=storage._bucket.name, Key=key)
    assert found["ObjectLockMode"] == "COMPLIANCE"
    assert found["ObjectLockRetainUntilDate"] - Clock().wall_now() > timedelta(days=2)
    with pytest.raises(ClientError, match="AccessDenied"):
        client.delete_object(Bucket=storage._bucket.name, Key=key, VersionId=found["VersionId"])


async def test_while_what_is_held_outside_cant_be_read_nothing_is_signed_and_events_are_still_taken(
    database: TestDatabase, in_folder: Installation, tmp_path: Path
) -> None:
    async with in_folder.at_work(database) as log:
        await log.signed()
        await log.kept(1)
    right = in_folder.storage
    (tmp_path / "file").write_text("no folder")
    in_folder.storage = FolderStorage(BoundedThreads(1, "archive"), tmp_path / "file")
    async with in_folder.at_work(database) as log:
        place = await log.append()
        with pytest.raises(Unavailable, match="checkpoints held outside"):
            await log.signing.sign_now()
        assert log.signing.signed_place == 0
        log.outside._storage = right
        await log.signing.wait_for(place)
        assert log.matched()
        assert log.noted == []


async def test_what_the_log_didnt_sign_doesnt_count(database: TestDatabase, in_folder: Installation) -> None:
    async with in_folder.at_work(database) as log:
        await log.signed(2)
        await log.kept(2)
    stranger = Signer(LOG, Ed25519PrivateKey.generate())
    for size in (90, 91):
        forged = stranger.sign(TreeHead(LOG, size, bytes(32)).text())
        await in_folder.storage.put(head_object(LOG, size), forged.encode())
    async with in_folder.at_work(database) as log:
        await log.signed()
        assert log.matched()
        assert log.noted == []
    for size in range(92, 100):
        await in_folder.storage.put(head_object(LOG, size), b"\xff")
    async with in_folder.at_work(database) as log:
        await log.append()
        with pytest.raises(WrongState):
            await log.signing.sign_now()
        assert log.noted[0].metadata["object"] == head_object(LOG, 99)


async def test_a_signer_put_back_alone_is_an_alarm_and_signs_nothing(
    database: TestDatabase, in_folder: Installation, tmp_path: Path
) -> None:
    async with in_folder.at_work(database) as log:
        await log.signed()
        await log.kept(1)
    shutil.copytree(in_folder.memory, tmp_path / "older")
    async with in_folder.at_work(database) as log:
        await log.signed(2)
        await log.kept(3)
    right, in_folder.memory = in_folder.memory, tmp_path / "older"
    async with in_folder.at_work(database) as log:
        await log.append()
        with pytest.raises(WrongState, match="its memory was put back"):
            await log.signing.sign_now()
        (alarm,) = log.noted
        assert (alarm.metadata["size"], alarm.metadata["signed_size"]) == ("3", "1")
    in_folder.memory = right
    async with in_folder.at_work(database) as log:
        await log.signed()
        await log.kept(5)


async def test_two_checkpoints_of_one_size_are_an_alarm(database: TestDatabase, in_folder: Installation) -> None:
    async with in_folder.at_work(database) as log:
        await log.signed()
        await log.kept(1)
        other = Signer(LOG, KEY).sign(TreeHead(LOG, 2, bytes(32)).text())
        await in_folder.storage.put(head_object(LOG, 2), other.encode())
        await log.signed()

        async def told() -> bool | None:
            return bool(log.noted) or None

        await soon(told)
        assert log.noted[0].metadata["object"] == head_object(LOG, 2)
        assert (await in_folder.storage.get(head_object(LOG, 2))).decode() == other


async def test_a_recovery_goes_on_and_what_was_before_it_is_refused(
    database: TestDatabase, in_folder: Installation
) -> None:
    async with in_folder.at_work(database) as log:
        await log.signed(3)
        await log.kept(3)
    backup = await _copied(database)
    async with in_folder.at_work(database) as log:
        await log.signed(2)
        await log.kept(5)
    before = await _copied(backup)
    role, api = backup.role("audit_sequencer"), backup.role("audit_api")
    recovery = Recovery(role, Store(api, "audit", Clock()), LOG, Clock())
    last = SignerMemory(in_folder.memory / "signed.json").of(0).head.note
    statement = ROOT.sign(await recovery.statement(last))
    assert await recovery.open(last, statement, ROOT.verifier_key) == 1
    in_folder.counter[0] = 3
    async with in_folder.at_work(backup, ROOT.verifier_key) as log:
        assert await log.signed() == place_of(1, 1)
        assert log.noted == []
        await log.kept(2, f"{LOG}/1")
    in_folder.counter[0] = 3
    async with in_folder.at_work(before, ROOT.verifier_key) as log:
        await log.append()
        with pytest.raises(WrongState):
            await log.signing.sign_now()
        assert (log.noted[0].metadata["shard"], log.noted[0].metadata["log_shard"]) == ("1", "0")
    for each in (role, api):
        await each.close()
    for made in (backup, before):
        await drop(made)
