"""The log and its witnesses, real processes on a real database: what is final, what waits, what never counts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from recoup_verify.keys import trusted
from recoup_verify.log import verified_head
from services._mesh.clock import Clock
from services._mesh.errors import Reason, Unavailable
from services._mesh.metrics import Metrics
from services._mesh.relay import Relay
from services._mesh.uow import PLATFORM, Store
from services.audit import proving, store, usecases
from services.audit.alarms import Alarms
from services.audit.checkpointer import Checkpointer
from services.audit.cosigners import Cosigners, _Follower
from services.audit.model.cosigning import WitnessKey
from services.audit.model.events import Checkpoint, Produced
from services.audit.model.manifest import LOG as LOG_USE
from services.audit.model.manifest import ListedKey, Manifest, sign_manifest
from services.audit.model.notes import Note, Signer, TreeHead
from services.audit.model.shards import place_of
from services.audit.model.signing import OfferedHead, SignedHead
from services.audit.opener import Opener
from services.audit.own_log import OwnLog
from services.audit.proving import Quorum
from services.audit.sequencer import Sequencer
from services.audit.signer_state import SignerState
from services.audit.signing import sign_checkpoint
from services.audit.witness_client import WitnessClient
from tests.support.log import ACME, LOG, event, one_shard, opener, recorded, sequencer
from tests.support.mesh import soon
from tests.support.postgres import TestDatabase
from tests.support.witnessing import GrowingLog, WitnessProcess, running_witness

pytestmark = pytest.mark.services("audit")


@dataclass
class Running:
    """A log at work, with its signer in this process."""

    log: Sequencer
    reader: Store
    checkpointer: Checkpointer
    cosigners: Cosigners
    metrics: Metrics
    signer: Signer
    database: TestDatabase
    opener: Opener
    alarms: Alarms
    relay: Relay
    counter: int = 0

    async def append(self) -> UUID:
        """An event of ACME; its id."""
        self.counter += 1
        made: Produced = event(self.counter, ACME)
        await usecases.append_events(self.log, "identity", [made])
        return made.event_id

    async def note(self, event_id: UUID, quorum: int = 0, witnesses: Sequence[WitnessKey] = ()) -> str:
        """The checkpoint that an event is proved under."""
        wanted = Quorum(witnesses, quorum, self.cosigners)
        _, head = await proving.prove_events(
            Reading(self.reader),  # type: ignore[arg-type]
            self.opener,
            self.checkpointer,
            [event_id],
            quorum=wanted,
        )
        return head.note

    def failures(self, witness: WitnessKey) -> float:
        """How often a witness hasn't cosigned."""
        return self.metrics.counter("recoup_log_witness_failures", "", witness=witness.name).value

    def disagrees(self, witness: WitnessKey) -> bool:
        """Whether a witness has seen another tree, as the metric says."""
        return self.metrics.gauge("recoup_log_witness_disagrees", "", witness=witness.name).value == 1

    async def cosigned(self, witness: WitnessKey, size: int) -> None:
        """Wait until a witness has cosigned a checkpoint of at least a size."""

        async def found() -> bool | None:
            connection = await self.database.superuser()
            try:
                query = "SELECT max(place) FROM audit.cosignatures WHERE witness = $1"
                return (await connection.fetchval(query, witness.text()) or 0) >= size or None
            finally:
                await connection.close()

        await soon(found)

    async def alarmed(self) -> list[dict[str, str]]:
        """The metadata of the alarms that stand in the log, relayed now."""

        async def settled() -> bool | None:
            return self.alarms.waiting == 0 or None

        await soon(settled)
        await self.relay.round()
        return [
            json.loads(each.payload)["metadata"]
            for each in await recorded(self.database, PLATFORM, "audit.alarm.raise")
        ]

    def waiting_seconds(self) -> float:
        """For how long receipts have waited for cosignatures, as the metric says."""
        return self.metrics.gauge("recoup_log_cosigned_age_seconds", "").value

    async def kept(self) -> int:
        """How many cosignatures are stored."""
        connection = await self.database.superuser()
        try:
            return int(await connection.fetchval("SELECT count(*) FROM audit.cosignatures"))
        finally:
            await connection.close()


