"""Old backups are deleted by number and age, never the last ones that count, and their KEKs are let go with them."""

from __future__ import annotations

import asyncio
import os
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import boto3
import pytest
from click.testing import CliRunner

from services._mesh import failpoints as failpoints_of_mesh
from services._mesh.clock import Clock
from services._mesh.uow import Store
from services.backup.command import backup
from services.backup.store.source import Source, SourceUnusable
from services.backup.usecases.pruning import Rule
from services.scanner.model.kek import KekState
from tests.integration.test_backup import Killed, ask, made, named_keks, retire, tell
from tests.support.backup import BACKUP_RING, OLD, Installation
from tests.support.log import ACME

__all__ = ["made"]

DAY = timedelta(days=1)
ANY = Rule(1, timedelta(0))


@pytest.fixture
async def three(made: Installation) -> list[str]:
    """Three backups, of today, of four days ago and of eight days ago; the first alone needs acme's old KEK."""
    found = []
    for days in (8, 4, 0):
        async with made.desk() as desk:
            done = await desk.create()
        found.append(done["backup_id"])
        await age(made, done["backup_id"], days)
        await tell(made.database, f"DELETE FROM scanner.credentials WHERE kek = '{OLD.reference}'")
    return found


async def age(made: Installation, backup_id: str, days: int) -> None:
    statement = f"UPDATE scanner.backups SET taken_at = taken_at - interval '{days} days'"
    await tell(made.database, f"{statement} WHERE backup_id = '{backup_id}'")


async def verified(made: Installation, backup_id: str) -> None:
    await tell(made.database, f"UPDATE scanner.backups SET verified_at = now() WHERE backup_id = '{backup_id}'")


def ids(found: list[dict[str, str]]) -> list[str]:
    return [each["backup_id"] for each in found]


def files(made: Installation, backup_id: str) -> list[Path]:
    return [path for path in (made.folder / "kept").rglob("*") if backup_id in str(path)]


async def prune(made: Installation, rule: Rule, *, dry_run: bool = False) -> dict[str, Any]:
    async with made.desk() as desk:
        return await desk.prune(rule, dry_run=dry_run)


async def test_what_is_old_goes_and_its_keks_with_it(made: Installation, three: list[str]) -> None:
    oldest, middle, newest = three
    await tell(made.database, *named_keks())
    api = made.database.role("scanner_api")
    with pytest.raises(Exception, match="1 backups hold secrets under it"):
        await retire(Store(api, "scanner", Clock()))
    command = ["prune", "--config", str(made.config()), "--keep", "1", "--older-than", "5", "--dry-run"]
    seen = await asyncio.to_thread(CliRunner().invoke, backup, command)
    assert seen.stdout.splitlines() == [
        f"{oldest}  would be deleted",
        f"{newest}  kept: it is among the newest",
        f"{middle}  kept: it is young enough",
    ]
    assert files(made, oldest)
    done = await prune(made, Rule(1, 5 * DAY))
    assert (ids(done["deleted"]), ids(done["kept"])) == ([oldest], [newest, middle])
    assert [each["why"] for each in done["kept"]] == ["it is among the newest", "it is young enough"]
    assert not files(made, oldest)
    assert (await retire(Store(api, "scanner", Clock()))).state is KekState.RETIRED
    await api.close()
    events = "SELECT organization_id::text FROM scanner.outbox WHERE action = 'scanner.backup.forget' ORDER BY 1"
    assert (str(ACME),) in await ask(made.database, events)
    # What is left can be read to its last part.
    async with made.desk() as desk:
        assert {each["backup_id"] for each in await desk.list_backups()} == {middle, newest}
        kept = await desk._keep.open(UUID(middle))
        assert kept.manifest.databases
    left = "SELECT DISTINCT backup_id::text FROM scanner.backups WHERE forgotten_at IS NULL ORDER BY 1"
    assert {row[0] for row in await ask(made.database, left)} == {middle, newest}


