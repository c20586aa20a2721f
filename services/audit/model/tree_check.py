"""Holds the tree's stored nodes against their children, and its roots against every checkpoint's note. Pure.

It walks from left to right and computes each node from the leaves' hashes, never from a stored node above them, so that
one changed node is named once and everything else is judged by what it should have been.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from services.audit.model.faults import Fault
from services.audit.model.merkle import Frontier, Node
from services.audit.model.notes import NoteInvalid, TreeHead


@dataclass(frozen=True, slots=True)
class CheckpointRow:
    """A stored checkpoint; `size` within its shard."""

    size: int
    root: bytes
    note: str
    signed_at: datetime


# The head that a note says, when a key of the log signed it, and nobody else; raises NoteInvalid.
ReadNote = Callable[[str], TreeHead]


# The clocks of two processes may differ by so much.
CLOCK_SKEW = timedelta(minutes=5)


def windows(lo: int, hi: int) -> list[tuple[int, int, int]]:
    """The nodes that become complete with the leaves from `lo` to before `hi`, as (height, first, past the last)."""
    found = []
    for height in range(hi.bit_length()):
        first, last = lo >> height, hi >> height
        if first < last:
            found.append((height, first, last))
    return found


class TreeCheck:
    """Walks one shard's tree. `start` is its first leaf's place; `sound` the newest size whose checkpoint agreed."""

    def __init__(self, start: int, origin: str, frontier: Frontier, read_note: ReadNote, sound: int = 0) -> None:
        self._start, self._origin, self._read_note = start, origin, read_note
        self.frontier, self.sound = frontier, sound
        self.checkpoints = 0
        self._newest_signed: datetime | None = None

    def check(
        self,
        hi: int,
        nodes: Mapping[Node, bytes],
        leaf_hashes: Mapping[int, bytes],
        checkpoints: Sequence[CheckpointRow],
    ) -> list[Fault]:
        """Go on to size `hi`. `leaf_hashes` has what leaves truly hash to, by place, where the tree says otherwise."""
        return list(self._walk(hi, nodes, leaf_hashes, checkpoints))

    def _walk(
        self,
        hi: int,
        nodes: Mapping[Node, bytes],
        leaf_hashes: Mapping[int, bytes],
        checkpoints: Sequence[CheckpointRow],
    ) -> Iterator[Fault]:
        by_size: dict[int, list[CheckpointRow]] = {}
        for row in checkpoints:  # Beside the stored one there can be what the signer says that it signed.
            by_size.setdefault(row.size, []).append(row)
        while self.frontier.size < hi:
            index = self.frontier.size
            leaf = leaf_hashes.get(self._start + index) or nodes.get((0, index))
            if leaf is None:
                yield Fault(self._start + index, "nodes", "the leaf's hash is missing")
                leaf = b""
            for height, position, digest in self.frontier.append(leaf)[1:]:
                stored = nodes.get((height, position))
                if stored != digest:
                    what = "is missing" if stored is None else "isn't its children's"
                    first = self._start + (position << height)
                    yield Fault(first, "nodes.hash", f"the node of height {height} over the leaves from here {what}")
            for row in by_size.get(self.frontier.size, ()):
                yield from self._checkpoint(row)

    def _checkpoint(self, row: CheckpointRow) -> Iterator[Fault]:
        last = self._start + row.size - 1
        self.checkpoints += 1
        if self._newest_signed is not None and row.signed_at < self._newest_signed - CLOCK_SKEW:
            yield Fault(last, "checkpoints.signed_at", "a smaller checkpoint was signed later")
        self._newest_signed = max(self._newest_signed or row.signed_at, row.signed_at)
        try:
            head = self._read_note(row.note)
        except NoteInvalid as error:
            yield Fault(last, "checkpoints.note", str(error))
            return
        if head.size != row.size:
            yield Fault(self._start + head.size - 1, "checkpoints.size", f"it says {row.size}, the note {head.size}")
        elif head.origin != self._origin:
            yield Fault(last, "checkpoints.note", f"its origin is {head.origin}")
        elif head.root != row.root:
            yield Fault(last, "checkpoints.root", "the note has another root")
        elif head.root != self.frontier.root():
            what = f"leaves from here to index {row.size - 1} aren't the ones that were signed at size {row.size}"
            yield Fault(self._start + self.sound, "nodes", what)
        else:
            self.sound = row.size


def beyond(found: Sequence[tuple[int, str, str]]) -> list[Fault]:
    """The faults of rows behind the head. Where nodes and known events both go on, it is the head that is wrong."""
    size = max((place for place, _, _ in found), default=0)
    behind = {field for place, field, _ in found if place == size}
    if size and {"nodes", "dedup.idx"} <= behind:
        return [Fault(size, "head.size", "; ".join(what for place, _, what in found if place == size))]
    return [Fault(*each) for each in found]