@dataclass
class Reading:
    """The store, under ACME."""

    store: Store

    def read(self, organization_id: UUID | None = None) -> object:
        """A transaction of ACME's."""
        return self.store.read(ACME)


@asynccontextmanager
async def running(
    database: TestDatabase, folder: Path, signer: Signer, clients: Sequence[WitnessClient]
) -> AsyncIterator[Running]:
    role, api = database.role("audit_sequencer"), database.role("audit_api")
    state, metrics = SignerState(folder / "signed.json"), Metrics()

    async def sign(head: OfferedHead) -> str:
        return sign_checkpoint(signer, state, LOG, head.size, head.root, head.from_size, head.proof)

    async def last_signed(shard: int) -> SignedHead:
        return state.head

    async with sequencer(database) as log, opener(database) as opening:
        checkpointer = Checkpointer(role, log, Clock(), sign, last_signed, 0.02, one_shard)

        async def manifest() -> str:
            keys = [ListedKey(LOG_USE, signer.verifier_key.public)]
            root = Signer(f"{LOG}/root", Ed25519PrivateKey.generate())
            witnesses = [client.key for client in clients]
            return sign_manifest(Manifest(LOG, root.verifier_key, keys, witnesses, len(witnesses)), [root])

        reader = Store(api, "audit", Clock())
        alarms = Alarms(reader, metrics)
        cosigners = Cosigners(role, checkpointer, clients, metrics, manifest, alarms.note)
        tasks = [asyncio.create_task(each.run()) for each in (checkpointer, cosigners, alarms)]
        relaying = database.role("audit_relay")
        relay = Relay(relaying, "audit", OwnLog(reader, log).append)
        try:
            yield Running(log, reader, checkpointer, cosigners, metrics, signer, database, opening, alarms, relay)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await cosigners.close()
    for each in (role, api, relaying):
        await each.close()


def client_of(witness: WitnessProcess, key: WitnessKey | None = None) -> WitnessClient:
    return WitnessClient(key or witness.key, witness.url, witness.ca.cert_file)


@pytest.fixture
def signer() -> Signer:
    return Signer(LOG, Ed25519PrivateKey.generate())


@pytest.fixture
def witnesses(tmp_path: Path, signer: Signer) -> Iterator[list[WitnessProcess]]:
    """Two witnesses of the log, of two operators."""
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    vkeys = [signer.verifier_key.text()]
    with running_witness(folders[0], vkeys) as one, running_witness(folders[1], vkeys, "other.local.invalid") as two:
        yield [one, two]


async def test_the_newest_checkpoint_is_cosigned_and_an_offline_verifier_says_so(
    database: TestDatabase, tmp_path: Path, signer: Signer, witnesses: list[WitnessProcess]
) -> None:
    keys = [each.key for each in witnesses]
    async with running(database, tmp_path, signer, [client_of(each) for each in witnesses]) as log:
        for _ in range(3):
            note = await log.note(await log.append(), 2, keys)
        trust = trusted([signer.verifier_key.text()], [key.text() for key in keys], [])
        assert set(verified_head(note, trust).cosigned) == {key.name for key in keys}
        assert verified_head(note, trust).size >= 3
        # What nobody asks to be cosigned carries the log's own line.
        assert len((await log.note(await log.append())).rpartition("\n\n")[2].splitlines()) == 1