async def test_the_newest_and_the_last_that_was_verified_stay_whatever_is_asked_for(
    made: Installation, three: list[str]
) -> None:
    oldest, middle, newest = three
    await verified(made, oldest)
    done = await prune(made, ANY)
    assert (ids(done["deleted"]), ids(done["kept"])) == ([middle], [newest, oldest])
    assert done["kept"][1]["why"] == "it is the newest that was verified"
    # A verified one that was deleted by other means proves nothing: the one before it stays.
    async with made.desk() as desk:
        gone = (await desk.create())["backup_id"]
    await verified(made, gone)
    for path in files(made, gone):
        path.unlink(missing_ok=True) if path.is_file() else shutil.rmtree(path, ignore_errors=True)
    assert ids((await prune(made, ANY))["kept"]) == [newest, oldest]
    await verified(made, newest)
    assert ids((await prune(made, ANY))["deleted"]) == [oldest]
    # Nobody else's: what isn't on record here stays.
    await tell(made.database, "DELETE FROM scanner.backups")
    (kept,) = (await prune(made, ANY))["kept"]
    assert (kept["backup_id"], kept["why"]) == (newest, "it isn't on record here")


async def test_a_kill_leaves_it_whole_or_to_be_deleted_next_and_an_attempt_goes_with_its_time(
    made: Installation, three: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    oldest, middle, newest = three

    def die(point: str) -> None:
        if point == "backup.unmade":
            raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(failpoints_of_mesh, "_reached", die)
        await prune(made, ANY)
    # The manifest is gone, the parts are there, and its KEKs stay on record until they aren't.
    half = next(each for each in (middle, oldest) if not any("manifests" in str(path) for path in files(made, each)))
    assert files(made, half)
    on_record = "SELECT DISTINCT backup_id::text FROM scanner.backups WHERE forgotten_at IS NULL"
    assert (half,) in await ask(made.database, on_record)
    # Within the hours in which an attempt may go on, it is left to itself.
    assert half not in ids((await prune(made, ANY))["deleted"])
    at_once = {"kek": f"{BACKUP_RING}/platform/1", "key": "manifest.key", "resume_hours": 0.0}
    async with made.desk(manifest=at_once) as desk:
        assert half in ids((await desk.prune(ANY, dry_run=False))["deleted"])
    assert not files(made, half)
    assert files(made, newest)


async def test_nothing_is_pruned_while_a_backup_is_made(made: Installation, three: list[str]) -> None:
    async with made.desk() as desk:
        source = desk._source()
    async with Source(source.main, source.keys).alone():
        with pytest.raises(SourceUnusable, match="another backup is being made"):
            await prune(made, ANY)
    assert all(files(made, each) for each in three)


def test_a_rule_has_to_be_given(tmp_path: Path) -> None:
    config = tmp_path / "backup.toml"
    config.write_text("")
    done = CliRunner().invoke(backup, ["prune", "--config", str(config)])
    assert done.exit_code == 2
    assert "--keep N, --older-than DAYS, or both" in done.output
    assert CliRunner().invoke(backup, ["prune", "--config", str(config), "--keep", "0"]).exit_code == 2


async def test_all_versions_go_and_what_a_bucket_locks_stays(made: Installation, endpoint: str) -> None:
    """Deleting without naming a version would only hide it; a lock is the bucket's own promise."""
    given = {"aws_access_key_id": "AKIA", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
    s3 = boto3.client("s3", endpoint_url=endpoint, **given)
    for days in (0, 1):
        name = f"pruned-{os.urandom(4).hex()}"
        s3.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
        word = made.folder / "s3.secret"
        word.touch(mode=0o600)
        word.write_text("secret")
        bucket = {
            "name": name, "region": "us-east-1", "prefix": "here/", "endpoint_url": endpoint, "retention_days": days,
            "access_key_id": "AKIA", "secret_access_key_file": word.name,
        }  # fmt: skip
        changes = {"storage": None, "storage.bucket": bucket}
        first = await created(made, changes)
        await created(made, changes)
        s3.put_object(Bucket=name, Key=f"here/parts/{first}x/keep", Body=b"another's")
        async with made.desk(**changes) as desk:
            done = await desk.prune(ANY, dry_run=False)
            whole = [each["backup_id"] for each in await desk.list_backups()]
        found = s3.list_object_versions(Bucket=name)
        versions = [
            each["Key"] for each in (*found["Versions"], *found.get("DeleteMarkers", ())) if first in each["Key"]
        ]
        if days:
            assert first in whole
            assert "the storage keeps it" in next(e["why"] for e in done["kept"] if e["backup_id"] == first)
        else:
            assert ids(done["deleted"]) == [first]
            assert versions == [f"here/parts/{first}x/keep"]


async def created(made: Installation, changes: dict[str, Any]) -> str:
    async with made.desk(**changes) as desk:
        return str((await desk.create())["backup_id"])
