"""A shard that ended with its year, archived, read back and detached: who looks for it is told, and no alarm stays.

The turn, the archiver, the relay and the script are the real ones.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from recoup_verify.evidence.bundle import check_evidence
from recoup_verify.log import Trust, parse_key
from services._mesh.clock import Clock
from services._mesh.context import entered
from services._mesh.errors import NotFound
from services._mesh.metrics import Metrics
from services._mesh.reconcile import Reconciler
from services._mesh.uow import PLATFORM
from services.audit import proving, usecases
from services.audit.control_watch import ControlWatch
from services.audit.model import merkle
from services.audit.model.alarms import Alarm
from services.audit.model.archive import bundle_object
from services.audit.model.events import Produced, Proven
from services.audit.model.evidence.export import EvidenceState
from services.audit.model.notes import Signer, TreeHead, verify
from services.audit.model.progress import Scope
from services.audit.model.shards import origin_of
from services.audit.model.tiles import Tile, read_bundle
from services.audit.own_log import OwnLog
from tests.support.archive import ArchivedLog, folder
from tests.support.erasing import Vault, vault
from tests.support.evidence import running
from tests.support.log import ACME, GLOBEX, KEY, LOG, checkpointer, event, recorded
from tests.support.postgres import ROOT as REPOSITORY
from tests.support.postgres import TestDatabase
from tests.support.sharded_log import ROOT, ShardedLog, sharded_log
from tests.support.tampering import as_superuser
from tests.support.things import context

SCRIPT = (REPOSITORY / "deploy" / "detach_shard.sql").read_text()


@dataclass
class Kept:
    """A log of three shards of which the first two are archived, and what stands in each."""

    log: ShardedLog
    archived: ArchivedLog
    archive: Path
    old: Produced
    new: Produced


async def relayed(audit: Vault) -> None:
    """Bring what waits in the log's own outbox into the log."""
    while await audit.relay.round():
        pass


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Kept]:
    async with sharded_log(tmp_path, 1) as log:
        made: list[Produced] = []
        for _ in range(3):
            # An event of the log's own in each shard, and one of Acme's, under a checkpoint.
            async with (
                vault(log.database) as audit,
                checkpointer(log.database, audit.log, log.folder, ROOT.verifier_key) as signing,
            ):
                async with audit.store.begin(PLATFORM) as work:
                    work.emit("audit.test.act", "x")
                await relayed(audit)
                made.append(event(log.counters + 100, action="scanner.scan.start", actor="process:scanner"))
                await usecases.append_events(audit.log, "scanner", [made[-1]])
                await signing.sign_now()
            if len(made) < 3:
                await log.turn()
                await log.grow(1)
        archived = ArchivedLog(log.database)
        archiver = archived.archiver(folder(tmp_path / "archive"))
        while await archiver.step():
            pass
        assert archiver.failures.value == 0
        async with vault(log.database) as audit:
            await relayed(audit)
        yield Kept(log, archived, tmp_path / "archive", made[0], made[2])
        await archived.close()


async def detach(database: TestDatabase, shard: int, login: str = "", *, given_up: bool = False) -> None:
    connection = await (database.login(login) if login else database.superuser())
    try:
        async with connection.transaction():
            if given_up:
                await connection.execute("SET LOCAL recoup.unread_receipts = 'given-up'")
            await connection.execute(SCRIPT.replace(":'shard'", f"'{shard}'"))
    finally:
        await connection.close()


async def bypasses(database: TestDatabase) -> list[tuple[str, str]]:
    alarms: list[Alarm] = []
    role = database.role("audit_checker", 1)
    found = await ControlWatch(role, Clock(), alarms.append, Metrics()).look()
    await role.close()
    assert len(alarms) == len(found)
    return [(each.control, each.what) for each in found]


async def faults(log: ShardedLog) -> list[str]:
    async with log.checker() as checker:
        return [each.field for each in (await checker.check(Scope.FULL, keep=False)).faults]


async def prove(audit: Vault, log: ShardedLog, organization: UUID, *ids: UUID) -> list[Proven]:
    async with checkpointer(log.database, audit.log, log.folder, ROOT.verifier_key) as signing:
        await signing.sign_now()
        with entered(context(organization)):
            found, _ = await proving.prove_events(audit.store, audit.opener, signing, ids)
    for each in found:
        assert each.head is not None
        head = TreeHead.parse(verify(each.head.note, Signer(origin_of(LOG, each.event.shard), KEY).verifier_key))
        merkle.verify_inclusion(merkle.leaf_hash(each.event.leaf), each.event.index, head.size, each.proof, head.root)
    return found