async def test_while_a_witness_is_down_only_what_needs_it_waits_and_it_recovers_by_itself(
    database: TestDatabase, tmp_path: Path, signer: Signer, witnesses: list[WitnessProcess]
) -> None:
    one, two = witnesses
    keys = [one.key, two.key]
    async with running(database, tmp_path, signer, [client_of(each) for each in witnesses]) as log:
        await log.note(await log.append(), 2, keys)
        await asyncio.to_thread(two.kill)
        waiting = await log.append()
        assert await log.note(waiting)
        assert await log.note(waiting, 1, keys)
        with pytest.raises(Unavailable, match="1 of 2 witnesses") as pending:
            await log.note(waiting, 2, keys)
        assert pending.value.reason == Reason.ERROR_REASON_CHECKPOINT_PENDING
        assert dict(pending.value.metadata) | {"index": ""} == {"index": "", "cosigned": "1", "quorum": "2"}
        assert log.failures(two.key) > 0
        assert log.failures(one.key) == 0
        for _ in range(5):
            await log.note(await log.append(), 1, keys)

        async def shown() -> bool | None:
            return log.waiting_seconds() > 0 or None

        await soon(shown)
        await asyncio.to_thread(two.start)

        async def final() -> str | None:
            try:
                return await log.note(waiting, 2, keys)
            except Unavailable:
                return None

        assert await soon(final)

        async def over() -> bool | None:
            return log.waiting_seconds() == 0 or None

        await soon(over)


async def test_what_another_key_cosigned_is_never_kept(
    database: TestDatabase, tmp_path: Path, signer: Signer, witnesses: list[WitnessProcess]
) -> None:
    one, two = witnesses
    async with running(database, tmp_path, signer, [client_of(one, two.key)]) as log:
        await log.append()

        async def failed() -> bool | None:
            return log.failures(two.key) >= 2 or None

        await soon(failed)
        assert await log.kept() == 0


@pytest.mark.parametrize(("shared", "seen"), [(0, 4), (3, 3)])
async def test_a_witness_that_saw_another_tree_cosigns_nothing_and_is_an_alarm(
    database: TestDatabase, tmp_path: Path, signer: Signer, witnesses: list[WitnessProcess], shared: int, seen: int
) -> None:
    """The log was set back, or forked: the witness has seen more of it, or other things from some leaf on."""
    one, two = witnesses
    other = GrowingLog(signer, origin=LOG)
    async with running(database, tmp_path, signer, [client_of(one), client_of(two)]) as log:
        if shared:
            for _ in range(shared):
                await log.note(await log.append())
            await log.cosigned(one.key, shared)
            await asyncio.to_thread(one.kill)
            forked(one, other.note(seen))
            await asyncio.to_thread(one.start)
        else:
            await asyncio.to_thread(one.cosigned, other.submission(0, seen))
        # Smaller than what it saw, of the same size, and larger: each is refused in another way, the first one tells.
        for size in range(shared + 1, 6):
            await log.note(await log.append())
            before = log.failures(one.key)

            async def failed(seen: float = before) -> bool | None:
                return log.failures(one.key) > seen or None

            if size in (2, 4, 5):
                await soon(failed)
            await log.cosigned(two.key, size)
        assert log.disagrees(one.key)
        assert not log.disagrees(two.key)
        (alarm,) = await log.alarmed()
        told = {"kind": "WITNESS_DISAGREES", "witness": one.key.name, "shard": "0", "witness_size": str(seen)}
        assert alarm.items() >= told.items()
        assert int(alarm["size"]) <= 5
        assert 'recoup_audit_alarms{kind="WITNESS_DISAGREES"} 1' in log.metrics.render()


async def test_a_witness_that_lost_its_state_or_has_an_older_one_is_brought_the_newest_and_is_no_alarm(
    database: TestDatabase, tmp_path: Path, signer: Signer, witnesses: list[WitnessProcess]
) -> None:
    one = witnesses[0]
    async with running(database, tmp_path, signer, [client_of(one)]) as log:
        for _ in range(3):
            await log.note(await log.append(), 1, [one.key])
        (state,) = one.state.glob("*.json")
        for earlier in (state.read_text(), None):
            for _ in range(2):
                await log.note(await log.append(), 1, [one.key])
            await asyncio.to_thread(one.kill)
            state.unlink()
            if earlier is not None:
                state.write_text(earlier)
            await asyncio.to_thread(one.start)
            await log.append()
            await log.cosigned(one.key, log.counter)
        assert not log.disagrees(one.key)
        assert await log.alarmed() == []


