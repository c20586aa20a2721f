"""Turns new events into leaves, nodes and moved heads: what one flush of the sequencer writes. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from services.audit.model.actors import ActorHash
from services.audit.model.leaf import Leaf, Payload, commitment
from services.audit.model.merkle import Frontier, leaf_hash
from services.audit.model.sealing import Sealed


@dataclass(frozen=True, slots=True)
class Submission:
    """An event that a producer handed over, checked against its envelope."""

    event_id: UUID
    organization_id: UUID
    producer: str
    producer_counter: int
    payload: Payload


@dataclass(frozen=True, slots=True)
class Entry:
    """An event as it is written: its index in the shard, its leaf, its sealed payload, and its actor's hash."""

    submission: Submission
    index: int
    organization_seq: int
    leaf: bytes
    sealed: Sealed
    actor_hash: bytes


@dataclass(frozen=True, slots=True)
class Gap:
    """A producer skipped from one counter to another: the events between are missing from the log."""

    organization_id: UUID
    producer: str
    after: int
    before: int


@dataclass
class Batch:
    """What one flush writes to a shard, growing entry by entry from the heads that the database holds.

    `chains` gives each organization's last (sequence, leaf hash); `counters` each producer's last counter by
    (organization, producer).
    """

    shard: int
    frontier: Frontier
    chains: dict[UUID, tuple[int, bytes]]
    counters: dict[tuple[UUID, str], int]
    appended_at: datetime
    actors: ActorHash
    entries: list[Entry] = field(default_factory=list)
    nodes: list[tuple[int, int, bytes]] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    # Under counters that this batch has already, and under ones before the producer's last: to be held against the log.
    reused: list[Submission] = field(default_factory=list)
    late: list[Submission] = field(default_factory=list)
    _taken: set[tuple[UUID, str, int]] = field(default_factory=set)

    def add(self, submission: Submission, sealed: Sealed, *, opens: bool = False) -> int:
        """Give an event its place; returns its index in the shard.

        One that `opens` the shard comes before those of its producer that wait: what it skips isn't missing.
        """
        seq, previous = self.chains.get(submission.organization_id, (0, b""))
        leaf = Leaf(
            submission.event_id,
            submission.organization_id,
            seq + 1,
            previous,
            submission.producer,
            submission.producer_counter,
            self.appended_at,
            commitment(submission.payload.raw, sealed.salt),
        ).encode()
        index, digest = self.frontier.size, leaf_hash(leaf)
        self.nodes += self.frontier.append(digest)
        self.chains[submission.organization_id] = (seq + 1, digest)
        self._count(submission, opens)
        actor_hash = self.actors(submission.organization_id, submission.payload.actor)
        self.entries.append(Entry(submission, index, seq + 1, leaf, sealed, actor_hash))
        return index

    def _count(self, submission: Submission, opens: bool) -> None:
        key = (submission.organization_id, submission.producer)
        last, counter = self.counters.get(key, 0), (*key, submission.producer_counter)
        if counter in self._taken:
            self.reused.append(submission)
        elif submission.producer_counter <= last:
            self.late.append(submission)
        self._taken.add(counter)
        if submission.producer_counter > last + 1 and not opens:
            self.gaps.append(Gap(*key, last, submission.producer_counter))
        self.counters[key] = max(last, submission.producer_counter)


def organizations_of(submissions: Sequence[Submission]) -> set[UUID]:
    """The organizations of some submissions."""
    return {submission.organization_id for submission in submissions}


def split_known(
    submissions: Sequence[Submission], known: Mapping[UUID, tuple[bytes, int]]
) -> tuple[list[Submission], dict[UUID, int], list[UUID]]:
    """Sort submissions into new ones, repeated ones with their first index, and conflicts (same id, other content)."""
    fresh: dict[UUID, Submission] = {}
    repeated: dict[UUID, int] = {}
    conflicts: list[UUID] = []
    for submission in submissions:
        earlier = known.get(submission.event_id)
        twin = fresh.get(submission.event_id)
        if earlier is not None:
            if submission.payload.is_that_of(earlier[0]):
                repeated[submission.event_id] = earlier[1]
            else:
                conflicts.append(submission.event_id)
        elif twin is None:
            fresh[submission.event_id] = submission
        elif twin.payload.digest != submission.payload.digest:
            conflicts.append(submission.event_id)
    return list(fresh.values()), repeated, conflicts