async def test_what_a_detached_shard_held_is_told_and_the_others_are_still_proven(kept: Kept) -> None:
    log = kept.log
    (stood,) = [each for each in await recorded(log.database) if each.event_id == kept.old.event_id]
    async with vault(log.database) as audit:
        assert len(await prove(audit, log, ACME, kept.old.event_id, kept.new.event_id)) == 2
    await detach(log.database, 0)
    said: set[str] = set()
    async with vault(log.database) as audit:
        await relayed(audit)
        (found,) = await prove(audit, log, ACME, kept.new.event_id)
        assert found.event.shard == 2
        # The same is said of what was detached, of another's and of what never was.
        for organization, ids in (
            (ACME, [kept.old.event_id]),
            (GLOBEX, [kept.old.event_id]),
            (ACME, [uuid4()]),
            (ACME, [kept.new.event_id, kept.old.event_id]),
        ):
            with pytest.raises(NotFound) as told:
                await prove(audit, log, organization, *ids)
            said.add(str(told.value))
        with entered(context(ACME)), pytest.raises(NotFound) as told:
            await usecases.get_event(audit.store, audit.opener, kept.old.event_id, ("",))
        said.add(str(told.value))
        with entered(context(ACME)), pytest.raises(NotFound) as told:
            await usecases.get_event(audit.store, audit.opener, kept.new.event_id, ("audit.",))  # Not in this view.
        said.add(str(told.value))
        (detached,) = await audit.own_events("audit.shard.detach", PLATFORM)
    assert said == {
        f"No such event. Those of {LOG} were taken out of the log's database: the operator's archive has their leaves."
    }
    # Whoever has the archive finds the leaf at its index.
    bundle = (kept.archive / bundle_object(LOG, Tile(0, 0, 8))).read_bytes()
    assert read_bundle(bundle)[stood.index] == stood.leaf
    assert (detached["target"], detached["actor"]) == ("shards/0", "process:operator")
    assert detached["metadata"].keys() == {"detached_at", "entries", "location", "origin", "payloads", "root"}
    assert (detached["metadata"]["entries"], detached["metadata"]["origin"]) == ("8", LOG)


async def test_evidence_is_made_while_what_was_detached_is_there_and_else_says_what_it_needs(kept: Kept) -> None:
    log = kept.log
    for shard in (0, 1):
        await detach(log.database, shard)
    begins = log.clock.now() - timedelta(days=1000)
    async with running(log.database, log.folder, log) as evidence:
        made = await evidence.make(await evidence.start(begins=begins, days=1000))
        assert made.state is EvidenceState.READY, made.problem
        path = evidence.tools.folder.file(ACME, made.export_id)
        proved = check_evidence(str(path), Trust.of(parse_key(evidence.root_key)))
        assert [head.shard for head in proved.heads] == [0, 1, 2]
        assert proved.claim["counts"]["disclosed"] == proved.claim["counts"]["events"] > 7
        superuser = await log.database.superuser()
        await superuser.execute("SET event_triggers = off")
        await superuser.execute("DROP TABLE audit.entries_s0, audit.payloads_s0")
        await superuser.close()
        failed = await evidence.make(await evidence.start(begins=begins, days=1000))
    assert failed.state is EvidenceState.FAILED
    assert f"stand in {LOG}, which the operator took out of the log's database" in failed.problem
    assert "have audit.entries_s0, audit.payloads_s0 restored" in failed.problem


async def test_a_shard_with_events_of_receipts_that_nobody_read_as_final_stays(kept: Kept) -> None:
    """What becomes of a receipt is decided before its events are out of the log's reach."""
    database, receipt = kept.log.database, (ACME, uuid4())
    superuser = await database.superuser()
    await superuser.execute(
        "SET event_triggers = off;"
        " CREATE TABLE actions.receipts (organization_id uuid, receipt_id uuid, event_ids uuid[]);"
        " CREATE TABLE actions.final_receipts (organization_id uuid, receipt_id uuid)"
    )
    await superuser.execute("INSERT INTO actions.receipts VALUES ($1, $2, $3)", *receipt, [kept.old.event_id])
    with pytest.raises(Exception, match="1 receipts have events in it and were never read as final"):
        await detach(database, 0)
    await superuser.execute("INSERT INTO actions.receipts VALUES ($1, $2, $3)", ACME, uuid4(), [kept.new.event_id])
    await superuser.execute("INSERT INTO actions.final_receipts VALUES ($1, $2)", *receipt)
    await superuser.close()
    await detach(database, 0)


