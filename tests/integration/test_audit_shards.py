"""Shards at the year's turn: the new one commits to the old one's last head, which stays provable and takes no more."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest

from services._mesh.clock import Clock
from services._mesh.context import entered
from services._mesh.errors import NotFound, Unavailable, WrongState
from services._mesh.reconcile import Reconciler
from services._mesh.relay import Relay
from services._mesh.uow import PLATFORM, Store
from services.audit import proving, store, usecases
from services.audit.checkpointer import Checkpointer
from services.audit.model import merkle
from services.audit.model.alarms import Alarm
from services.audit.model.events import Produced, Proven
from services.audit.model.notes import Signer, TreeHead, verify
from services.audit.model.openings import checkpoint_sha256
from services.audit.model.shards import origin_of, place_of
from services.audit.model.signing import OfferedHead, Opening, SignedHead
from services.audit.model.visibility import EVERYTHING
from services.audit.opener import Opener
from services.audit.own_log import OwnLog
from services.audit.sequencer import Sequencer
from services.audit.shard_signing import ShardSigner
from services.audit.signer_memory import SignerMemory
from tests.support.log import ACME, KEY, LOG, OriginSigner, checkpointer, event, opener, sequencer
from tests.support.postgres import TestDatabase
from tests.support.things import MovableClock, context

pytestmark = pytest.mark.services("audit")


@dataclass
class Turned:
    """A log whose clock can be moved, with its signer."""

    log: Sequencer
    checkpointer: Checkpointer
    clock: MovableClock
    reader: Store
    opener: Opener
    relay: Relay
    reconciler: Reconciler
    alarms: list[Alarm]
    folder: Path

    async def prove(self, *events: Produced, view: Collection[str] = EVERYTHING) -> list[Proven]:
        """Events of Acme's, proven, and each proof checked against its own shard's checkpoint."""
        with entered(context(ACME)):
            ids = [each.event_id for each in events]
            found, _ = await proving.prove_events(self.reader, self.opener, self.checkpointer, ids, view=view)
        for each in found:
            assert each.head is not None
            key = Signer(origin_of(LOG, each.event.shard), KEY).verifier_key
            head = TreeHead.parse(verify(each.head.note, key))
            leaf = merkle.leaf_hash(each.event.leaf)
            merkle.verify_inclusion(leaf, each.event.index, head.size, each.proof, head.root)
        return found


@pytest.fixture
async def turned(database: TestDatabase, tmp_path: Path) -> AsyncIterator[Turned]:
    clock, alarms = MovableClock(), list[Alarm]()
    api, relaying = database.role("audit_api"), database.role("audit_relay")
    reader = Store(api, "audit", Clock())
    async with (
        sequencer(database, alarms.append, clock) as log,
        checkpointer(database, log, tmp_path) as signing,
        opener(database) as opening,
    ):
        own = OwnLog(reader, log)
        yield Turned(
            log,
            signing,
            clock,
            reader,
            opening,
            Relay(relaying, "audit", own.append),
            Reconciler(relaying, "audit", own),
            alarms,
            tmp_path,
        )
    for role in (api, relaying):
        await role.close()


async def test_only_what_is_in_the_view_is_proved(turned: Turned) -> None:
    both = [event(1, action="identity.role.create"), event(2)]
    await usecases.append_events(turned.log, "identity", both)
    assert len(await turned.prove(*both)) == 2
    assert len(await turned.prove(both[1], view=("identity.member.",))) == 1
    for hidden in both, both[:1]:
        with pytest.raises(NotFound):
            await turned.prove(*hidden, view=("identity.member.",))


async def test_at_the_years_turn_a_new_shard_continues_the_old_one(turned: Turned, database: TestDatabase) -> None:
    old = [event(n) for n in range(1, 6)]
    assert await usecases.append_events(turned.log, "identity", old) == list(range(5))
    turned.clock.ahead = timedelta(days=366)
    new = [event(n) for n in range(6, 9)]
    # The first leaf is the opening's, before whatever waits.
    assert await usecases.append_events(turned.log, "identity", new) == [place_of(1, n) for n in (1, 2, 3)]
    found = await turned.prove(*old, *new)
    assert [(each.event.shard, each.event.index) for each in found] == [
        *((0, n) for n in range(5)),
        (1, 1),
        (1, 2),
        (1, 3),
    ]
    # The organization's chain goes on.
    assert [each.event.organization_seq for each in found] == list(range(1, 9))
    previous = merkle.leaf_hash(found[4].event.leaf).hex()
    assert json.loads(found[5].event.leaf)["prev_leaf"] == previous
    async with turned.reader.read(PLATFORM) as connection:
        sealed = await store.get_first(connection, 1)
        last = await store.find_checkpoint(connection, 0)
        shards = await store.list_shards(connection)
    assert last is not None
    assert last.size == 5
    (opening,) = await turned.opener.open([sealed])
    assert json.loads(opening.payload)["metadata"] == {
        "kind": "YEARLY",
        "shard": "1",
        "origin": f"{LOG}/1",
        "previous_origin": LOG,
        "previous_size": "5",
        "previous_root": last.root.hex(),
        "previous_checkpoint_sha256": checkpoint_sha256(last.note),
    }
    assert [(shard.shard, shard.origin, shard.closed_size) for shard in shards] == [(0, LOG, 5), (1, f"{LOG}/1", None)]
    # The relay finds its event in the log, and nothing is missing in anybody's eyes.
    await turned.relay.round()
    assert await turned.reconciler.round() == []
    assert turned.alarms == []
    with entered(context(ACME)):
        assert (await usecases.get_checkpoint(turned.reader, 0)).size == 5
        assert await usecases.get_consistency_proof(turned.reader, 3, 5, 0)
    # Another year, another shard.
    turned.clock.ahead = timedelta(days=2 * 366)
    assert await usecases.append_events(turned.log, "identity", [event(9)]) == [place_of(2, 1)]


async def test_events_of_the_log_that_wait_at_the_turn_are_no_gap(turned: Turned) -> None:
    await usecases.append_events(turned.log, "identity", [event(1)])
    for _ in range(3):
        async with turned.reader.begin(PLATFORM) as work:
            work.emit("audit.test.wait", "x")
    turned.clock.ahead = timedelta(days=366)
    assert await usecases.append_events(turned.log, "identity", [event(2)]) == [place_of(1, 1)]
    async with turned.reader.begin(PLATFORM) as work:
        work.emit("audit.test.wait", "x")
    while await turned.relay.round():
        pass
    assert await turned.reconciler.round() == []
    assert turned.alarms == []


async def test_a_turn_that_was_cut_short_is_gone_on_with(
    turned: Turned, database: TestDatabase, tmp_path: Path
) -> None:
    await usecases.append_events(turned.log, "identity", [event(1)])
    turned.clock.ahead = timedelta(days=366)
    assert turned.log.turning is not None
    sign_last = turned.log.turning._sign_last

    async def away(shard: int) -> SignedHead:
        raise Unavailable(0, "the signer is away")  # type: ignore[arg-type]

    turned.log.turning._sign_last = away
    late = event(2)
    for _ in range(2):
        with pytest.raises(Unavailable):
            await usecases.append_events(turned.log, "identity", [late])
    superuser = await database.superuser()
    assert await superuser.fetchval("SELECT count(*) FROM audit.entries_s1") == 0
    assert await superuser.fetchval("SELECT count(*) FROM audit.shards") == 2
    await superuser.close()
    # Another process takes over in the middle of it.
    turned.log.turning._sign_last = sign_last
    async with sequencer(database, clock=turned.clock) as second:
        second.turning = turned.log.turning
        assert await usecases.append_events(second, "identity", [late]) == [place_of(1, 1)]
    superuser = await database.superuser()
    assert await superuser.fetchval("SELECT count(*) FROM audit.outbox WHERE action = 'audit.shard.open'") == 1
    await superuser.close()


async def test_the_signer_opens_a_shard_only_from_what_it_signed_itself(turned: Turned) -> None:
    await usecases.append_events(turned.log, "identity", [event(1), event(2)])
    turned.clock.ahead = timedelta(days=366)
    await usecases.append_events(turned.log, "identity", [made := event(3)])
    await turned.prove(made)
    async with turned.reader.read(PLATFORM) as connection:
        sealed, head = await store.get_first(connection, 1), await store.find_checkpoint(connection, 1)
        assert head is not None
        ranges = merkle.inclusion_ranges(0, head.size)
        proof = merkle.hash_ranges(ranges, await store.read_ranges(connection, 1, ranges))
    (opening,) = await turned.opener.open([sealed])
    shown = Opening(opening.leaf, opening.payload, opening.salt, proof)
    good = OfferedHead(1, head.size, head.root, 0, [], shown)

    def signer(signed: SignedHead, opened: int = 0) -> ShardSigner:
        """A signer that remembers `signed` of the first shard, which was opened in a year; by default this year's."""
        folder = turned.folder / f"{signed.size}-{signed.root[:2].hex()}-{len(list(turned.folder.iterdir()))}"
        folder.mkdir()
        memory = SignerMemory(folder / "signed.json")
        memory.of(0).opened = opened or Clock().now().year
        if signed.size:
            memory.of(0).remember(signed)
        return ShardSigner(LOG, OriginSigner(), memory, None, turned.clock)

    last = SignerMemory(turned.folder / "signed.json").of(0).head
    assert last.size == 2
    assert signer(last).sign(good) == head.note
    for signed in (replace(last, size=1), replace(last, root=bytes(32)), replace(last, note="x\n\n"), SignedHead()):
        with pytest.raises(WrongState, match="Not signed"):
            signer(signed).sign(good)
    other = opening.payload.replace(b'"YEARLY"', b'"YEARLX"')
    for wrong in (
        replace(good, opening=None),
        replace(good, shard=2),
        replace(good, opening=replace(shown, payload=other)),
        replace(good, opening=replace(shown, salt=bytes(32))),
        replace(good, opening=replace(shown, proof=[])),
        replace(good, root=bytes(32)),
    ):
        with pytest.raises(WrongState, match="Not signed"):
            signer(last).sign(wrong)
    # Without the root's word only at a year's turn, whatever the leaf says of the time.
    early = signer(last, turned.clock.now().year)
    for _ in range(2):
        with pytest.raises(WrongState, match="its year isn't over"):
            early.sign(good)
    assert early.memory.newest == 0
    assert early.memory.of(1).head == SignedHead()
    # Once the new shard has a head, the old one gets none any more.
    opened = signer(last)
    opened.sign(good)
    with pytest.raises(WrongState, match="shard 0 is closed"):
        opened.sign(OfferedHead(0, last.size, last.root, last.size, []))
    # Its memory outlives it.
    assert SignerMemory(opened.memory._path).newest == 1
