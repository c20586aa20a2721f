"""A database that was put back: the signer refuses it and says where; a recovery states what is lost and goes on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services._mesh.clock import Clock
from services._mesh.errors import Problem
from services._mesh.uow import PLATFORM, Store
from services.audit import proving, store, usecases
from services.audit.model import merkle
from services.audit.model.alarms import Alarm, AlarmKind
from services.audit.model.notes import Signer, TreeHead, verify
from services.audit.model.progress import Scope
from services.audit.model.shards import origin_of, place_of
from services.audit.model.signing import SignedHead
from services.audit.recover import CannotRecover, Recovery
from services.audit.refusals import Refusals
from services.audit.signer_memory import SignerMemory
from tests.support import log as support
from tests.support.log import KEY, LOG, checkpointer, event, opener, recorded, sequencer
from tests.support.postgres import TestDatabase, _create, drop
from tests.support.sharded_log import ROOT as SHARDS_ROOT
from tests.support.sharded_log import ShardedLog, sharded_log
from tests.support.tampering import as_superuser, rewrite

pytestmark = pytest.mark.services("audit")
ROOT = Signer(f"{LOG}/root", Ed25519PrivateKey.generate())


async def test_where_the_log_differs_from_what_was_signed_is_found(database: TestDatabase) -> None:
    async with sequencer(database) as log:
        await usecases.append_events(log, "identity", [event(n) for n in range(1, 21)])
    role = database.role("audit_sequencer")
    superuser = await database.superuser()
    async with role.unscoped() as connection:
        nodes = await store.read_nodes(connection, 0, merkle.peaks(5))
    right = merkle.root_of([nodes[node] for node in merkle.peaks(5)])
    wrong = bytes(32)
    for size, root in ((5, right), (9, wrong), (12, wrong), (16, wrong)):
        await superuser.execute("INSERT INTO audit.checkpoints VALUES ($1, $2, 'note', now())", size, root)
    await superuser.close()
    noted: list[Alarm] = []
    refusals = Refusals(role, noted.append)
    assert await refusals.locate(0, 20, SignedHead(16, wrong)) == (5, 9)
    assert await refusals.locate(0, 20, SignedHead(5, right)) == (5, 5)
    for _ in range(2):
        await refusals.tell(0, 20, SignedHead(16, wrong))
    (alarm,) = noted
    assert (alarm.kind, alarm.organization_id) == (AlarmKind.SIGNER_REFUSED, PLATFORM)
    assert alarm.metadata == {
        "shard": "0",
        "size": "20",
        "signed_size": "16",
        "first_index": "5",
        "before_index": "9",
    }
    await role.close()


async def test_a_restored_log_is_refused_and_goes_on_in_a_new_shard(database: TestDatabase, tmp_path: Path) -> None:
    lost = [event(n) for n in (4, 5)]
    async with sequencer(database) as log, checkpointer(database, log, tmp_path) as signing:
        places = await usecases.append_events(log, "identity", [event(n) for n in (1, 2, 3)])
        await signing.wait_for(places[-1])
    early = SignerMemory(tmp_path / "signed.json").of(0).head
    backup = await _create(database.handle, database.name)
    support._keys[backup.name] = support._keys[database.name]
    async with sequencer(database) as log, checkpointer(database, log, tmp_path) as signing:
        await signing.wait_for((await usecases.append_events(log, "identity", lost))[-1])
    last = SignerMemory(tmp_path / "signed.json").of(0).head
    assert last.size == 5

    # The database is put back to the older day. Its head is refused, and the first missing index named.
    noted: list[Alarm] = []
    role, api = backup.role("audit_sequencer"), backup.role("audit_api")
    async with sequencer(backup) as log, checkpointer(backup, log, tmp_path) as signing:
        signing.refused = Refusals(role, noted.append).tell
        with pytest.raises(Exception, match="an older log was put back"):
            await signing.sign_now()
    assert {(each.metadata["first_index"], each.metadata["signed_size"]) for each in noted} == {("3", "5")}

    # The root authorises this recovery and no other.
    recovery = Recovery(role, Store(api, "audit", Clock()), LOG, Clock())
    text = await recovery.statement(last.note)
    assert f"opens {LOG}/1\nsigned {LOG} 5 " in text
    assert text.endswith("\nlost 3 5\n")
    statement, key = ROOT.sign(text), ROOT.verifier_key
    stranger = Signer(f"{LOG}/root", Ed25519PrivateKey.generate())
    for wrong in (stranger.sign(text), ROOT.sign(text.replace("lost 3", "lost 4")), text):
        with pytest.raises(CannotRecover, match="statement"):
            await recovery.open(last.note, wrong, key)
    with pytest.raises(CannotRecover, match="give the newest note"):
        await recovery.statement(early.note)
    assert await recovery.open(last.note, statement, key) == 1
    assert await recovery.open(last.note, statement, key) == 1  # As after a crash.

    # A signer that doesn't know the root, or knows another, opens nothing.
    async with sequencer(backup) as log, checkpointer(backup, log, tmp_path, stranger.verifier_key) as signing:
        again = event(4)
        assert await usecases.append_events(log, "identity", [again]) == [place_of(1, 1)]
        with pytest.raises(Exception, match="isn't authorised by"):
            await signing.sign_now()
    async with (
        sequencer(backup) as log,
        checkpointer(backup, log, tmp_path, key) as signing,
        opener(backup) as opening,
    ):
        await signing.wait_for(place_of(1, 1))
        reader = Store(api, "audit", Clock())
        async with reader.read(PLATFORM) as connection:
            (first,) = await opening.open([await store.get_first(connection, 1)])
        said = json.loads(first.payload)["metadata"]
        assert (said["kind"], said["restored_size"], said["previous_size"]) == ("RECOVERY", "3", "5")
        assert said["statement"] == statement
        (found,), head = await proving.prove_events(reader, opening, signing, [again.event_id], support.ACME)
        tree = TreeHead.parse(verify(head.note, Signer(origin_of(LOG, 1), KEY).verifier_key))
        merkle.verify_inclusion(merkle.leaf_hash(found.event.leaf), 1, tree.size, found.proof, tree.root)
    with pytest.raises(CannotRecover, match="was signed last"):
        await recovery.statement(last.note)
    for each in (role, api):
        await each.close()
    await drop(backup)


async def test_a_database_from_before_the_newest_shard_goes_on_after_what_was_signed_last(tmp_path: Path) -> None:
    """Restored to the first shard, when the third was open: what is lost goes over shards, and one is lost whole."""
    async with sharded_log(tmp_path, 1) as log:
        backup, counters = await log.backup(), log.counters
        for _ in range(2):
            await log.turn()
            await log.grow(1)
        memory = log.memory
        assert memory.newest == 2
        await log.put_back(backup, counters)
        older = await log.backup()
        role, api = log.database.role("audit_sequencer", 1), log.database.role("audit_api", 1)
        recovery = Recovery(role, Store(api, "audit", log.clock), LOG, log.clock)
        with pytest.raises(CannotRecover, match="is no shard of"):
            await recovery.statement(memory.of(2).head.note.replace(f"{LOG}/2", f"{LOG}/x"))

        # A note that isn't the newest opens a shard that the signer refuses: it signed one of that number.
        other = replace(log, database=older)
        note = memory.of(1).head.note
        assert await _opened(other, note) == 2
        with pytest.raises(Exception, match="an older log was put back"):
            await _signed(other)
        await drop(older)

        text = await recovery.statement(memory.of(2).head.note)
        last = memory.of(2).head
        assert text.split("\n")[1:3] == ["recoup-recovery/v2", f"opens {LOG}/3"]
        assert text.endswith(f"\nlost {LOG} 6 {LOG}/2 {last.size}\n")
        for wrong in (text.replace(f"lost {LOG} 6", f"lost {LOG} 5"), text.replace("/v2", "/v1")):
            with pytest.raises(CannotRecover, match="authorises another recovery"):
                await recovery.open(last.note, SHARDS_ROOT.sign(wrong), SHARDS_ROOT.verifier_key)
        for _ in range(2):  # As after a crash.
            assert await recovery.open(last.note, SHARDS_ROOT.sign(text), SHARDS_ROOT.verifier_key) == 3
        await log.grow()
        assert log.memory.newest == 3
        superuser = await log.database.superuser()
        rows = await superuser.fetch("SELECT shard, kind, closed_size FROM audit.shards ORDER BY 1")
        async with role.unscoped() as connection:
            assert [await store.was_given_up(connection, shard) for shard in range(4)] == [True, True, True, False]
        assert [tuple(row) for row in rows] == [(0, "FIRST", 6), (1, "LOST", 0), (2, "LOST", 0), (3, "RECOVERY", None)]
        await superuser.close()
        async with opener(log.database) as opening:
            reader = Store(api, "audit", Clock())
            async with reader.read(PLATFORM) as connection:
                (first,) = await opening.open([await store.get_first(connection, 3)])
        said = json.loads(first.payload)["metadata"]
        assert (said["restored_origin"], said["restored_size"]) == (LOG, "6")
        assert (said["previous_origin"], said["previous_size"]) == (f"{LOG}/2", str(last.size))
        # The self-check knows what was given up, and what wasn't.
        async with log.checker() as checker:
            assert (await checker.check(Scope.FULL, keep=False)).faults == ()
            await as_superuser(log.database, "UPDATE audit.shards SET closed_size = 5 WHERE shard = 0")
            assert (await checker.check(Scope.FULL, keep=False)).faults[0].field == "shards.closed_size"
        for each in (role, api):
            await each.close()


async def test_a_recovery_that_was_lost_itself_is_recovered_from(tmp_path: Path) -> None:
    """Put back to the moment in which the recovery's shard was still empty, though the signer has signed it since."""
    async with sharded_log(tmp_path, 1) as log:
        before, counters = await log.backup(), log.counters
        await log.grow(1)
        await log.put_back(before, counters)
        assert await log.recover() == 1
        empty = await log.backup()
        await log.grow()
        assert log.memory.newest == 1
        await log.put_back(empty, counters)
        assert await log.recover() == 2
        await log.grow()
        assert log.memory.newest == 2
        async with log.checker() as checker:
            assert (await checker.check(Scope.FULL, keep=False)).faults == ()


