"""The bundle's writer alone: the same bytes for the same events, and what it refuses to write on with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest

from services.audit.model.evidence.documents import Contents, Counts, Head, Scope, encode
from services.audit.model.evidence.export import EvidenceState, Export
from services.audit.model.evidence.gathered import Beginning, ChainLeaf, ShardHead
from services.audit.model.leaf import commitment
from services.audit.model.merkle import Frontier, leaf_hash
from services.audit.working import writing
from services.audit.working.writing import BundleBroken, BundleTooLarge, BundleWriter

ACME = UUID(int=1)
DAY0 = datetime(2026, 1, 1, tzinfo=UTC)
EXPORT = Export(
    export_id=UUID(int=5), organization_id=ACME, state=EvidenceState.RUNNING, scope=Scope(), begins_at=DAY0,
    ends_at=DAY0 + timedelta(days=90), requested_by="user:1", created_at=DAY0, expires_at=DAY0,
)  # fmt: skip


def chain(count: int, every: int = 1) -> Iterator[ChainLeaf]:
    """An organization's events, each `every`-th leaf of the log."""
    previous = ""
    for seq in range(1, count + 1):
        at = (DAY0 + timedelta(seconds=60 * seq)).isoformat(timespec="microseconds").replace("+00:00", "Z")
        action = "scanner.scan.run" if seq % 500 else "actions.action.approve"
        event = {"event_id": f"e{seq}", "action": action, "target": f"actions/{seq % 97}",
                 "result": "OK", "actor": "user:1", "responsible_person": "", "role": "ADMIN", "occurred_at": at,
                 "metadata": {"comment": "x" * 200}}  # fmt: skip
        raw, salt = orjson.dumps(event), b"\7" * 32
        said = {"appended_at": at, "org_seq": seq, "payload_commitment": commitment(raw, salt), "prev_leaf": previous}
        leaf = orjson.dumps({**said, "v": 1})
        previous = leaf_hash(leaf).hex()
        yield ChainLeaf(0, (seq - 1) * every, leaf, (raw, salt), erased=False)


def log_of(leaves: Iterator[ChainLeaf]) -> tuple[ShardHead, int]:
    """The head of a log that holds exactly these leaves, and how many there are."""
    frontier = Frontier()
    for each in leaves:
        frontier.append(leaf_hash(each.leaf))
    return ShardHead(0, frontier.size, frontier.root(), "note\n"), frontier.size


def writer(folder: Path, head: ShardHead, seq: int) -> BundleWriter:
    return BundleWriter(folder / "files", EXPORT, Beginning("x/log", [head], seq, None, "keys\n\n"))


def finish(made: BundleWriter, head: ShardHead) -> None:
    made.files.put("log/0/tree.txt", b"")
    made.write_shards()
    totals = made.totals
    counts = Counts(events=totals.chain_seq, disclosed=totals.disclosed, erased=totals.erased, receipts=0)
    contents = Contents(
        bundle_id=EXPORT.export_id, organization_id=ACME, scope=Scope(), begins_at=EXPORT.begins_at,
        ends_at=EXPORT.ends_at, created_at=DAY0, log="x/log", heads=[Head(0, head.size)], chain_seq=totals.chain_seq,
        chain_leaf=totals.chain_leaf, counts=counts, digests={},
    )  # fmt: skip
    made.finish(contents, "user:1")


def test_the_same_events_make_the_same_bytes(tmp_path: Path) -> None:
    digests = []
    for name in ("one", "two"):
        head, seq = log_of(chain(50))
        made = writer(tmp_path / name, head, seq)
        made.add_events(list(chain(50)))
        finish(made, head)
        digests.append(made.files.pack(tmp_path / f"{name}.zip")[1])
    assert digests[0] == digests[1]


