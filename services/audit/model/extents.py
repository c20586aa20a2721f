"""What there is to check: each shard with its size, and whether the rows that say so agree with each other. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from services.audit.model.faults import Fault
from services.audit.model.progress import Extent
from services.audit.model.shards import origin_of, place_of, split


class Shard(Protocol):
    """A shard's row, with the head's place beside it."""

    @property
    def shard(self) -> int: ...
    @property
    def origin(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def closed_size(self) -> int | None: ...
    @property
    def head(self) -> int: ...


def extents_of(
    name: str, shards: Sequence[Shard], largest: Mapping[int, int], start: int
) -> tuple[list[Extent], list[Fault]]:
    """The shards' extents from the place `start`, and what is wrong with their rows.

    `largest` has each shard's size as its leaves' hashes have it: where a row says more than that, no leaf is looked
    for that was never there.
    """
    extents: list[Extent] = []
    faults: list[Fault] = []
    for number, row in enumerate(shards):
        place = place_of(row.shard, 0)
        if row.shard != number:
            faults.append(Fault(place, "shards.shard", f"shard {number} is missing"))
        if row.origin != origin_of(name, row.shard):
            faults.append(Fault(place, "shards.origin", f"it isn't {origin_of(name, row.shard)}"))
        if (row.kind == "FIRST") != (row.shard == 0):
            faults.append(Fault(place, "shards.kind", f"shard {row.shard} isn't {row.kind}"))
        size, field = _size(row)
        there = largest[row.shard]
        if size is None or size > there or (row.closed_size is not None and size != there):
            faults.append(Fault(place_of(row.shard, there), field, f"it says {size}, but there are {there} leaves"))
            size = there
        first = split(start)[1] if split(start)[0] == row.shard else 0 if start <= place else size
        extents.append(Extent(row.shard, origin_of(name, row.shard), min(first, size), size))
    return extents or [Extent(0, name, 0, 0)], faults


def _size(row: Shard) -> tuple[int | None, str]:
    """The shard's size as its row, or the head, says; None where the head is in another shard."""
    if row.closed_size is not None:
        return row.closed_size, "shards.closed_size"
    shard, size = split(row.head)
    return (size if shard == row.shard else None), "head.size"
