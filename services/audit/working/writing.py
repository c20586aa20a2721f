"""Writes a bundle: the chain, its proofs, the lists for people, the summary. All of it blocks; run it in a thread.

What it keeps in memory is 40 bytes for each event of the organization, and what the summary shows. Nothing is taken on
trust: the chain, the roots, the openings of shards and the published head are checked again by the verifier's rules, so
that a bundle which wouldn't verify is never sealed.
"""

from __future__ import annotations

from array import array
from base64 import b64decode
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any

import orjson
import rfc8785

from services.audit.model.evidence.continuity import find_tails
from services.audit.model.evidence.csv_files import row
from services.audit.model.evidence.documents import MANIFEST, SEAL, Contents, Scope, encode, event_line, moment, seal
from services.audit.model.evidence.export import MAX_BYTES, Export
from services.audit.model.evidence.gathered import Beginning, ChainLeaf, Seal, Totals
from services.audit.model.evidence.records import (
    EVENT_COLUMNS,
    INDEX_COLUMNS,
    KEY_COLUMNS,
    KINDS,
    SCAN_COLUMNS,
    Record,
    cells,
    kinds_of,
    record,
)
from services.audit.model.evidence.summary import SHOWN_ROWS, Summary, page
from services.audit.model.leaf import commitment
from services.audit.model.merkle import HASH_LENGTH, ProofInvalid, leaf_hash
from services.audit.model.multiproof import fold, uncovered
from services.audit.model.signing import Inconsistent
from services.audit.working.files import Files, ListFile

# Events that other files refer to by what they are about, newest first; so many at most are remembered.
_SUBJECTS = ("scans/", "connections/")
_MOST_SUBJECTS = 50_000


class BundleBroken(Exception):
    """What the log said can't be true; says where. Nothing is sealed."""


class BundleTooLarge(BundleBroken):
    """More than a bundle may hold; says what to do."""


@dataclass
class _Shard:
    """The organization's leaves under a shard's head: where they stand, and their hashes one after the other."""

    size: int
    indexes: array[int] = field(default_factory=lambda: array("q"))
    hashes: bytearray = field(default_factory=bytearray)

    def leaf(self, place: int) -> bytes:
        """The hash of the n-th leaf."""
        return bytes(self.hashes[place * HASH_LENGTH : (place + 1) * HASH_LENGTH])


