"""Evidence from a log that was put back and recovered: it is made, says what was lost, and verifies offline."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from services.audit import usecases
from services.audit.model.evidence.continuity import find_tails
from services.audit.model.evidence.export import EvidenceState
from services.audit.model.evidence.gathered import Beginning, ShardHead
from services.audit.model.notes import Signer
from services.audit.model.signing import Inconsistent
from tests.support.evidence import Evidence, running
from tests.support.log import ACME, KEY, LOG, event, sequencer
from tests.support.sharded_log import ShardedLog, sharded_log

pytestmark = pytest.mark.services("audit")


async def _bundle(log: ShardedLog, folder: Path) -> tuple[dict[str, bytes], int, dict[str, Any], str]:
    """A bundle of all that Acme has: its files, and what recoup-verify says of it, for programs and for people."""
    async with running(log.database, folder, log) as evidence:
        await evidence.append(3)
        await evidence.publish_heads()
        export = await evidence.start(begins=log.clock.now() - timedelta(days=1000), days=1000)
        made = await evidence.make(export)
        assert made.state is EvidenceState.READY, made.problem
        path = evidence.tools.folder.file(ACME, made.export_id)
        with zipfile.ZipFile(path) as packed:
            files = {name: packed.read(name) for name in packed.namelist()}
        code, said = _verified(evidence, path, "--json")
        return files, code, json.loads(said), _verified(evidence, path)[1]


def _verified(evidence: Evidence, path: Path, *more: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "recoup_verify.cli", "bundle", str(path), "--key", evidence.root_key, *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout


async def _again(log: ShardedLog) -> None:
    await log.recover()
    await log.grow()


async def lost_a_range(log: ShardedLog) -> None:
    """The database ends at a signed head that is older than the last one."""
    backup, counters = await log.backup(), log.counters
    await log.grow(1)
    await log.put_back(backup, counters)
    await _again(log)


async def lost_shards(log: ShardedLog) -> None:
    """The database is from before two shards that were signed: nothing is left of them."""
    backup, counters = await log.backup(), log.counters
    for _ in range(2):
        await log.turn()
        await log.grow(1)
    await log.put_back(backup, counters)
    await _again(log)


async def had_a_tail(log: ShardedLog) -> None:
    """The database ends with leaves that it has no signed head of."""
    async with sequencer(log.database, clock=log.clock) as appending:
        await usecases.append_events(appending, "identity", [event(2 * log.counters + n) for n in (1, 2)])
    log.counters += 1
    await lost_a_range(log)


async def lost_a_recovery(log: ShardedLog) -> None:
    """The recovery's own shard was put back to when it was empty: there is no head of it."""
    backup, counters = await log.backup(), log.counters
    await log.grow(1)
    await log.put_back(backup, counters)
    await log.recover()
    empty = await log.backup()
    await log.grow()
    await log.put_back(empty, counters)
    await _again(log)


async def had_no_head(log: ShardedLog) -> None:
    """The database is from before its first signed head: all that it has of the first shard is a tail."""
    await had_a_tail(log)


async def went_on_beyond(log: ShardedLog) -> None:
    """The database was put back and left running, until it had more leaves than were signed."""
    backup, counters = await log.backup(), log.counters
    await log.grow(1)
    await log.put_back(backup, counters)
    async with sequencer(log.database, clock=log.clock) as appending:
        more = [event(2 * log.counters + n) for n in range(1, 6)]
        await usecases.append_events(appending, "identity", more)
    log.counters += 3
    await _again(log)


CASES: list[tuple[Callable[[ShardedLog], Awaitable[None]], list[int], str, int]] = [
    (lost_a_range, [0, 1], f"the leaves 6 to 8 of {LOG}", 0),
    (lost_shards, [0, 3], f"from leaf 6 of {LOG} to leaf 3 of {LOG}/2", 0),
    (had_a_tail, [0, 1], f"the leaves 8 to 10 of {LOG}", 2),
    (had_no_head, [1], f"the leaves 2 to 4 of {LOG}", 2),
    (went_on_beyond, [0, 1], f"from leaf 6 of {LOG} to leaf 8 of {LOG}", 5),
    (lost_a_recovery, [0, 2], f"the leaves 0 to 6 of {LOG}/1", 0),
]


@pytest.mark.parametrize(("happened", "heads", "lost", "loose"), CASES, ids=[case[0].__name__ for case in CASES])
async def test_a_bundle_over_a_recovery_verifies_and_says_what_was_lost(
    happened: Callable[[ShardedLog], Awaitable[None]], heads: list[int], lost: str, loose: int, tmp_path: Path
) -> None:
    (tmp_path / "log").mkdir()
    async with sharded_log(tmp_path / "log", 0 if happened is had_no_head else 1) as log:
        await happened(log)
        files, code, said, told = await _bundle(log, tmp_path / "log")
    assert (code, said["verdict"]) == (0, "proved"), said
    lines = [json.loads(line) for line in files["events.jsonl"].splitlines()]
    assert [json.loads(line["leaf"])["org_seq"] for line in lines] == list(range(1, len(lines) + 1))
    assert [head["origin"] for head in said["heads"]] == [f"{LOG}/{shard}" if shard else LOG for shard in heads]
    assert any(lost in each for each in said["not_proved"]), said["not_proved"]
    assert lost in told
    assert said["loose"] == loose


async def test_heads_that_are_not_one_log_are_found_before_the_seal(tmp_path: Path) -> None:
    """What the worker was told is held against itself by the verifier's rules."""
    async with sharded_log(tmp_path, 1) as log:
        await log.turn()
        await log.grow(1)
        await lost_a_range(log)
        async with running(log.database, tmp_path, log) as evidence:
            export = await evidence.start(begins=log.clock.now() - timedelta(days=1000), days=1000)
            evidence.export_id[:] = [export.export_id]
            told = await evidence.tools.peers.log.begin(lambda: "grant", export)
    assert find_tails(told) == [((1, 4), (1, 4))]
    for heads, why in _wrong(told):
        with pytest.raises(Inconsistent, match=why):
            find_tails(replace(told, shards=heads))
    with pytest.raises(Inconsistent, match="needs the offline root's key"):
        find_tails(replace(told, key_manifest=""))


def _wrong(told: Beginning) -> list[tuple[list[ShardHead], str]]:
    first, second, third = told.shards
    foreign = Signer(LOG, KEY).sign(f"{LOG}\n6\n{'A' * 43}=\n")
    longer = replace(second, size=5, note=Signer(f"{LOG}/1", KEY).sign(second.note.partition("\n\n")[0] + "\n"))
    return [
        ([second, third], "shard 1 doesn't follow"),
        ([first, replace(second, opening=None), third], "doesn't show what opened shard 1"),
        ([replace(first, note=foreign), second, third], "isn't what was signed"),
        ([replace(first, note=first.note[:-9] + "AAAAAAA=\n"), second, third], "the head of shard 0"),
        ([first, longer, third], "the head of shard 1 isn't what was signed"),
        ([first, replace(second, opening=third.opening), third], "isn't proven"),
    ]
