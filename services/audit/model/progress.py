"""How far a self-check has come, as it is kept so that a restart goes on instead of beginning anew. Pure."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import orjson

from services.audit.model.entry_check import Link
from services.audit.model.faults import Fault, Faults
from services.audit.model.shards import place_of

# What entries truly hash to is kept for so many wrong nodes; more of them are each named as they are.
MAX_CORRECTED = 1000


class Scope(StrEnum):
    """What is checked: the part since a checkpoint of some hours ago, or everything."""

    RECENT = "RECENT"
    FULL = "FULL"


class Phase(StrEnum):
    """A check goes through the organizations' entries, then through the trees."""

    ENTRIES = "ENTRIES"
    TREES = "TREES"
    DONE = "DONE"


@dataclass(frozen=True, slots=True)
class Extent:
    """A shard as it was when the check began: the leaves from `first` to before `size` are checked."""

    shard: int
    origin: str
    first: int
    size: int


@dataclass
class Progress:
    """Where a check stands. `organization` is the last one that is finished, `link` where the one after it has come."""

    scope: Scope
    started_at: datetime
    extents: list[Extent]
    epoch: int
    # Before this place entries and payloads were taken out of the database, once the archive was read back.
    attached_from: int = 0
    phase: Phase = Phase.ENTRIES
    organization: UUID | None = None
    current: UUID | None = None
    link: Link = field(default_factory=Link)
    covered: int = 0
    shard: int = 0
    size: int = 0
    sound: int = 0
    rows: int = 0
    leaves: int = 0
    erased: int = 0
    organizations: int = 0
    checkpoints: int = 0
    faults: Faults = field(default_factory=Faults)
    leaf_hashes: dict[int, bytes] = field(default_factory=dict)

    @property
    def start(self) -> int:
        """The place of the first leaf that is checked."""
        first = next((each for each in self.extents if each.first < each.size), self.extents[-1])
        return max(place_of(first.shard, first.first), self.attached_from)

    @property
    def end(self) -> int:
        """The place after the last leaf that is checked."""
        return place_of(self.extents[-1].shard, self.extents[-1].size)

    @property
    def expected(self) -> int:
        """How many leaves are to be checked."""
        return sum(each.size - each.first for each in self.attached)

    @property
    def attached(self) -> list[Extent]:
        """The shards whose entries are in the database."""
        return [each for each in self.extents if place_of(each.shard, 0) >= self.attached_from]

    def correct(self, found: dict[int, bytes]) -> None:
        """Remember what leaves truly hash to where the tree says otherwise."""
        for place, digest in found.items():
            if len(self.leaf_hashes) < MAX_CORRECTED:
                self.leaf_hashes[place] = digest

    def dump(self) -> str:
        """The progress as JSON."""
        content = {name: getattr(self, name) for name in _PLAIN}
        content |= {
            "organization": str(self.organization) if self.organization else None,
            "current": str(self.current) if self.current else None,
            "link": [self.link.seq, self.link.leaf_hash.hex(), self.link.place],
            "extents": [dataclasses.astuple(each) for each in self.extents],
            "faults": [dataclasses.astuple(each) for each in self.faults.kept],
            "fault_count": self.faults.count,
            "leaf_hashes": {str(place): digest.hex() for place, digest in self.leaf_hashes.items()},
            "started_at": self.started_at.isoformat(),
        }
        return orjson.dumps(content).decode()

    @classmethod
    def load(cls, text: str) -> Progress | None:
        """Read it back; None where it isn't one, so that the check begins anew."""
        try:
            content = orjson.loads(text)
            seq, digest, place = content["link"]
            made = cls(
                Scope(content["scope"]),
                datetime.fromisoformat(content["started_at"]),
                [Extent(*each) for each in content["extents"]],
                int(content["epoch"]),
                int(content["attached_from"]),
                Phase(content["phase"]),
                UUID(content["organization"]) if content["organization"] else None,
                UUID(content["current"]) if content["current"] else None,
                Link(seq, bytes.fromhex(digest), place),
            )
            for name in _COUNTS:
                setattr(made, name, int(content[name]))
            made.faults = Faults([Fault(*each) for each in content["faults"]], int(content["fault_count"]))
            made.leaf_hashes = {int(at): bytes.fromhex(each) for at, each in content["leaf_hashes"].items()}
        except (ValueError, KeyError, TypeError, orjson.JSONDecodeError):
            return None
        return made if made.extents else None


_COUNTS = ("covered", "shard", "size", "sound", "rows", "leaves", "erased", "organizations", "checkpoints")
_PLAIN = ("scope", "epoch", "attached_from", "phase", *_COUNTS)