def _changed(leaves: list[ChainLeaf], what: str) -> list[ChainLeaf]:
    if what == "a leaf is missing":
        return leaves[:3] + leaves[4:]
    if what == "two leaves are swapped":
        return [*leaves[:3], leaves[4], leaves[3], *leaves[5:]]
    if what == "one stands twice":
        return [*leaves[:4], leaves[3], *leaves[4:]]
    if what == "a leaf was changed":
        other = leaves[3].leaf.replace(b'"v":1', b'"v":2')
        return [*leaves[:3], ChainLeaf(0, 3, other, None, erased=False), *leaves[4:]]
    if what == "a payload isn't the leaf's":
        return [*leaves[:3], replace(leaves[3], disclosed=(b"{}", b"\7" * 32)), *leaves[4:]]
    if what == "an event of the period isn't shown":
        return [*leaves[:3], replace(leaves[3], disclosed=None), *leaves[4:]]
    if what == "it stands behind the head":
        return [*leaves[:3], replace(leaves[3], index=99), *leaves[4:]]
    if what == "an index goes back":
        return [*leaves[:3], ChainLeaf(0, 1, leaves[3].leaf, None, erased=False), *leaves[4:]]
    return [*leaves[:3], ChainLeaf(4, 3, leaves[3].leaf, None, erased=False), *leaves[4:]]


@pytest.mark.parametrize(
    "what",
    [
        *("a leaf is missing", "two leaves are swapped", "one stands twice", "a leaf was changed"),
        *("an index goes back", "a shard that isn't in the bundle", "it stands behind the head"),
        *("a payload isn't the leaf's", "an event of the period isn't shown"),
    ],
)
def test_a_chain_that_does_not_hold_is_not_written_on_with(tmp_path: Path, what: str) -> None:
    head, seq = log_of(chain(8))
    made = writer(tmp_path, head, seq)
    try:
        with pytest.raises(BundleBroken, match=r"event [45] of the organization"):
            made.add_events(_changed(list(chain(8)), what))
    finally:
        made.files.abandon()


@pytest.mark.parametrize(
    ("tree", "count", "root", "said"),
    [
        ([], 7, None, "has 7 events, and not 8"),
        ([bytes(32)], 8, None, "the proof is too long"),
        ([], 8, bytes(32), "don't lead to its signed root"),
    ],
)
def test_a_tree_that_does_not_lead_to_the_root_is_not_sealed(
    tmp_path: Path, tree: list[bytes], count: int, root: Any, said: str
) -> None:
    head, _ = log_of(chain(8))
    if root is not None:
        head = ShardHead(0, head.size, root, head.note)
    made = writer(tmp_path, head, 8)
    try:
        made.add_events(list(chain(count)))
        made.files.put("log/0/tree.txt", "".join(f"{encode(each)}\n" for each in tree).encode())
        with pytest.raises(BundleBroken, match=said):
            made.write_shards()
    finally:
        made.files.abandon()


def test_a_bundle_that_no_verifier_would_take_is_not_sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its size is all of its files', those that are closed already too."""
    head, seq = log_of(chain(8))
    made = writer(tmp_path, head, seq)
    try:
        made.add_events(list(chain(4)))
        made.files.put("other", b"x" * 5000)
        lines = made.files.written - 5000
        monkeypatch.setattr(writing, "MAX_BYTES", lines + 5000)
        made.require_room()
        made.files.put("another", b"x")
        with pytest.raises(BundleTooLarge, match="Take a shorter period, or a narrower scope"):
            made.require_room()
        with pytest.raises(BundleTooLarge):
            made.add_events(list(chain(8))[4:])
    finally:
        made.files.abandon()


def test_another_history_than_the_log_published_is_not_sealed(tmp_path: Path) -> None:
    head, seq = log_of(chain(8))
    published = {"entry": '{"leaf":"00","org_seq":5}'}
    made = BundleWriter(tmp_path / "files", EXPORT, Beginning("x/log", [head], seq, published, "keys\n\n"))
    try:
        with pytest.raises(BundleBroken, match="the log published another event as the organization's number 5"):
            made.add_events(list(chain(8)))
    finally:
        made.files.abandon()
