"""Holds an organization's entries against everything else that says what they are. Pure.

The leaf's hash in the tree is what a signed checkpoint covers, so it is the measure: where the leaf has it, the leaf is
true and whatever differs from it is named; where it hasn't, what the columns spell decides between leaf and node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import orjson

from services.audit.model.actors import ActorHash
from services.audit.model.digests import Digest, plain_digest
from services.audit.model.events import CLEAR
from services.audit.model.faults import Fault
from services.audit.model.leaf import PROCESSES, SALT_LENGTH, Leaf, commitment
from services.audit.model.merkle import leaf_hash


@dataclass(frozen=True, slots=True)
class Opened:
    """A payload and its salt in the clear."""

    salt: bytes
    raw: bytes


@dataclass(frozen=True, slots=True)
class Erased:
    """The payload's key was destroyed, the one of the subject with this hash: nothing else is left of it."""

    subject_hash: bytes


@dataclass(frozen=True, slots=True)
class Unreadable:
    """The payload's row can't be what was written."""

    field: str
    why: str


Content = Opened | Erased | Unreadable


@dataclass(frozen=True, slots=True)
class EntryRow:
    """An entry's columns, with what the tree and the deduplication have for it. None where they have nothing."""

    place: int
    organization_id: UUID
    event_id: UUID
    organization_seq: int
    producer: str
    producer_counter: int
    action: str
    target: str
    result: str
    role: str
    # None where version 0001 kept it, which knew none.
    actor_hash: bytes | None
    predates_hashes: bool
    occurred_at: datetime
    appended_at: datetime
    request_id: str
    trace_id: str
    leaf: bytes
    node: bytes | None
    dedup_place: int | None
    dedup_digest: bytes | None
    # The tree's hash at the place that the deduplication names, where that is another one.
    node_there: bytes | None


@dataclass(frozen=True, slots=True)
class PayloadRow:
    """A payload's columns."""

    place: int
    format: int
    subject: str
    key_id: UUID | None
    content: bytes


@dataclass(frozen=True, slots=True)
class Link:
    """Where an organization's chain has come to."""

    seq: int = 0
    leaf_hash: bytes = b""
    place: int = -1


_LEAF_COLUMNS: Mapping[str, Callable[[EntryRow], object]] = {
    "event_id": lambda row: str(row.event_id),
    "organization_id": lambda row: str(row.organization_id),
    "org_seq": lambda row: row.organization_seq,
    "producer": lambda row: row.producer,
    "producer_counter": lambda row: row.producer_counter,
    "appended_at": lambda row: _moment(row.appended_at),
}
_COLUMN_OF = {"org_seq": "organization_seq"}


