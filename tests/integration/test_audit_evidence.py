"""Bundles of evidence from a real log: what is disclosed, what is proved, and that nothing is sealed that isn't so."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from services._mesh.context import entered
from services._mesh.errors import Denied, Exhausted, Invalid, NotFound, Reason, Unavailable, WrongState, dependency_down
from services._mesh.jobs import Job
from services.audit import bundling, exports, proving
from services.audit.model.evidence.documents import Counts, Head, Scope, digest
from services.audit.model.evidence.export import EvidenceState, Export
from services.audit.model.merkle import leaf_hash
from services.audit.working import exporting
from tests.support.evidence import AUDITOR, DAY0, Evidence, Leased, running
from tests.support.log import ACME, GLOBEX, destroy_key, keys_of
from tests.support.postgres import TestDatabase
from tests.support.things import context

pytestmark = pytest.mark.services("audit")


@pytest.fixture
async def evidence(database: TestDatabase, tmp_path: Path) -> AsyncIterator[Evidence]:
    async with running(database, tmp_path) as made:
        yield made


def opened(evidence: Evidence, export: Export) -> dict[str, bytes]:
    """The files of a finished bundle."""
    assert export.state is EvidenceState.READY, export.problem
    path = evidence.tools.folder.file(ACME, export.export_id)
    content = path.read_bytes()
    assert (len(content), digest(content)) == (export.size_bytes, export.sha256)
    with zipfile.ZipFile(io.BytesIO(content)) as packed:
        return {name: packed.read(name) for name in packed.namelist()}


AUTHORITY = f"elevation:{uuid4()}.{uuid4()}"


def verified(evidence: Evidence, export: Export, key: str = "") -> tuple[int, dict[str, Any]]:
    """What recoup-verify says of a bundle, in a process of its own."""
    path = evidence.tools.folder.file(ACME, export.export_id)
    command = [sys.executable, "-m", "recoup_verify.cli", "bundle", str(path), "--key", key or evidence.root_key]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=120)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


async def test_a_bundle_holds_the_whole_chain_and_verifies_offline(evidence: Evidence) -> None:
    await evidence.append(40)
    await evidence.append(25, GLOBEX)
    await evidence.append(1, action="identity.hold.release", actor="user:9", authority=AUTHORITY)
    export = await evidence.make(await evidence.start())
    files = opened(evidence, export)
    lines = [json.loads(line) for line in files["events.jsonl"].splitlines()]
    # The worker's own events came on the way: the chain goes up to the head that it began with.
    assert [json.loads(line["leaf"])["org_seq"] for line in lines] == list(range(1, len(lines) + 1))
    assert len(lines) >= 41
    assert GLOBEX.hex not in files["events.jsonl"].decode().replace("-", "")
    statement = json.loads(_payload(files["manifest.json"]))
    assert [each["name"] for each in statement["subject"]] == sorted(set(files) - {"manifest.json", "seal.json"})
    for each in statement["subject"]:
        assert digest(files[each["name"]]) == each["digest"]["sha256"]
    predicate = statement["predicate"]
    assert predicate["scope"] == "organization"
    assert predicate["counts"]["events"] == predicate["chain"]["org_seq"] == len(lines)
    assert predicate["counts"]["disclosed"] == sum("payload" in line for line in lines)
    (used,) = json.loads(files["break_glass.json"])
    assert (used["action"], used["actor"]) == ("identity.hold.release", "user:9")
    # By the offline root, which signs the manifest, or by the log's own key, which agrees to it.
    for key in (evidence.root_key, evidence.verifier_key):
        code, said = verified(evidence, export, key)
        assert (code, said["verdict"]) == (0, "proved"), said


async def test_a_bundle_has_all_that_the_log_has_when_it_is_begun(
    evidence: Evidence, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what isn't under a checkpoint yet: here nothing is signed before it is waited for, or wasn't."""
    await evidence.append(2)
    export = await evidence.start()
    may_sign = asyncio.Event()

    async def held() -> None:
        await may_sign.wait()

    catch_up, begin = evidence.checkpointer.catch_up, evidence.tools.peers.log.begin

    async def waited() -> None:
        may_sign.set()
        await catch_up()

    async def begun(*arguments: Any) -> Any:
        try:
            return await begin(*arguments)
        finally:
            may_sign.set()

    evidence.checkpointer.require = held
    await evidence.append(3, target="members/late")
    monkeypatch.setattr(evidence.checkpointer, "catch_up", waited)
    monkeypatch.setattr(evidence.tools.peers.log, "begin", begun)
    assert _targets(opened(evidence, await evidence.make(export)))[2:5] == ["members/late"] * 3