async def test_a_database_that_went_on_beyond_what_was_signed_is_recovered_from(tmp_path: Path) -> None:
    """Put back and left running: it has more leaves than were signed, and none of the later ones is ever proven."""
    async with sharded_log(tmp_path, 1) as log:
        backup, counters = await log.backup(), log.counters
        await log.grow(1)
        last = log.memory.of(0).head
        assert last.size == 9
        await log.put_back(backup, counters)
        more = [event(2 * counters + n) for n in range(1, 6)]
        async with sequencer(log.database, clock=log.clock) as appending:
            await usecases.append_events(appending, "identity", more)
        await _recovered(log, last, 6, 11, more[-1].event_id, "checkpoint")


async def test_a_rewritten_database_is_recovered_from_where_it_begins_to_differ(tmp_path: Path) -> None:
    async with sharded_log(tmp_path, 1) as log:
        (third,) = [each for each in await recorded(log.database) if each.place == 3]
        await rewrite(log.database, third.place)
        more = [event(2 * log.counters + 1)]
        async with sequencer(log.database, clock=log.clock) as appending:
            await usecases.append_events(appending, "identity", more)
        # The checkpoint of the rewritten leaf is still kept; no proof is given under it.
        await _recovered(log, log.memory.of(0).head, 3, 7, third.event_id, "isn't the one that was signed")


