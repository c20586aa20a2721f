"""A database that was put back: the signer refuses it and says where; a recovery states what is lost and goes on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services._mesh.clock import Clock
from services._mesh.uow import PLATFORM, Store
from services.audit import store, usecases
from services.audit.model import merkle
from services.audit.model.alarms import Alarm, AlarmKind
from services.audit.model.notes import Signer, TreeHead, verify
from services.audit.model.shards import origin_of, place_of
from services.audit.model.signing import SignedHead
from services.audit.recover import CannotRecover, Recovery
from services.audit.refusals import Refusals
from services.audit.signer_memory import SignerMemory
from tests.support import log as support
from tests.support.log import KEY, LOG, checkpointer, event, opener, sequencer
from tests.support.postgres import TestDatabase, _create, drop

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
    older = replace(last, size=2, note=last.note.replace("\n5\n", "\n2\n"))
    with pytest.raises(CannotRecover, match="only 2 were signed"):
        await recovery.statement(older.note)
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
        (found,), head = await usecases.prove_events(reader, opening, signing, [again.event_id], support.ACME)
        tree = TreeHead.parse(verify(head.note, Signer(origin_of(LOG, 1), KEY).verifier_key))
        merkle.verify_inclusion(merkle.leaf_hash(found.event.leaf), 1, tree.size, found.proof, tree.root)
    with pytest.raises(CannotRecover, match="was signed last"):
        await recovery.statement(last.note)
    for each in (role, api):
        await each.close()
    await drop(backup)