def _payload(manifest: bytes) -> bytes:
    from base64 import b64decode

    return b64decode(json.loads(manifest)["payload"])


async def test_only_the_period_and_the_scope_are_disclosed(evidence: Evidence) -> None:
    action = uuid4()
    early = (DAY0 - timedelta(days=3)).isoformat(timespec="microseconds").replace("+00:00", "Z")
    # What was appended in the period is of it, too: here everything is appended long after it.
    await evidence.append(5, occurred_at=early)
    await evidence.append(5, target="members/7")
    await evidence.append(2, target=f"actions/{action}")
    await evidence.append(1, target="receipts/1", metadata={"action_id": str(action)})
    whole = opened(evidence, await evidence.make(await evidence.start()))
    assert _targets(whole) == [*["members/7"] * 5, *[f"actions/{action}"] * 2, "receipts/1"]
    narrow = opened(evidence, await evidence.make(await evidence.start(Scope((action,), ()))))
    assert _targets(narrow) == [f"actions/{action}"] * 2 + ["receipts/1"]
    by_target = opened(evidence, await evidence.make(await evidence.start(Scope((), ("members/",)))))
    assert _targets(by_target) == ["members/7"] * 5
    # What isn't disclosed stands there as its leaf, and nothing of it anywhere else.
    assert str(action) not in b"".join(by_target.values()).decode().replace(by_target["manifest.json"].decode(), "")


def _targets(files: dict[str, bytes]) -> list[str]:
    lines = [json.loads(line) for line in files["events.jsonl"].splitlines()]
    listed = list(csv.DictReader(io.StringIO(files["events.csv"].decode(), newline="")))
    found = [json.loads(line["payload"])["target"] for line in lines if "payload" in line]
    assert [each["target"] for each in listed] == found
    return found


async def test_a_narrow_bundle_verifies_and_hides_names(evidence: Evidence) -> None:
    await evidence.append(6, target="members/1")
    await evidence.append(3, target="connections/1")
    export = await evidence.make(await evidence.start(Scope((), ("connections/",))))
    code, said = verified(evidence, export)
    assert (code, said["verdict"]) == (0, "proved"), said


async def test_a_bundle_over_several_shards_verifies(evidence: Evidence) -> None:
    """Years in which the organization did nothing have a shard between, which is shown too."""
    await evidence.append(9)
    await evidence.append(3, GLOBEX)
    evidence.clock.ahead += timedelta(days=366)
    await evidence.append(2, GLOBEX)
    await evidence.checkpointer.catch_up()  # A shard's year is that in which the signer first signs it.
    evidence.clock.ahead += timedelta(days=366)
    await evidence.append(5)
    await evidence.publish_heads()
    export = await evidence.make(await evidence.start(days=770))
    files = opened(evidence, export)
    assert {name for name in files if name.startswith("log/")} == {
        "log/0/checkpoint", "log/0/tree.txt",
        "log/1/checkpoint", "log/1/tree.txt", "log/1/opening.json",
        "log/2/checkpoint", "log/2/tree.txt", "log/2/opening.json",
    }  # fmt: skip
    assert json.loads(files["head.json"])["shard"] == 2
    code, said = verified(evidence, export)
    assert (code, said["verdict"]) == (0, "proved"), said


