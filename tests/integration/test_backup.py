"""A backup is made, verified and restored; what was changed or couldn't be used is refused by its name."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services._mesh import failpoints as failpoints_of_mesh
from services._mesh.clock import Clock
from services._mesh.context import entered
from services._mesh.errors import WrongState
from services._mesh.metrics import Metrics
from services._mesh.uow import Store
from services.audit import usecases
from services.audit.model.progress import Scope
from services.backup.command import backup
from services.backup.desk import Desk
from services.backup.model.manifest import ManifestBroken, split_manifest
from services.backup.model.parts import PartBroken
from services.backup.store import source
from services.backup.store.source import SourceUnusable
from services.backup.store.target import TargetUnusable
from services.backup.usecases import keeping
from services.backup.usecases.keeping import BackupUnusable
from services.backup.usecases.restoring import KeksLost, Restorer, require_keks
from services.scanner.backup_watch import BackupWatch
from services.scanner.model.kek import KekState, RegisteredKek
from services.scanner.store import backups
from services.scanner.usecases import rewrapping
from tests.support.backup import BACKUP_RING, NEW, OLD, SECRET, Installation, credential_of, empty_databases, installed
from tests.support.canary import Canary
from tests.support.log import ACME, GLOBEX, event, opener, recorded, sequencer
from tests.support.log import _keys as known_logs
from tests.support.postgres import ROOT, TestDatabase, copied, drop
from tests.support.signed_log import LEAVES, SignedLog
from tests.support.things import context

KILL_SECONDS = 60


class Killed(BaseException):
    """The process is gone: nothing after this line runs."""


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[Installation]:
    async with installed(tmp_path) as installation:
        yield installation
        await drop(installation.database)


def parts_of(made: Installation, table: str = "") -> list[Path]:
    """The files of a backup's parts."""
    return sorted(p for p in (made.folder / "kept" / "parts").rglob("*-*") if p.is_file() and table in str(p))


async def ask(database: TestDatabase, query: str) -> list[tuple[Any, ...]]:
    """Rows, as a superuser."""
    superuser = await database.superuser()
    try:
        return [tuple(row) for row in await superuser.fetch(query)]
    finally:
        await superuser.close()


async def tell(database: TestDatabase, *statements: str) -> None:
    """Change something past every trigger."""
    superuser = await database.superuser()
    try:
        await superuser.execute("SET session_replication_role = replica")
        for each in statements:
            await superuser.execute(each)
    finally:
        await superuser.close()


async def test_a_restored_log_is_the_same_and_its_signer_takes_nothing_else(made: Installation) -> None:
    """And no secret is in the backup in the clear, in any writing."""
    before = await recorded(made.database)
    last_shard = await _with_other_shards(made)
    async with made.desk() as desk:
        await desk.create()  # Which leaves events in the outbox, so that there are some to restore.
        done = await desk.create()
    assert Canary(SECRET).found_below(made.folder) == {}
    assert (done["log_place"], done["checkpoint"], done["keks"]) == (LEAVES, made.log.state.head.note, 2)
    main, keys = await made.restored()
    assert await recorded(main) == before
    async with opener(main) as opening:
        database = main.role("audit_checker", 1)
        checker = replace(made.log.checker, database=database, open_payloads=opening.contents)
        found = await checker.check(Scope.FULL, keep=False)
        await database.close()
    assert found.sound, list(found.lines())
    found_shards = await ask(main, SHARDS)
    assert found_shards == await ask(made.database, SHARDS)
    assert {(f"entries_s{last_shard + 2}", True), ("entries_s1", False)} <= set(found_shards)
    # What was written in the older cluster's transactions counts for no change of this one's.
    last, first = (
        "SELECT max(txid::text::bigint) FROM scanner.outbox",
        "SELECT min(txid::text::bigint) FROM scanner.outbox",
    )
    assert (await ask(made.database, last))[0] < (await ask(main, first))[0]
    # What is restored needs its KEKs, as the restored scanner knows.
    needed = await ask(main, f"SELECT kek FROM scanner.backups WHERE backup_id = '{done['backup_id']}' ORDER BY 1")
    assert needed == [(OLD.reference,), (NEW.reference,), (NEW.reference,)]
    # The signer goes on from the restored log, and then refuses the older one, which is restored once more.
    again, restored = await copied(main), replace(made.log, database=main)
    known_logs[again.name] = keys
    await restored.append(1, first=90)
    assert made.log.state.head.size == LEAVES + 3
    with pytest.raises(WrongState, match="an older log was put back"):
        await _signed_now(replace(made.log, database=again))
    for each in (main, again, keys):
        await drop(each)


