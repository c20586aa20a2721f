"""What a self-check finds: which place of the log, which field, and what is wrong with it. Pure.

A place is the database's index (`shards.py`). Only the first faults are kept, by place: one changed row near the
beginning can spoil much of what stands above it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

# Which of several faults at one place is named: what holds content, before what is computed from it.
_RANK = (
    "entries",
    "payloads",
    "dedup",
    "nodes",
    "chains",
    "producers",
    "checkpoints",
    "cosignatures",
    "head",
    "shards",
    "head_entries",
    "erased_keys",
    "archive",
)
KEPT = 50


@dataclass(frozen=True, slots=True)
class Fault:
    """A row that isn't what the log says: `field` is "table.column", or "table" for a row that is missing or extra."""

    place: int
    field: str
    detail: str

    @property
    def order(self) -> tuple[int, int, bool, str]:
        """Where it stands among others: a column says more than its table."""
        table, _, column = self.field.partition(".")
        return self.place, _RANK.index(table) if table in _RANK else len(_RANK), not column, self.field


@dataclass
class Faults:
    """The first faults found so far, in order, and how many there were in all."""

    kept: list[Fault] = field(default_factory=list)
    count: int = 0

    def add(self, found: Iterable[Fault]) -> None:
        """Take more faults. Of those that are equal in order, the one that was found first stays before."""
        new = list(found)
        self.count += len(new)
        if new:
            self.kept = sorted(dict.fromkeys([*self.kept, *new]), key=lambda each: each.order)[:KEPT]

    @property
    def first(self) -> Fault | None:
        """The fault at the first place."""
        return self.kept[0] if self.kept else None
