"""What must hold of a run, whatever befell it. Pure: a history in, what is wrong with it out."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import pairwise
from uuid import UUID

from recoup_verify.documents import Disproved
from recoup_verify.log import Head, Key, verified_head
from recoup_verify.tree import check_consistency, leaf_hash
from tests.support.nemesis.history import History, Logged


def check(history: History, key: Key) -> list[str]:
    """Everything that is wrong, in words that name the event; empty when nothing is."""
    return [
        *_indexes(history),
        *_chains(history),
        *_acknowledged(history),
        *_answered(history),
        *_committed(history),
        *_counters(history),
        *_outbox(history),
        *_checkpoints(history, key),
    ]


def _indexes(history: History) -> Iterator[str]:
    """No gap and nothing twice in the log itself."""
    for place, entry in enumerate(history.log):
        if entry.index != place:
            yield f"the log has a gap or an index twice: {entry.index} stands where {place} should"
            break
    for event_id, times in Counter(entry.event_id for entry in history.log).items():
        if times > 1:
            yield f"event {event_id} is in the log {times} times"


def _chains(history: History) -> Iterator[str]:
    """Each organization's entries count from one, and each names the leaf before it."""
    last: dict[UUID, tuple[int, str]] = defaultdict(lambda: (0, ""))
    for entry in history.log:
        seq, previous = last[entry.organization_id]
        if entry.organization_seq != seq + 1:
            yield f"organization {entry.organization_id} goes from org_seq {seq} to {entry.organization_seq}"
        if json.loads(entry.leaf)["prev_leaf"] != previous:
            yield f"the leaf at {entry.index} doesn't name its organization's leaf before it"
        last[entry.organization_id] = entry.organization_seq, leaf_hash(entry.leaf).hex()


def _acknowledged(history: History) -> Iterator[str]:
    """What was acknowledged is there: once, where it was said to be, as whose it was said to be."""
    held = {entry.event_id: entry for entry in history.log}
    for ack in history.acknowledged:
        entry = held.get(ack.event_id)
        if entry is None:
            yield f"event {ack.event_id} was acknowledged at {ack.index} and isn't in the log"
        elif entry.index != ack.index:
            yield f"event {ack.event_id} was acknowledged at {ack.index} and is at {entry.index}"
        elif (entry.producer, entry.organization_id, entry.counter) != (ack.producer, ack.organization_id, ack.counter):
            yield f"event {ack.event_id} is in the log as another producer's, organization's or counter's"


def _answered(history: History) -> Iterator[str]:
    """A change of state that was answered with success left its event, once."""
    found = Counter((entry.organization_id, entry.action, entry.request_id) for entry in history.log)
    for call in history.answered:
        times = found[call.organization_id, call.action, call.request_id]
        if times != 1:
            yield f"{call.action} of request {call.request_id} was answered, and is in the log {times} times"


def _committed(history: History) -> Iterator[str]:
    """The event of a transaction that committed is in the log."""
    held = {(entry.producer, entry.organization_id, entry.event_id) for entry in history.log}
    for event in history.committed:
        if (event.producer, event.organization_id, event.event_id) not in held:
            yield f"event {event.event_id} of {event.producer} was committed and isn't in the log"


def _counters(history: History) -> Iterator[str]:
    """Every counter that a transaction took is in the log, once: from one to the last without a gap."""
    held: dict[tuple[str, UUID], list[int]] = defaultdict(list)
    for entry in history.log:
        held[entry.producer, entry.organization_id].append(entry.counter)
    for whose in {**held, **history.counted}:
        counters = sorted(held[whose])
        last = max(history.counted.get(whose, 0), counters[-1] if counters else 0)
        missing = sorted(set(range(1, last + 1)) - set(counters))
        if missing:
            yield f"{whose[0]} of organization {whose[1]}: counters {missing[:5]} of {last} are missing from the log"
        twice = [number for number, next_one in pairwise(counters) if number == next_one]
        if twice:
            yield f"{whose[0]} of organization {whose[1]}: counters {twice[:5]} are in the log twice"


def _outbox(history: History) -> Iterator[str]:
    """What a producer still holds was taken by the log, at the index that it was told."""
    held: dict[UUID, Logged] = {entry.event_id: entry for entry in history.log}
    for row in history.outbox:
        entry = held.get(row.event_id)
        if row.index is None:
            yield f"event {row.event_id} of {row.producer} was never relayed"
        elif entry is None or entry.index != row.index:
            yield f"event {row.event_id} of {row.producer} was relayed to {row.index} and isn't there"


def _checkpoints(history: History, key: Key) -> Iterator[str]:
    """Every checkpoint that was ever seen is signed, is the tree over the log's leaves, and leads to the last one."""
    if not history.checkpoints:
        yield "no checkpoint was seen"
        return
    heads = []
    for note in history.checkpoints:
        try:
            heads.append(verified_head(note, key))
        except Disproved as error:
            yield f"a checkpoint that was seen isn't one: {error}"
    last = heads[-1] if heads else Head(key.name, 0, b"")
    roots = _roots([entry.leaf for entry in history.log], {head.size for head in heads})
    if last.size != len(history.log):
        yield f"the last checkpoint has size {last.size}, but the log has {len(history.log)} entries"
    for head in heads:
        if roots.get(head.size) != head.root:
            yield f"the checkpoint of size {head.size} isn't the root over the log's leaves"
        try:
            proof = history.consistency.get(head.size, ())
            check_consistency((head.size, head.root), (last.size, last.root), proof)
        except Disproved as error:
            yield f"the checkpoint of size {head.size} isn't consistent with the last, of {last.size}: {error}"


def _roots(leaves: list[bytes], sizes: set[int]) -> dict[int, bytes]:
    """The root of the tree over the first `size` leaves, for each of `sizes`: by the peaks of a growing tree."""
    found: dict[int, bytes] = {}
    peaks: list[tuple[int, bytes]] = []
    for size, leaf in enumerate(leaves, 1):
        height, digest = 0, leaf_hash(leaf)
        while peaks and peaks[-1][0] == height:
            height, digest = height + 1, _node(peaks.pop()[1], digest)
        peaks.append((height, digest))
        if size in sizes:
            root = peaks[-1][1]
            for _, left in reversed(peaks[:-1]):
                root = _node(left, root)
            found[size] = root
    return found


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()