SHARDS = (
    "SELECT c.relname::text, c.relispartition FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE n.nspname = 'audit' AND c.relname ~ '^(entries|payloads)_s[0-9]+$' ORDER BY 1"
)


async def _with_other_shards(made: Installation) -> int:
    """Add partitions, and detach an unused shard's; returns which was the last."""
    last = max(int(name.rpartition("_s")[2]) for name, _ in await ask(made.database, SHARDS))
    add = (ROOT / "deploy" / "add_shards.sql").read_text()
    superuser = await made.database.superuser()
    async with superuser.transaction():
        await superuser.execute("SELECT set_config('recoup.more', '2', true)")
        await superuser.execute(add[add.index("DO $body$") :])
    await superuser.close()
    detach = [f"ALTER TABLE audit.{name} DETACH PARTITION audit.{name}_s1" for name in ("entries", "payloads")]
    await tell(made.database, "SET event_triggers = off", *detach, "DROP TABLE audit.payloads_s1")
    return last


async def _signed_now(log: SignedLog) -> None:
    async with sequencer(log.database) as running:
        checkpointer = log.checkpointer(running)
        try:
            await usecases.append_events(running, "identity", [event(900)])
            await checkpointer.sign_now()
        finally:
            await checkpointer._database.close()


async def test_what_was_changed_in_the_storage_is_refused_by_its_place(
    made: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "_LISTED", 1)  # So that the older one is on another page of the list.
    async with made.desk() as desk:
        first, second = await desk.create(), await desk.create()
        assert first["backup_id"] != second["backup_id"]
        ids = [UUID(each["backup_id"]) for each in (first, second)]
        entries, nodes = parts_of(made, f"{ids[0]}/main/audit.entries/"), parts_of(made, f"{ids[0]}/main/audit.nodes/")
        others = parts_of(made, f"{ids[1]}/main/audit.entries/")
        (entry,), (node,), (other,) = entries, nodes, others
        whole = entry.read_bytes()
        flipped = bytes([*whole[:40], whole[40] ^ 1, *whole[41:]])
        for content in (flipped, whole[:-1], whole[:20], b"", node.read_bytes(), other.read_bytes()):
            _put(entry, content)
            with pytest.raises(PartBroken, match=r"part 0 of main's audit\.entries"):
                await _read(desk, ids[0])
        entry.unlink()
        with pytest.raises(PartBroken, match=r"part 0 of main's audit\.entries is missing"):
            await _read(desk, ids[0])
        _put(entry, whole)
        assert await _read(desk, ids[0]) == first["parts"]
        # The manifest: any byte of it, cut, another's, signed by somebody else.
        newest, oldest = sorted((made.folder / "kept" / "manifests").iterdir())
        assert oldest.name.endswith(str(ids[0]))
        kept = oldest.read_bytes()
        for content in (*(_flipped(kept, at) for at in (5, 400, len(kept) - 70, -1)), kept[:-1], newest.read_bytes()):
            _put(oldest, content)
            with pytest.raises(BackupUnusable, match="can't be used"):
                await desk._keep.open(ids[0])
        forger = Ed25519PrivateKey.generate()
        _put(oldest, kept[:-64] + forger.sign(kept[:-64]))
        with pytest.raises(BackupUnusable, match="isn't ours"):
            await desk._keep.open(ids[0])
        with pytest.raises(BackupUnusable, match="doesn't hold a whole backup"):
            await desk._keep.open(UUID(int=7))
        # Somebody else's beginning, under keys that they know, isn't gone on with.
        begun = split_manifest((made.folder / "kept" / "begun" / newest.name).read_bytes(), desk._verifiers())[0]
        theirs = await desk._keep.begin(begun.source, datetime.now(UTC), forger)
        assert not (done := await desk.create())["resumed"]
        assert done["backup_id"] != str(theirs.header.backup_id)
    with pytest.raises(ManifestBroken):
        split_manifest(b"", [bytes(32)])