class ChainCheck:
    """Walks one organization's entries in the order of their places."""

    def __init__(
        self, last: Link, actor_hash: ActorHash, digest: Digest, chain: tuple[int, bytes] | None, end: int
    ) -> None:
        self.last, self._actor_hash, self._digest, self._chain, self._end = last, actor_hash, digest, chain, end
        # The newest link before `end`, and the hash of the leaf that the chain's row is about.
        self._within = last
        self._at_chain = last.leaf_hash if chain and chain[0] == last.seq else None
        # What the tree should have where it has something else: the tree's own check goes on with it.
        self.leaf_hashes: dict[int, bytes] = {}
        self.checked, self.erased, self._adopting = 0, 0, False
        self.counters: dict[str, int] = {}

    def adopt(self) -> None:
        """Take the first entry as it is: those before it were detached with their shard, and are in the archive."""
        self._adopting = True

    def check(self, row: EntryRow, payload: PayloadRow | None, content: Content | None) -> list[Fault]:
        """The faults of the next entry; `content` is the payload opened, None without a row."""
        self.checked += 1
        faults: list[Fault] = []
        fields = self._leaf(row, content, faults)
        if fields is None:
            if faults[-1].field != "entries.idx":  # What stands elsewhere is no link of the chain here.
                self._advance(Link(self.last.seq + 1, row.node or leaf_hash(row.leaf), row.place))
            return faults
        faults += self._link(row, fields)
        faults += self._columns(row, fields)
        faults += self._payload(row, payload, content, fields)
        return faults

    def close(self) -> Iterator[Fault]:
        """The faults of the chain's own row, once all entries were seen that it can be about."""
        if self._adopting:
            return
        seq, digest = self._chain or (0, b"")
        last = max(self._within.place, 0)
        if self._chain is None:
            if self._within.seq:
                yield Fault(last, "chains", "the organization's row is missing")
        elif self._within.seq > seq:
            yield Fault(last, "chains.seq", f"it says {seq}, but the organization's last entry is {self._within.seq}")
        elif self.last.seq < seq:
            # What is missing lies before the end, and is named by its own index.
            yield Fault(self._end, "chains.seq", f"it says {seq}, but the organization's last entry is {self.last.seq}")
        elif self._at_chain != digest:
            yield Fault(last, "chains.leaf_hash", "it isn't the hash of the organization's last leaf")

    def complete(self) -> bool:
        """Whether everything that the check began with was seen."""
        return self.last.place >= self._end - 1 and self.last.seq >= (self._chain or (0, b""))[0]

    def _advance(self, link: Link) -> None:
        self.last = link
        if link.place < self._end:
            self._within = link
        if self._chain and link.seq == self._chain[0]:
            self._at_chain = link.leaf_hash

    def _leaf(self, row: EntryRow, content: Content | None, faults: list[Fault]) -> Mapping[str, object] | None:
        """The true leaf's fields, or None when it can't be told."""
        digest = leaf_hash(row.leaf)
        if digest == row.node:
            fields = _decoded(row.leaf)
            if fields is None:
                faults.append(Fault(row.place, "entries.leaf", "the leaf isn't a leaf, though the tree has its hash"))
            return fields
        if row.node_there == digest and row.dedup_place is not None:
            faults.append(Fault(row.dedup_place, "entries.idx", f"the entry stands at {row.place}"))
            return None
        spelled = self._spelled(row, content)
        if spelled is not None and leaf_hash(spelled) == row.node:
            faults.append(Fault(row.place, "entries.leaf", "the leaf isn't the one whose hash the tree has"))
            return _decoded(spelled)
        if spelled == row.leaf or self._erased_and_consistent(row, content):
            what = "the tree has no hash for it" if row.node is None else "the tree has another hash for it"
            faults.append(Fault(row.place, "nodes.hash", what))
            self.leaf_hashes[row.place] = digest
            return _decoded(row.leaf)
        faults.append(Fault(row.place, "entries.leaf", "neither leaf nor columns have the hash that the tree has"))
        return None

    def _spelled(self, row: EntryRow, content: Content | None) -> bytes | None:
        """The leaf that columns, chain and payload spell."""
        if not isinstance(content, Opened):
            return None
        return Leaf(
            row.event_id,
            row.organization_id,
            row.organization_seq,
            self.last.leaf_hash,
            row.producer,
            row.producer_counter,
            row.appended_at,
            commitment(content.raw, content.salt),
        ).encode()

    def _erased_and_consistent(self, row: EntryRow, content: Content | None) -> bool:
        """Whether an entry without a payload to compare agrees with itself, so that the tree is what differs."""
        fields = _decoded(row.leaf)
        if isinstance(content, Opened) or fields is None:
            return False
        agrees = all(fields.get(name) == value(row) for name, value in _LEAF_COLUMNS.items())
        return agrees and fields.get("prev_leaf") == self.last.leaf_hash.hex()

    def _link(self, row: EntryRow, fields: Mapping[str, object]) -> Iterator[Fault]:
        if self._adopting and isinstance(number := fields.get("org_seq"), int):
            self.last, self._adopting = Link(number - 1, bytes.fromhex(str(fields.get("prev_leaf")))), False
        seq, expected = fields.get("org_seq"), self.last.seq + 1
        if seq != expected:
            yield Fault(row.place, "entries", f"the organization's entry {expected} is missing before its entry {seq}")
        elif fields.get("prev_leaf") != self.last.leaf_hash.hex():
            yield Fault(row.place, "entries.leaf", "the leaf doesn't name the organization's previous leaf")
        true = self.leaf_hashes.get(row.place) or row.node or leaf_hash(row.leaf)
        self._advance(Link(seq if isinstance(seq, int) else expected, true, row.place))
        producer, counter = fields.get("producer"), fields.get("producer_counter")
        if isinstance(producer, str) and isinstance(counter, int):
            self.counters[producer] = max(self.counters.get(producer, 0), counter)

    def _columns(self, row: EntryRow, fields: Mapping[str, object]) -> Iterator[Fault]:
        for name, value in _LEAF_COLUMNS.items():
            if fields.get(name) != value(row):
                column = _COLUMN_OF.get(name, name)
                yield Fault(row.place, f"entries.{column}", "the leaf says otherwise")
        if row.dedup_place is None:
            if fields.get("event_id") == str(row.event_id):
                yield Fault(row.place, "dedup", "its event isn't among those known")
        elif row.dedup_place != row.place:
            yield Fault(row.place, "dedup.idx", f"it says {row.dedup_place}")

    def _payload(
        self, row: EntryRow, payload: PayloadRow | None, content: Content | None, fields: Mapping[str, object]
    ) -> Iterator[Fault]:
        if payload is None or content is None:
            yield Fault(row.place, "payloads", "the payload's row is missing")
            return
        if payload.format != CLEAR and payload.subject:
            yield Fault(row.place, "payloads.subject", "a sealed payload names nobody")
        if payload.format == CLEAR and payload.key_id is not None:
            yield Fault(row.place, "payloads.key_id", "a payload in the clear has no key")
        if isinstance(content, Unreadable):
            yield Fault(row.place, f"payloads.{content.field}", content.why)
        elif isinstance(content, Erased):
            self.erased += 1
            if content.subject_hash != row.actor_hash:  # Somebody else's erasure must not hide a payload.
                yield Fault(row.place, "payloads.key_id", "it was destroyed, but is of another subject than the actor")
        elif commitment(content.raw, content.salt) != fields.get("payload_commitment"):
            yield Fault(row.place, "payloads.content", "it isn't what the leaf commits to")
        else:
            yield from self._projection(row, payload, content, fields)

    def _projection(
        self, row: EntryRow, payload: PayloadRow, content: Opened, fields: Mapping[str, object]
    ) -> Iterator[Fault]:
        """The payload is what was committed to: the columns that repeat parts of it must say the same."""
        if row.dedup_digest is not None and row.dedup_digest not in (
            self._digest(content.raw),
            plain_digest(content.raw),
        ):
            yield Fault(row.place, "dedup.payload_sha256", "it isn't the payload's")
        said = _decoded(content.raw)
        if said is None:
            yield Fault(row.place, "payloads.content", "it isn't a document, though the leaf commits to it")
            return
        for name in ("action", "target", "result", "role", "request_id", "trace_id"):
            if str(said.get(name, "")) != getattr(row, name):
                yield Fault(row.place, f"entries.{name}", "the payload says otherwise")
        if datetime.fromisoformat(str(said.get("occurred_at"))) != row.occurred_at:
            yield Fault(row.place, "entries.occurred_at", "the payload says otherwise")
        actor = str(said.get("actor", ""))
        if row.actor_hash is None:
            if not row.predates_hashes:
                yield Fault(row.place, "entries.actor_hash", "it is missing")
        elif row.actor_hash != self._actor_hash(UUID(str(fields["organization_id"])), actor):
            yield Fault(row.place, "entries.actor_hash", "it isn't that of the payload's actor")
        if payload.format == CLEAR and payload.subject != subject_of(actor):
            yield Fault(row.place, "payloads.subject", "it isn't the payload's actor")