async def test_two_processes_that_bring_one_witness_the_same_tree_are_no_alarm(
    database: TestDatabase, tmp_path: Path, signer: Signer, witnesses: list[WitnessProcess]
) -> None:
    """As while a new version takes over from the old one: the witness is ahead of either, or behind."""
    one = witnesses[0]
    async with running(database, tmp_path, signer, [client_of(one), client_of(one)]) as log:
        for _ in range(30):
            await log.note(await log.append())
        await log.cosigned(one.key, log.counter)
        assert not log.disagrees(one.key)
        assert await log.alarmed() == []


async def test_a_witness_ahead_of_the_checkpoint_at_hand_is_brought_the_newer_one(
    database: TestDatabase, tmp_path: Path, signer: Signer, witnesses: list[WitnessProcess]
) -> None:
    one = witnesses[0]
    async with running(database, tmp_path, signer, [client_of(one)]) as log:
        for _ in range(3):
            await log.note(await log.append(), 1, [one.key])
        late = client_of(one)
        # As a process does that read its checkpoint before the others brought newer ones.
        follower = _Follower(late, log.cosigners, log.metrics)
        async with log.reader.read(ACME) as connection:
            oldest = await store.find_checkpoint_between(connection, 0, 0, 3, newest=False)
        assert oldest is not None
        assert oldest.size < log.counter
        assert await follower._cosign(oldest) is None
        await late.close()
        assert log.failures(one.key) == 0
        assert await log.alarmed() == []


async def test_a_witness_that_saw_what_a_recovery_gave_up_cosigns_the_next_shard(
    database: TestDatabase, tmp_path: Path, signer: Signer, witnesses: list[WitnessProcess]
) -> None:
    """The database was put back, the root has authorised the loss: the old shard must not hold up the new one."""
    one = witnesses[0]
    async with running(database, tmp_path, signer, [client_of(one)]) as log:
        await log.note(await log.append(), 1, [one.key])
        await asyncio.to_thread(one.kill)
        await log.note(await log.append())
        forked(one, GrowingLog(signer, origin=LOG).note(5))
        origin, place = f"{LOG}/1", place_of(1, 1)
        superuser = await database.superuser()
        for statement in (
            "UPDATE audit.shards SET closed_size = 2 WHERE shard = 0",
            f"INSERT INTO audit.shards (shard, origin, kind, opened_at) VALUES (1, '{origin}', 'RECOVERY', now())",
            f"UPDATE audit.head SET size = {place}",
        ):
            await superuser.execute(statement)
        await superuser.close()
        head = TreeHead(origin, 1, bytes(32))
        note = Signer(origin, signer._key).sign(head.text())
        role = database.role("audit_sequencer", 1)
        async with role.unscoped() as connection:
            await store.insert_checkpoint(connection, Checkpoint(1, 1, head.root, note, Clock().wall_now()))
        await role.close()
        await asyncio.to_thread(one.start)
        await log.cosigned(one.key, place)
        assert not log.disagrees(one.key)
        assert log.alarms.waiting == 0
        assert 'recoup_audit_alarms{kind="WITNESS_DISAGREES"} 0' in log.metrics.render()


def forked(witness: WitnessProcess, note: str) -> None:
    """Have a witness's state hold another tree's checkpoint, as if it had been brought that one meanwhile."""
    (state,) = witness.state.glob("*.json")
    head = TreeHead.parse(Note.parse(note).text)
    content = {"origin": head.origin, "size": head.size, "root": head.root.hex(), "note": note}
    state.write_text(json.dumps(content))