async def _recovered(log: ShardedLog, last: SignedHead, common: int, size: int, event_id: UUID, refused: str) -> None:
    """Recover, state what is lost and given up, and go on; the event, which is given up, isn't proven."""
    role, api = log.database.role("audit_sequencer", 1), log.database.role("audit_api", 1)
    recovery = Recovery(role, Store(api, "audit", log.clock), LOG, log.clock)
    text = await recovery.statement(last.note)
    lines = text.splitlines()
    assert (lines[1], lines[4]) == ("recoup-recovery/v3", f"lost {LOG} {common} {LOG} {last.size}")
    assert lines[5].startswith(f"given-up {LOG} {common} {size} ")
    for wrong in (common + 1, common - 1):
        bad = SHARDS_ROOT.sign(text.replace(f"{LOG} {common} {LOG}", f"{LOG} {wrong} {LOG}"))
        with pytest.raises(CannotRecover, match="authorises another recovery"):
            await recovery.open(last.note, bad, SHARDS_ROOT.verifier_key)
    for _ in range(2):  # As after a crash.
        assert await recovery.open(last.note, SHARDS_ROOT.sign(text), SHARDS_ROOT.verifier_key) == 1
    log.counters += 3
    await log.grow()
    assert log.memory.newest == 1
    async with (
        sequencer(log.database, clock=log.clock) as appending,
        checkpointer(log.database, appending, log.folder, SHARDS_ROOT.verifier_key) as signing,
        opener(log.database) as opening,
    ):
        await signing.sign_now()
        reader = Store(api, "audit", Clock())
        with pytest.raises(Problem, match=refused):
            await proving.prove_events(reader, opening, signing, [event_id], support.ACME)
    # What was given up is stated, and no fault; every other row is still held against what was signed.
    async with log.checker() as checker:
        assert (await checker.check(Scope.FULL, keep=False)).faults == ()
        assert (await checker.check(Scope.RECENT, keep=False)).faults == ()
        await as_superuser(log.database, f"UPDATE audit.checkpoints SET root = sha256('x') WHERE size = {common}")
        assert (await checker.check(Scope.FULL, keep=False)).faults[0].field == "checkpoints.root"
    for each in (role, api):
        await each.close()


async def _opened(log: ShardedLog, note: str) -> int:
    role, api = log.database.role("audit_sequencer", 1), log.database.role("audit_api", 1)
    recovery = Recovery(role, Store(api, "audit", log.clock), LOG, log.clock)
    statement = SHARDS_ROOT.sign(await recovery.statement(note))
    try:
        return await recovery.open(note, statement, SHARDS_ROOT.verifier_key)
    finally:
        await role.close()
        await api.close()


async def _signed(log: ShardedLog) -> None:
    async with (
        sequencer(log.database, clock=log.clock) as appending,
        checkpointer(log.database, appending, log.folder, SHARDS_ROOT.verifier_key) as signing,
    ):
        await usecases.append_events(appending, "identity", [event(log.counters * 2 + 1)])
        await signing.sign_now()