class BundleWriter:
    """Writes one bundle into a folder."""

    def __init__(self, folder: Path, export: Export, beginning: Beginning) -> None:
        """Raises BundleBroken where the heads aren't one log."""
        try:
            self._tails = find_tails(beginning)
        except Inconsistent as error:
            raise BundleBroken(f"the heads of the log: {error}") from error
        self.files, self._export, self._beginning = Files(folder), export, beginning
        self._shards = {each.shard: _Shard(each.size) for each in beginning.shards}
        said = orjson.loads(beginning.head["entry"]) if beginning.head else {}
        self._published = said.get("org_seq"), said.get("leaf")
        self._period, self._place, self._is_loose = (moment(export.begins_at), moment(export.ends_at)), (-1, -1), False
        self._lines, self._index = self.files.open("events.jsonl"), self.files.open("events.csv")
        self._index.write(row(INDEX_COLUMNS))
        self._lists = {name: ListFile(self.files, name, EVENT_COLUMNS) for name in KINDS}
        self._lists["scans"] = ListFile(self.files, "scans", SCAN_COLUMNS)
        self._lists["keys"] = ListFile(self.files, "keys", KEY_COLUMNS)
        self._shown: dict[str, list[Record]] = {name: [] for name in self._lists}
        self._subjects: dict[str, str] = {}
        self._days: Counter[date] = Counter()
        self._areas: Counter[str] = Counter()
        self._receipts: list[Record] = []
        self.receipt_count = 0
        self.seq, self._last = 0, b""
        self.disclosed = self.erased = 0

    def add_events(self, leaves: Sequence[ChainLeaf]) -> None:
        """Append the next leaves of the chain. Raises BundleBroken where one doesn't continue it, BundleTooLarge."""
        for each in leaves:
            self._add_event(each)
        self.require_room()

    def require_room(self) -> None:
        """Raise BundleTooLarge where a verifier would take no more."""
        if self.files.written > MAX_BYTES:
            raise BundleTooLarge(
                f"A bundle has {MAX_BYTES >> 30} GiB at most. Take a shorter period, or a narrower scope."
            )

    def _add_event(self, each: ChainLeaf) -> None:
        said = orjson.loads(each.leaf)
        if said.get("org_seq") != self.seq + 1 or said.get("prev_leaf") != self._last.hex():
            raise BundleBroken(f"event {self.seq + 1} of the organization doesn't continue its chain")
        self.seq, self._last = self.seq + 1, leaf_hash(each.leaf)
        self._set_in_place(each)
        if self.seq == self._published[0] and self._last.hex() != self._published[1]:
            raise BundleBroken(f"the log published another event as the organization's number {self.seq}")
        self._lines.write(event_line(each.shard, each.index, each.leaf, each.disclosed, erased=each.erased))
        if each.erased:
            self.erased += 1
        elif each.disclosed is not None:
            self._disclose(each, said)
        elif self._export.scope == Scope() and self._is_within(said.get("appended_at", "")):
            raise BundleBroken(f"event {self.seq} of the organization is of the period, but isn't disclosed")

    def _set_in_place(self, each: ChainLeaf) -> None:
        """Keep the hash of a leaf that stands under a signed head; count one that a recovery left without."""
        place, shard = (each.shard, each.index), self._shards.get(each.shard)
        if place <= self._place:
            raise BundleBroken(f"event {self.seq} of the organization stands in no order with the one before")
        self._place, self._is_loose = place, shard is None or each.index >= shard.size
        if shard is not None and not self._is_loose:
            shard.indexes.append(each.index)
            shard.hashes += self._last
        elif not any(start <= place < end for start, end in self._tails):
            raise BundleBroken(f"event {self.seq} of the organization stands under no signed head")

    def _is_within(self, at: str) -> bool:
        return self._period[0] <= at < self._period[1]

    def _disclose(self, each: ChainLeaf, leaf: Mapping[str, Any]) -> None:
        raw, salt = each.disclosed or (b"", b"")
        if leaf.get("payload_commitment") != commitment(raw, salt):
            raise BundleBroken(f"event {self.seq} of the organization has another payload than its leaf commits to")
        self.disclosed += 1
        found = record(orjson.loads(raw))
        if not self._is_within(found["occurred_at"]) and not self._is_within(leaf.get("appended_at", "")):
            raise BundleBroken(f"event {self.seq} of the organization isn't of the period")
        numbers = {"shard": str(each.shard), "index": str(each.index), "org_seq": str(self.seq)}
        self._index.write(row(cells({**numbers, **found}, INDEX_COLUMNS)))
        self._days[datetime.fromisoformat(found["occurred_at"]).date()] += 1
        self._areas[found["action"].partition(".")[0]] += 1
        for kind in kinds_of(found["action"], found["authority"]):
            self.add(kind, found)
        target = found["target"]
        if target.startswith(_SUBJECTS) and (target in self._subjects or len(self._subjects) < _MOST_SUBJECTS):
            self._subjects[target] = found["event_id"]

    def add(self, name: str, found: Record) -> None:
        """Append an object to one of the lists for people."""
        self._lists[name].add(found)
        if len(self._shown[name]) < SHOWN_ROWS:
            self._shown[name].append(found)

    def add_scans(self, scans: Sequence[Record]) -> None:
        """Append scans, each with the last disclosed event about it."""
        for scan in scans:
            self.add("scans", {**scan, "event_id": self._subjects.get(f"scans/{scan['scan_id']}", "")})

    def add_connections(self, connections: Sequence[Record], now: datetime) -> None:
        """Append how the keys of connections stand, each with the last disclosed event about it."""
        for found in connections:
            about = {name: found[name] for name in found if name != "connection_id"}
            event_id = self._subjects.get(f"connections/{found['connection_id']}", "")
            age = (now - datetime.fromisoformat(found["created_at"])).days
            self.add("keys", {**about, "event_id": event_id, "age_days": str(age), "valid_from": "", "valid_to": ""})

    def add_signing_keys(self, manifest: str) -> None:
        """Append the log's keys as its manifest lists them."""
        for line in manifest.partition("\n\n")[0].split("\n"):
            words = line.split(" ")
            if len(words) == 5 and words[1] == "ed25519":
                empty = dict.fromkeys(KEY_COLUMNS, "")
                listed = {"kind": words[0], "id": words[2], "valid_from": words[3], "valid_to": words[4]}
                self.add("keys", {**empty, **listed, "state": "LISTED"})

    def add_receipt(self, receipt_id: str, bundle: bytes, summary: Record) -> None:
        """Write a receipt's bundle."""
        self.files.put(f"receipts/{receipt_id}.json", bundle)
        self.receipt_count += 1
        self.note_receipt(summary)
        self.require_room()

    def note_receipt(self, summary: Record) -> None:
        """Have the summary show a receipt, also one whose bundle can't be made any more."""
        if len(self._receipts) < SHOWN_ROWS * 50:
            self._receipts.append(summary)

    def ranges(self, shard: int, size: int) -> Iterator[tuple[int, int]]:
        """The ranges whose hashes prove the organization's leaves in a shard's tree."""
        return uncovered(self._shards[shard].indexes, size)

    def write_shards(self) -> None:
        """Write checkpoints and openings, and see that the hashes in tree.txt lead to each root.

        tree.txt must be there. Raises BundleBroken.
        """
        if self.seq != self._beginning.chain_seq:
            raise BundleBroken(f"the chain has {self.seq} events, and not {self._beginning.chain_seq}")
        if self._is_loose:
            raise BundleBroken(f"the last event, {self.seq}, stands under no signed head")
        for head in self._beginning.shards:
            shard, name = self._shards[head.shard], f"log/{head.shard}"
            try:
                root = fold(shard.indexes, shard.leaf, head.size, self._tree(head.shard))
            except ProofInvalid as error:
                raise BundleBroken(f"the tree of shard {head.shard}: {error}") from error
            if root != head.root:
                raise BundleBroken(f"the leaves of shard {head.shard} don't lead to its signed root")
            self.files.put(f"{name}/checkpoint", head.note.encode())
            if head.opening is not None:
                self.files.put(f"{name}/opening.json", rfc8785.dumps(head.opening.document()))

    def _tree(self, shard: int) -> Iterator[bytes]:
        with self.files.path(f"log/{shard}/tree.txt").open("rb") as tree:
            for line in tree:
                yield b64decode(line.strip(), validate=True)

    def write_head(self) -> None:
        """Write the organization's newest published head, where there is one."""
        head = self._beginning.head
        if head is None:
            return
        event = head["event"]
        document = {
            **event.document(),
            "entry": head["entry"],
            "path": [encode(each) for each in head["path"]],
            "position": head["position"],
            "index": event.index,
            "shard": head["shard"],
        }
        self.files.put("head.json", rfc8785.dumps(document))

    def finish(self, contents: Contents, requested_by: str) -> None:
        """End the lists, and write the summary."""
        self._lines.close()
        self._index.close()
        for each in self._lists.values():
            each.close()
        summary = Summary(
            contents=contents,
            requested_by=requested_by,
            events_a_day=self._days,
            events_by_area=self._areas,
            shown=self._shown,
            totals={name: each.count for name, each in self._lists.items()},
            receipts=self._receipts,
            scans=self._shown["scans"],
            keys=self._shown["keys"],
        )
        self.files.put("summary.html", page(summary).encode())

    @property
    def totals(self) -> Totals:
        """Where the chain ends, and how much there is."""
        return Totals(
            chain_seq=self.seq,
            chain_leaf=self._last,
            disclosed=self.disclosed,
            erased=self.erased,
            receipts=self.receipt_count,
        )

    def write_seal(self, manifest: bytes, sealed: Seal) -> None:
        """Write what was signed, and the seal."""
        self.files.put(MANIFEST, manifest)
        self.files.put(SEAL, seal(sealed.event, sealed.consistency, sealed.key_manifest))