async def test_an_announced_detach_raises_no_alarm_also_when_its_tables_are_dropped(kept: Kept) -> None:
    database = kept.log.database
    assert await bypasses(database) == []
    for shard in (0, 1):
        await detach(database, shard)
        assert await bypasses(database) == []  # The event is on its way.
        async with vault(database) as audit:
            await relayed(audit)
            relaying = database.role("audit_relay", 1)
            assert await Reconciler(relaying, "audit", OwnLog(audit.store, audit.log)).round() == []
            await relaying.close()
        assert await bypasses(database) == []
        assert await faults(kept.log) == []
        superuser = await database.superuser()
        await superuser.execute("SET event_triggers = off")
        await superuser.execute(f"DROP TABLE audit.entries_s{shard}, audit.payloads_s{shard}")
        await superuser.close()
        assert await bypasses(database) == []
        assert await faults(kept.log) == []
    await kept.log.grow(1)
    assert await faults(kept.log) == []


async def test_the_outbox_is_still_held_against_what_is_left(kept: Kept) -> None:
    """Of a detached shard's events the outbox knows that they were; a row that is missing is noticed all the same."""
    database = kept.log.database
    await detach(database, 0)
    await as_superuser(
        database,
        "DELETE FROM audit.outbox WHERE (organization_id, counter) ="
        f" (SELECT organization_id, min(counter) FROM audit.outbox WHERE organization_id = '{PLATFORM}' GROUP BY 1)",
    )
    async with vault(database) as audit:
        await relayed(audit)
        relaying = database.role("audit_relay", 1)
        (difference,) = await Reconciler(relaying, "audit", OwnLog(audit.store, audit.log)).round()
        await relaying.close()
    assert (difference.missing, difference.only_in_log, difference.only_in_outbox) == ((1,), (), ())


@pytest.mark.parametrize(
    "statements",
    [
        ("ALTER TABLE audit.entries DETACH PARTITION audit.entries_s0",),
        (
            "ALTER TABLE audit.entries DETACH PARTITION audit.entries_s0",
            "UPDATE audit.archive SET detached_at = now() WHERE shard = 0",
        ),
        ("DROP TABLE audit.entries_s0",),
    ],
)
async def test_a_detach_that_nobody_announced_is_a_bypass_and_a_fault(kept: Kept, statements: Sequence[str]) -> None:
    superuser = await kept.log.database.superuser()
    await superuser.execute("SET event_triggers = off")
    for statement in statements:
        await superuser.execute(statement)
    await superuser.close()
    assert await bypasses(kept.log.database) == [("partition", "audit.entries_s0")]
    assert await faults(kept.log) != []


async def test_shards_are_detached_in_their_order(kept: Kept) -> None:
    with pytest.raises(Exception, match="an older one is still there, and comes first"):
        await detach(kept.log.database, 1)
    await detach(kept.log.database, 0)
    await detach(kept.log.database, 1)
    state = await kept.archived.superuser("SELECT shard FROM audit.archive WHERE detached_at IS NOT NULL ORDER BY 1")
    assert [row["shard"] for row in state] == [0, 1]
    rows = await kept.archived.superuser("SELECT payload FROM audit.outbox WHERE action = 'audit.shard.detach'")
    assert [json.loads(bytes(row["payload"]))["target"] for row in rows] == ["shards/0", "shards/1"]  # type: ignore[call-overload]


async def test_without_event_triggers_whoever_may_become_the_owner_detaches(kept: Kept) -> None:
    """As on a managed PostgreSQL, where nobody is a superuser."""
    database = kept.log.database
    with pytest.raises(Exception, match="audit_migrate isn't a superuser"):
        await detach(database, 0, "audit_migrate")
    for name in ("alter", "drop", "opening"):
        await kept.archived.superuser(f"DROP EVENT TRIGGER recoup_log_refuses_{name}")
    with pytest.raises(Exception, match="audit_checker can't become audit_owner"):
        await detach(database, 0, "audit_checker")
    with pytest.raises(Exception, match="can't see which receipts"):
        await detach(database, 0, "audit_migrate")
    await detach(database, 0, "audit_migrate", given_up=True)
    async with vault(database) as audit:
        await relayed(audit)
    # All controls but those that aren't there are as they were, and nothing is missing that isn't announced.
    assert {control for control, _ in await bypasses(database)} == {"event trigger"}
    assert await faults(kept.log) == []
    (row,) = await kept.archived.superuser("SELECT relforcerowsecurity AS f FROM pg_class WHERE relname = 'entries_s0'")
    assert row["f"] is True