def subject_of(actor: str) -> str:
    """The person that a payload is about; processes aren't persons."""
    return "" if actor.startswith(PROCESSES) else actor


def opened(format: int, content: bytes) -> Content:
    """A payload that isn't sealed, or isn't any more: salt ‖ payload."""
    if format != CLEAR:
        return Unreadable("format", f"there is no format {format}")
    if len(content) <= SALT_LENGTH:
        return Unreadable("content", "it is too short for a salt and a payload")
    return Opened(content[:SALT_LENGTH], content[SALT_LENGTH:])


def judge(
    walk: ChainCheck, rows: Sequence[EntryRow], payloads: Sequence[PayloadRow], contents: Mapping[int, Content]
) -> list[Fault]:
    """The faults of an organization's next entries and their payloads, by place opened in `contents`."""
    by_place = {payload.place: payload for payload in payloads}
    faults = [fault for row in rows for fault in walk.check(row, by_place.get(row.place), contents.get(row.place))]
    return faults + list(extra_payloads(list(by_place), {row.place for row in rows}))


def extra_payloads(payloads: Sequence[int], entries: set[int]) -> Iterator[Fault]:
    """Payload rows where the organization has no entry."""
    for place in payloads:
        if place not in entries:
            yield Fault(place, "payloads.idx", "no entry of this organization has this index")


def _decoded(leaf: bytes) -> Mapping[str, object] | None:
    try:
        fields = orjson.loads(leaf)
    except orjson.JSONDecodeError:
        return None
    return fields if isinstance(fields, dict) else None


def _moment(at: datetime) -> str:
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")