def _put(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def _flipped(content: bytes, at: int) -> bytes:
    changed = bytearray(content)
    changed[at] ^= 1
    return bytes(changed)


async def _read(desk: Desk, backup_id: UUID) -> int:
    return await Restorer(desk._keep, await desk._keep.open(backup_id), lambda _line: None).require_parts()


async def test_a_backup_that_is_killed_goes_on_with_what_it_stored(
    made: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    failpoints = made.folder / "failpoints"
    failpoints.mkdir()
    config = made.config(failpoints={"folder": "failpoints"})
    command = [sys.executable, "-m", "services.backup", "create", "--config", str(config)]

    (failpoints / "backup.backup.part").write_text("kill")
    killed = await asyncio.to_thread(subprocess.run, command, capture_output=True, timeout=KILL_SECONDS, cwd=ROOT)
    assert killed.returncode == -9, killed.stderr
    stored = parts_of(made)
    assert stored

    def killed_when_copied(name: str) -> None:
        if name == "backup.copied":
            raise Killed

    monkeypatch.setattr(failpoints_of_mesh, "_reached", killed_when_copied)
    async with made.desk() as desk:
        with pytest.raises(Killed):
            await desk.create()
    monkeypatch.setattr(failpoints_of_mesh, "_reached", lambda _name: None)
    assert set(stored) < set(parts_of(made))
    assert not (made.folder / "kept" / "manifests").exists()
    (begun,) = (made.folder / "kept" / "begun").iterdir()
    # What changed meanwhile is copied anew: the whole of it is one snapshot.
    await made.log.append(1, first=50)
    async with made.desk() as desk:
        done = await desk.create()
        # A whole one isn't gone on with.
        assert not (again := await desk.create())["resumed"]
        assert again["backup_id"] != done["backup_id"]
        kept = await desk._keep.open(UUID(done["backup_id"]))
        assert await _read(desk, UUID(done["backup_id"])) == done["parts"]
    assert {t.name: t.rows for t in kept.manifest.databases["main"].tables}["audit.entries"] == LEAVES + 3
    assert begun.name.endswith(done["backup_id"])
    assert (done["resumed"], done["log_place"]) == (True, LEAVES + 3)
    assert 0 < done["parts_found"] < done["parts"]


async def test_nothing_is_restored_over_anything_or_without_its_keks(made: Installation) -> None:
    main, keys = await empty_databases()
    targets = {"target.main": made.as_superuser(main), "target.keys": made.as_superuser(keys)}
    async with made.desk() as desk:
        await desk.create()
        kept = await desk._keep.open()
        assert {(use.organization_id, use.kek, use.secrets) for use in kept.manifest.keks} == {
            (str(ACME), OLD.reference, 2), (str(ACME), NEW.reference, 1), (str(GLOBEX), NEW.reference, 1)
        }  # fmt: skip
    # By the command, as an operator sees it.
    made.organizations.set_states({OLD.reference: "RETIRED", NEW.reference: "DISABLED"})
    config = str(made.config(**targets))
    code, said = await _invoked("restore", "--config", config)
    assert code == 1
    assert f"{OLD.reference} (2 secrets of organization {ACME}): RETIRED" in said
    assert f"{NEW.reference} (1 secrets of organization {GLOBEX}): DISABLED" in said
    with pytest.raises(KeksLost, match=NEW.reference):
        await require_keks(made.organizations.sealing, kept.manifest.keks, frozenset({OLD.reference}))
    made.organizations.set_states({})
    made.backups.set_states({"file:00000000000backup/platform/1": "DISABLED"})
    code, said = await _invoked("restore", "--config", config)
    assert (code, "file:00000000000backup/platform/1" in said, "KMS_KEY_UNUSABLE" in said) == (1, True, True)
    made.backups.set_states({})
    assert await ask(main, "SELECT to_regclass('audit.head')") == [(None,)]
    # Not over what is there, be it in one of the two databases.
    before = await ask(made.database, "SELECT count(*), max(idx) FROM audit.entries")
    over = {**targets, "target.main": made.as_superuser(made.database)}
    async with made.desk(**over) as desk:
        with pytest.raises(TargetUnusable, match=f"{made.database.name} isn't empty: it has actions"):
            await desk.restore(None, frozenset())
    async with made.desk(**{**targets, "target.keys": made.as_superuser(made.keys)}) as desk:
        with pytest.raises(TargetUnusable, match=f"{made.keys.name} isn't empty"):
            await desk.restore(None, frozenset())
    assert await ask(made.database, "SELECT count(*), max(idx) FROM audit.entries") == before
    assert await ask(main, "SELECT to_regclass('audit.head')") == [(None,)]
    for each in (main, keys):
        await drop(each)


async def _invoked(*arguments: str) -> tuple[int, str]:
    done = await asyncio.to_thread(CliRunner().invoke, backup, arguments)
    return done.exit_code, done.output


async def test_a_backup_is_verified_on_a_server_that_holds_nothing_else(
    made: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no whole backup there yet" in (await _invoked("list", "--config", str(made.config())))[1]
    async with made.desk() as desk:
        done = await desk.create()
        found = await desk.verify(None, rows_only=True)
        assert (found["rows"], found["log"]) == (done["rows"], "not re-hashed")
    said = await ask(made.database, "SELECT action, count(*)::int FROM scanner.outbox GROUP BY 1 ORDER BY 1")
    assert ("scanner.backup.verify", 1) in said
    databases = "SELECT datname FROM pg_database WHERE datname LIKE 'recoup_verify%'"
    async with made.desk(**{"verify.server": made.as_superuser(made.database)}) as desk:
        with pytest.raises(TargetUnusable, match="the server that was backed up"):
            await desk.verify(None, rows_only=True)
        assert await ask(made.database, databases) == []


async def test_no_erasure_comes_between_the_two_snapshots(made: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that does is waited out: in the backup, the erasure is decided wherever its key is gone."""
    require, seen = source._require_reader, []

    async def erased_meanwhile(connection: Any) -> None:
        await require(connection)
        seen.append(await connection.fetchval("SELECT current_database()"))
        if len(seen) == 2:  # The log's snapshot is taken, and that of the keys isn't.
            with pytest.raises(asyncpg.LockNotAvailableError):  # Nobody writes a table anew, which would look empty.
                await tell(
                    made.database,
                    "SET lock_timeout = '50ms'",
                    "ALTER TABLE identity.members ADD x float DEFAULT random()",
                )
            await tell(
                made.database,
                "INSERT INTO audit.erasures (organization_id, erasure_id, subject_hash, reason, state, requester_hash,"
                f" requested_at, decider_hash, decided_at) VALUES ('{ACME}', gen_random_uuid(), sha256('subject'),"
                " 'case 9', 'APPROVED', sha256('one'), now(), sha256('two'), now())",
            )

    monkeypatch.setattr(source, "_require_reader", erased_meanwhile)
    async with made.desk() as desk:
        await desk.create()
        kept = await desk._keep.open()
    assert seen == [made.database.name, made.keys.name, made.keys.name]
    assert {t.name: t.rows for t in kept.manifest.databases["main"].tables}["audit.erasures"] == 1


async def test_who_reads_must_see_all_and_may_change_nothing(made: Installation) -> None:
    for user, rule in (("scanner_api", "has no BYPASSRLS"), (made.database.handle.superuser, "is a superuser")):
        place = made.place(made.database, user)
        place = place if user == "scanner_api" else made.as_superuser(made.database)
        async with made.desk(**{"source.main": place}) as desk:
            with pytest.raises(SourceUnusable, match=rule):
                await desk.create()
    reader = await made.database.login("backup_reader")
    refused = ("UPDATE scanner.keks SET state = ''", "DELETE FROM identity.members", "SELECT * FROM pg_authid",
               "INSERT INTO audit.head (epoch, size) VALUES (1, 1)", "SET ROLE audit_owner")  # fmt: skip
    for statement in refused:
        with pytest.raises(Exception, match="permission denied"):
            await reader.execute(statement)
    await reader.close()


async def test_a_storage_that_fails_is_asked_again_and_a_backup_may_lie_in_two(
    made: Installation, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3 for the log, a folder for the keys: what decides about erased payloads is kept apart."""
    import boto3

    os.environ.setdefault("AWS_DEFAULT_REGION", "eu-central-1")
    name = f"backups-{os.urandom(4).hex()}"
    given = {"aws_access_key_id": "AKIA", "aws_secret_access_key": "secret", "region_name": "eu-central-1"}
    s3 = boto3.client("s3", endpoint_url=endpoint, **given)
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    word = made.folder / "s3.secret"
    word.touch(mode=0o600)
    word.write_text("secret")
    bucket = {
        "name": name,
        "region": "eu-central-1",
        "prefix": "here/",
        "endpoint_url": endpoint,
        "access_key_id": "AKIA",
        "secret_access_key_file": word.name,
    }
    changes = {"storage": None, "storage.bucket": bucket, "keys_storage": {"folder": "keys"}}
    async with made.desk(**changes) as desk:
        done = await desk.create()
        assert await _read(desk, UUID(done["backup_id"])) == done["parts"]
        assert (await desk.list_backups())[0]["backup_id"] == done["backup_id"]
        with pytest.raises(BackupUnusable, match="still in s3://"):
            await desk.forget(UUID(done["backup_id"]))
    keys = [each["Key"] for each in s3.list_objects_v2(Bucket=name)["Contents"]]
    assert keys
    assert not [key for key in keys if "/keys/" in key]
    assert [path for path in (made.folder / "keys").rglob("*") if "subjects.keys" in str(path)]


async def test_a_kek_that_a_backup_needs_is_on_record_until_it_is_forgotten(made: Installation) -> None:
    async with made.desk() as desk:
        done = await desk.create()
        rows = (
            "SELECT organization_id::text, kek, secrets FROM scanner.backups WHERE forgotten_at IS NULL ORDER BY 1, 2"
        )
        assert await ask(made.database, rows) == [
            (str(UUID(int=0)), "", 0),
            (str(ACME), OLD.reference, 2),
            (str(ACME), NEW.reference, 1),
            (str(GLOBEX), NEW.reference, 1),
        ]
        # So the organization isn't done with it, though nothing is under it any more.
        await tell(made.database, "DELETE FROM scanner.credentials", *named_keks())
        api = made.database.role("scanner_api")
        store = Store(api, "scanner", Clock())
        with pytest.raises(WrongState, match=f"1 backups hold secrets under it: {done['backup_id']} of ") as refused:
            await retire(store)
        assert refused.value.metadata["state"] == "IN_BACKUP"
        async with store.read(ACME) as connection:
            assert await backups.count_by_kek(connection) == {OLD.reference: 1, NEW.reference: 1}
        metrics = Metrics()
        await BackupWatch(store, metrics).look()
        (shown,) = [line.split()[1] for line in metrics.render().splitlines() if line.startswith("recoup_backup_taken")]
        assert float(shown) == pytest.approx(datetime.fromisoformat(done["taken_at"]).timestamp(), abs=1.0)
        shutil.rmtree(made.folder / "kept" / "manifests")
        assert (await desk.forget(UUID(done["backup_id"])))["organizations"] == 3
        assert await ask(made.database, rows) == []
        with pytest.raises(BackupUnusable, match="no backup"):
            await desk.forget(UUID(done["backup_id"]))
        assert (await retire(store)).state is KekState.RETIRED
        await api.close()
        # What is retired while a backup is made is told, and another one needed.
        await tell(made.database, "UPDATE scanner.keks SET state = 'RETIRED'")
        await credential_of(made, ACME, OLD)
        with pytest.raises(BackupUnusable, match=f"{OLD.reference} was retired while the backup was made"):
            await desk.create()


def named_keks() -> list[str]:
    """Statements that make acme's two KEKs its own."""
    return [
        "INSERT INTO scanner.keks (organization_id, kek_id, version, provider, key_id, region, key_version, state,"
        f" created_at) VALUES ('{ACME}', gen_random_uuid(), {kek.reference[-1]}, 'FILE', '{kek.reference[:-2]}',"
        f" 'local', '{kek.reference[-1]}', '{state}', now())"
        for kek, state in ((OLD, "SUPERSEDED"), (NEW, "ACTIVE"))
    ]


async def retire(store: Store) -> RegisteredKek:
    with entered(context(ACME, "scanner.kek.retire", rpc="scanner/RetireKek")):
        async with store.begin() as work:
            return await rewrapping.retire_kek(work, 1)


def test_what_is_configured_wrong_is_named(tmp_path: Path) -> None:
    path = tmp_path / "backup.toml"
    path.write_text('[process]\nname = "backup"\nprofile = "production"\n[storage]\n')
    done = CliRunner().invoke(backup, ["create", "--config", str(path)])
    assert (done.exit_code, "storage: needs a folder or a bucket" in done.output) == (2, True)
    assert CliRunner().invoke(backup, ["create"]).exit_code == 2


async def test_a_configuration_is_checked_and_nobody_is_asked(made: Installation) -> None:
    nowhere = {"host": str(made.folder / "nowhere")}
    databases = {name: made.place(made.database, "backup_reader") | nowhere for name in ("source.main", "source.keys")}
    code, said = await _invoked("check", "--config", str(made.config(**databases)))
    assert (code, said.rpartition(": ")[2]) == (0, "ok; enough for list, create, prune\n")
    for_restoring = {f"target.{name}": made.as_superuser(made.database) for name in ("main", "keys")}
    none = dict.fromkeys(("source.main", "source.keys", "source.recorder"))
    code, said = await _invoked("check", "--json", "--config", str(made.config(**none, **for_restoring)))
    assert (code, json.loads(said)) == (0, {"enough_for": ["restore"]})
    key = made.folder / "no.key"
    key.touch(mode=0o600)
    spoiled = {"manifest": {"kek": f"{BACKUP_RING}/platform/1", "key": key.name}}
    code, said = await _invoked("check", "--config", str(made.config(**spoiled)))
    assert (code, "manifest.key" in said) == (2, True)
