"""The log and its witnesses, real processes on a real database: what is final, what waits, what never counts."""

from __future__ import annotations

import asyncio
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
from services._mesh.uow import Store
from services.audit import usecases
from services.audit.checkpointer import Checkpointer
from services.audit.cosigners import Cosigners
from services.audit.model.cosigning import WitnessKey
from services.audit.model.events import Produced
from services.audit.model.manifest import LOG as LOG_USE
from services.audit.model.manifest import ListedKey, Manifest, sign_manifest
from services.audit.model.notes import Signer
from services.audit.model.signing import OfferedHead, SignedHead
from services.audit.opener import Opener
from services.audit.sequencer import Sequencer
from services.audit.signer_state import SignerState
from services.audit.usecases import Quorum
from services.audit.witness_client import WitnessClient
from tests.support.log import ACME, LOG, event, one_shard, opener, sequencer
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
        _, head = await usecases.prove_events(
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
        return usecases.sign_checkpoint(signer, state, LOG, head.size, head.root, head.from_size, head.proof)

    async def last_signed(shard: int) -> SignedHead:
        return state.head

    async with sequencer(database) as log, opener(database) as opening:
        checkpointer = Checkpointer(role, log, Clock(), sign, last_signed, 0.02, one_shard)

        async def manifest() -> str:
            keys = [ListedKey(LOG_USE, signer.verifier_key.public)]
            root = Signer(f"{LOG}/root", Ed25519PrivateKey.generate())
            witnesses = [client.key for client in clients]
            return sign_manifest(Manifest(LOG, root.verifier_key, keys, witnesses, len(witnesses)), [root])

        cosigners = Cosigners(role, checkpointer, clients, metrics, manifest)
        tasks = [asyncio.create_task(each.run()) for each in (checkpointer, cosigners)]
        try:
            reader = Store(api, "audit", Clock())
            yield Running(log, reader, checkpointer, cosigners, metrics, signer, database, opening)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await cosigners.close()
    await role.close()
    await api.close()


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


async def test_a_witness_that_saw_another_log_under_this_key_cosigns_nothing(
    database: TestDatabase, tmp_path: Path, signer: Signer, witnesses: list[WitnessProcess]
) -> None:
    """The log was set back, or forked: the witness has seen more of it, or other things."""
    one = witnesses[0]
    await asyncio.to_thread(one.cosigned, GrowingLog(signer, origin=LOG).submission(0, 4))
    async with running(database, tmp_path, signer, [client_of(one)]) as log:
        for size in range(1, 7):
            await log.note(await log.append())
            before = log.failures(one.key)

            async def failed(seen: float = before) -> bool | None:
                return log.failures(one.key) > seen or None

            if size in (2, 4, 6):
                await soon(failed)
        assert await log.kept() == 0