async def test_a_bundle_shows_the_organizations_newest_published_head(evidence: Evidence) -> None:
    await evidence.append(7)
    await evidence.append(4, GLOBEX)
    assert "head.json" not in opened(evidence, await evidence.make(await evidence.start()))
    await evidence.publish_heads()
    export = await evidence.make(await evidence.start())
    head = json.loads(opened(evidence, export)["head.json"])
    entry = json.loads(head["entry"])
    assert entry["organization_id"] == str(ACME)
    assert entry["org_seq"] >= 7
    assert json.loads(head["payload"])["action"] == "audit.heads.publish"
    assert verified(evidence, export)[0] == 0


async def test_what_was_erased_stands_there_as_erased_and_nothing_as_that_which_was_not(evidence: Evidence) -> None:
    await evidence.append(2, actor="user:8")
    await evidence.append(3, actor="user:9")
    await _destroy_first_key(evidence, erased=True)
    export = await evidence.make(await evidence.start())
    files = opened(evidence, export)
    lines = [json.loads(line) for line in files["events.jsonl"].splitlines()]
    assert [(line.get("erased", False), "payload" in line) for line in lines[:5]] == [
        *[(True, False)] * 2, *[(False, True)] * 3,
    ]  # fmt: skip
    assert json.loads(_payload(files["manifest.json"]))["predicate"]["counts"]["erased"] == 2
    assert b"user:8" not in b"".join(files.values())
    assert verified(evidence, export)[0] == 0


async def test_what_was_lost_is_not_called_erased(evidence: Evidence) -> None:
    await evidence.append(2)
    await _destroy_first_key(evidence, erased=False)
    export = await evidence.make(await evidence.start())
    assert export.state is EvidenceState.FAILED
    assert "can't be read" in export.problem


async def _destroy_first_key(evidence: Evidence, *, erased: bool) -> None:
    """Destroy the key of the first event's subject, as an erasure does; or lose it."""
    superuser = await evidence.database.superuser()
    key_id = await superuser.fetchval("SELECT key_id FROM audit.payloads ORDER BY idx LIMIT 1")
    await superuser.close()
    if erased:
        await destroy_key(evidence.database, key_id)
        return
    keys = await (await keys_of(evidence.database)).superuser()
    await keys.execute("ALTER TABLE subjects.keys DISABLE TRIGGER USER")
    await keys.execute("DELETE FROM subjects.keys WHERE key_id = $1", key_id)
    await keys.close()


async def test_a_changed_file_is_disproved(evidence: Evidence) -> None:
    await evidence.append(9)
    export = await evidence.make(await evidence.start())
    files = opened(evidence, export)
    path = evidence.tools.folder.file(ACME, export.export_id)
    for name in files:
        with zipfile.ZipFile(path, "w") as packed:
            for each, content in files.items():
                at = len(content) // 2
                changed = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :] if content else b"x"
                packed.writestr(each, changed if each == name else content)
        code, said = verified(evidence, export)
        assert (code, said["verdict"]) == (1, "disproved"), (name, said)


async def test_hostile_names_do_nothing_in_a_spreadsheet_or_a_browser(evidence: Evidence) -> None:
    evil = '=HYPERLINK("x")<script>alert(1)</script>'
    await evidence.append(2, action="identity.member.update", target=evil, metadata={"name": evil})
    evidence.given.scans_ = [{
        "scan_id": evil, "connection_id": evil, "state": evil, "created_at": "", "finished_at": "", "units_done": "0",
        "units_total": "1", "resources_seen": "0", "complete": "no", "problem": evil,
        "missed": [dict.fromkeys(("account", "region", "api", "outcome", "error_code"), evil)],
    }]  # fmt: skip
    evidence.given.connections_ = [{
        "kind": "connection", "id": evil, "connection_id": "1", "name": evil, "state": evil,
        "created_at": "2026-01-01T00:00:00.000000Z", "verified_at": "", "external_id_enforced": "no", "problem": evil,
    }]  # fmt: skip
    export = await evidence.make(await evidence.start())
    files = opened(evidence, export)
    assert b"<script" not in files["summary.html"]
    for name in files:
        if name.endswith(".csv"):
            cells = [c for r in csv.reader(io.StringIO(files[name].decode(), newline="")) for c in r]
            assert not [c for c in cells if c.startswith(("=", "+", "@", "-"))], name
    assert json.loads(files["scans.json"])[0]["scan_id"] == evil
    (connection, *_) = json.loads(files["keys.json"])
    assert (connection["age_days"], connection["event_id"]) == ("40", "")
    assert verified(evidence, export)[0] == 0


