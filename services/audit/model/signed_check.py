"""Holds the log against what the signer says that it signed last of each shard. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from services.audit.model.faults import Fault
from services.audit.model.note_check import Held, read_stored_note
from services.audit.model.notes import Note, NoteInvalid, TreeHead
from services.audit.model.progress import Extent
from services.audit.model.shards import place_of, split
from services.audit.model.tree_check import CheckpointRow


class Head(Protocol):
    """A shard's row, with the head's place beside it."""

    @property
    def shard(self) -> int: ...
    @property
    def head(self) -> int: ...


def signed_last(
    held: Held, extent: Extent, low: int, high: int, checkpoints: Sequence[CheckpointRow], otherwise: datetime
) -> list[CheckpointRow]:
    """What was signed last, where the log has no checkpoint of that size between two: somebody may have deleted it."""
    head = _head_of(held.note)
    if head is None or head.origin != extent.origin or not low < head.size <= high:
        return []
    if any(row.size == head.size and row.root == head.root for row in checkpoints):
        return []
    newest = max((row.signed_at for row in checkpoints), default=otherwise)
    return [CheckpointRow(head.size, head.root, held.note, newest)]


def behind(held: Mapping[int, Held], shards: Sequence[Head]) -> list[Fault]:
    """Whether the log is shorter than what was signed. What a recovery gave up is stated by its opening."""
    place, last = (shards[-1].head, shards[-1].shard) if shards else (0, 0)
    for shard, each in sorted(held.items(), reverse=True):
        head = _head_of(each.note)
        if head is not None and shard >= last and place_of(shard, head.size) > place:
            of = f" of shard {shard}" if shard > last else ""
            return [Fault(place, "head.size", f"it says {split(place)[1]}, but size {head.size}{of} was signed")]
    return []


def outside(held: Mapping[int, Held], extents: Sequence[Extent], head: int, row: CheckpointRow) -> Fault | None:
    """Of a checkpoint of a size that no shard has: whether it or the head is wrong. The note says what was signed."""
    try:
        origin = TreeHead.parse(Note.parse(row.note).text).origin
        shard = next((each.shard for each in extents if each.origin == origin), 0)
        signed = read_stored_note(row.note, held[shard].keys, shard)
    except NoteInvalid as error:
        return Fault(max(row.size - 1, 0), "checkpoints.note", str(error))
    place = place_of(shard, signed.size)
    if place > head:
        return Fault(head, "head.size", f"it says {split(head)[1]}, but size {signed.size} was signed")
    if place == row.size:  # It is the shard's row that is wrong, which is named already.
        return None
    return Fault(place - 1, "checkpoints.size", f"it says {row.size}, the note {signed.size}")


def _head_of(note: str) -> TreeHead | None:
    return TreeHead.parse(Note.parse(note).text) if note else None
