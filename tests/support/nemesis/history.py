"""What was recorded of one run against the log: what it acknowledged, what it showed, and what it holds in the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """An event for which the log named an index. The same event may have been acknowledged more than once."""

    producer: str
    organization_id: UUID
    counter: int
    event_id: UUID
    index: int


@dataclass(frozen=True, slots=True)
class Answered:
    """A change of state that was answered with success: the one event that it owes has this request id."""

    organization_id: UUID
    action: str
    request_id: str


@dataclass(frozen=True, slots=True)
class Committed:
    """An event of a transaction that was seen to commit."""

    producer: str
    organization_id: UUID
    event_id: UUID


@dataclass(frozen=True, slots=True)
class Outboxed:
    """A row of a producer's outbox at the end, and the index that the log gave it (None: not yet)."""

    producer: str
    organization_id: UUID
    counter: int
    event_id: UUID
    index: int | None


@dataclass(frozen=True, slots=True)
class Logged:
    """An entry of the log at the end, with its leaf."""

    index: int
    organization_id: UUID
    organization_seq: int
    event_id: UUID
    producer: str
    counter: int
    action: str
    request_id: str
    leaf: bytes


@dataclass
class History:
    """One run. `counted` has the last counter that each producer's transactions took, by producer and organization.

    `checkpoints` are the signed notes in the order in which they were seen, the last of them after everything;
    `consistency` has, by size, the log's proof from there to the last.
    """

    acknowledged: list[Acknowledged] = field(default_factory=list)
    answered: list[Answered] = field(default_factory=list)
    committed: list[Committed] = field(default_factory=list)
    counted: Mapping[tuple[str, UUID], int] = field(default_factory=dict)
    outbox: Sequence[Outboxed] = ()
    log: Sequence[Logged] = ()
    checkpoints: list[str] = field(default_factory=list)
    consistency: Mapping[int, Sequence[bytes]] = field(default_factory=dict)