async def test_the_api_seals_only_what_the_log_bears_out(evidence: Evidence) -> None:
    await evidence.append(5)
    export = await evidence.start()
    evidence.export_id[:] = [export.export_id]
    beginning = await evidence.tools.peers.log.begin(lambda: "grant", export)
    leaves = await evidence.tools.peers.log.events(lambda: "grant", export, 0, beginning.chain_seq)
    true = (beginning.chain_seq, leaf_hash(leaves[-1].leaf))
    counts = Counts(events=true[0], disclosed=0, erased=0, receipts=0)
    key: Any = None
    for chain, heads in (
        ((true[0], bytes(32)), beginning.heads),
        ((true[0] - 1, true[1]), beginning.heads),
        ((true[0] + 99, true[1]), beginning.heads),
        (true, [Head(0, 1)]),
    ):
        with pytest.raises(Invalid), entered(_granted(export.export_id)) as call:
            async with evidence.api.begin(ACME, call) as work:
                await bundling.seal_evidence(work, key, "x", {"a": "0" * 64}, heads, chain, counts)
    # Nor for anybody whose grant is for something else, nor once it is over.
    with pytest.raises(Denied), entered(context(ACME)) as call:
        async with evidence.api.begin(ACME, call) as work:
            await bundling.seal_evidence(work, key, "x", {"a": "0" * 64}, beginning.heads, true, counts)
    await evidence.make(export)
    with pytest.raises(WrongState), entered(_granted(export.export_id)) as call:
        async with evidence.api.begin(ACME, call) as work:
            await bundling.seal_evidence(work, key, "x", {"a": "0" * 64}, beginning.heads, true, counts)


def _granted(export_id: UUID) -> Any:
    from tests.support.evidence import _grant

    return context(ACME, grant=_grant(export_id))


async def test_a_row_that_was_changed_is_never_sealed(evidence: Evidence) -> None:
    await evidence.append(20)
    superuser = await evidence.database.superuser()
    await superuser.execute("SET session_replication_role = replica")
    await superuser.execute("ALTER TABLE audit.entries_s0 DISABLE TRIGGER ALL")
    await superuser.execute(
        "UPDATE audit.entries_s0 SET leaf = convert_to(replace(convert_from(leaf, 'UTF8'), 'identity', 'Identity'),"
        " 'UTF8') WHERE organization_seq = 7"
    )
    export = await evidence.make(await evidence.start())
    assert export.state is EvidenceState.FAILED
    assert "event 8 of the organization doesn't continue its chain" in export.problem
    assert await superuser.fetchval("SELECT count(*) FROM audit.outbox WHERE action = 'audit.evidence.seal'") == 0
    assert await superuser.fetchval("SELECT count(*) FROM audit.outbox WHERE action = 'audit.evidence.fail'") == 1
    await superuser.close()


async def test_an_attempt_that_was_cut_off_is_made_again_whole(
    evidence: Evidence, monkeypatch: pytest.MonkeyPatch
) -> None:
    await evidence.append(12)
    export = await evidence.start()
    reading = evidence.tools.peers.log.read_seal

    async def cut(*_: object) -> Any:
        raise ConnectionError

    monkeypatch.setattr(evidence.tools.peers.log, "read_seal", cut)
    with pytest.raises(ConnectionError):
        await evidence.make(export)
    assert (await evidence.read(export.export_id)).state is EvidenceState.RUNNING
    monkeypatch.setattr(evidence.tools.peers.log, "read_seal", reading)
    made = await evidence.make(export)
    assert verified(evidence, made)[0] == 0
    assert not list((evidence.folder / ".work").iterdir())


async def test_an_export_waits_while_nothing_is_signed_and_an_attempt_that_can_not_begin_is_made_again(
    evidence: Evidence, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signer is away: CHECKPOINT_PENDING is what the job waits for, or is given back for, and never fails by."""
    monkeypatch.setattr(proving, "CHECKPOINT_WAIT_SECONDS", 0.1)
    monkeypatch.setattr(exporting, "_AGAIN_SECONDS", 0.05)

    async def away() -> None:
        raise dependency_down("audit-signer")

    export = await evidence.start()
    evidence.checkpointer.require = away
    await evidence.append(5)
    with pytest.raises(Unavailable) as pending:
        await evidence.make(export)
    assert pending.value.reason == Reason.ERROR_REASON_CHECKPOINT_PENDING
    assert (await evidence.read(export.export_id)).state is EvidenceState.RUNNING
    evidence.checkpointer.require = None
    await evidence.checkpointer.catch_up()
    # This attempt begins under that head; its seal comes after it, and isn't under one.
    evidence.checkpointer.require = away
    looks, looking = 0, evidence.tools.peers.log.read_seal

    async def read_seal(*arguments: Any) -> Any:
        nonlocal looks
        try:
            return await looking(*arguments)
        except Unavailable:
            looks += 1
            if looks == 3:
                evidence.checkpointer.require = None
            raise

    monkeypatch.setattr(evidence.tools.peers.log, "read_seal", read_seal)
    made = await evidence.make(export)
    assert looks >= 3
    assert made.state is EvidenceState.READY
    assert verified(evidence, made)[0] == 0


async def test_who_asks_too_much_is_told_so(evidence: Evidence) -> None:
    await evidence.append(3)
    with pytest.raises(Invalid):
        await evidence.start(days=0)
    with pytest.raises(Invalid):
        await evidence.start(days=42)
    with pytest.raises(Invalid):
        await evidence.start(begins=DAY0 - timedelta(days=4000), days=3661)
    started = [await evidence.start() for _ in range(3)]
    with pytest.raises(Exhausted):
        await evidence.start()
    await evidence.make(started[0])
    await evidence.start()


async def test_a_bundle_is_downloaded_in_pieces_and_deleted_when_its_time_is_over(evidence: Evidence) -> None:
    await evidence.append(30)
    export = await evidence.start()
    with entered(context(ACME)):
        with pytest.raises(WrongState):
            await exports.get_downloadable(evidence.api, export.export_id)
    made = await evidence.make(export)
    assert made.requested_by == f"user:{AUDITOR}"
    folder = evidence.tools.folder
    pieces = [await folder.read(ACME, made.export_id, at) for at in (0, 1000, made.size_bytes, made.size_bytes + 5)]
    assert pieces[0][1000:] == pieces[1]
    assert pieces[2:] == [b"", b""]
    superuser = await evidence.database.superuser()
    kinds = await superuser.fetch("SELECT kind, due_at FROM audit.jobs ORDER BY kind")
    await superuser.close()
    assert [row["kind"] for row in kinds] == ["expire_evidence", "export_evidence"]
    assert kinds[0]["due_at"] == made.expires_at
    job = Leased(evidence.worker, made.export_id)
    await exporting.expire_evidence(evidence.tools, job)  # type: ignore[arg-type]
    assert not folder.file(ACME, made.export_id).exists()
    assert (await evidence.read(made.export_id)).state is EvidenceState.EXPIRED
    with entered(context(GLOBEX)), pytest.raises(NotFound):
        await exports.get_downloadable(evidence.api, made.export_id)


async def test_an_export_whose_job_dies_is_not_waited_for(evidence: Evidence) -> None:
    export = await evidence.start()
    async with evidence.worker.begin(ACME) as work:
        await exporting.give_up(work, Job(uuid4(), ACME, "export_evidence", export.export_id, 5), "RuntimeError")
    assert (await evidence.read(export.export_id)).state is EvidenceState.FAILED
