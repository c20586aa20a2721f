"""Events on their way in and out of the log: as produced, as asked for, as kept, as proven. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from services.audit.model.leaf import SALT_LENGTH
from services.audit.model.shards import split

# Formats of a kept payload: 1 is salt ‖ payload in the clear, 2 is sealed (model/sealing.py).
CLEAR, SEALED = 1, 2


class PayloadState(StrEnum):
    """Whether an event's payload is there: as it was, erased with its subject's key, or lost or changed."""

    PRESENT = "PRESENT"
    ERASED = "ERASED"
    UNREADABLE = "UNREADABLE"


@dataclass(frozen=True, slots=True)
class Produced:
    """An event as a producer hands it over, not yet checked."""

    event_id: UUID
    organization_id: UUID
    producer_counter: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events are listed; empty parts don't narrow."""

    action: str = ""
    target: str = ""
    request_id: str = ""
    occurred_after: datetime | None = None
    occurred_before: datetime | None = None
    actor: str = ""
    role: str = ""
    result: str = ""
    trace_id: str = ""

    @property
    def by_time(self) -> bool:
        """Whether the list goes by when events happened, and not by their place in the log."""
        return self.occurred_after is not None or self.occurred_before is not None


@dataclass(frozen=True, slots=True)
class Position:
    """The last event of a page: the next one goes on behind it."""

    place: int
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class Recorded:
    """An event as the log keeps it: its projection, its leaf, and its payload as it is stored.

    A sealed payload is read after `Opener.open` only; of one that isn't there, salt and payload are empty.
    """

    organization_id: UUID
    event_id: UUID
    place: int
    organization_seq: int
    producer: str
    producer_counter: int
    action: str
    target: str
    result: str
    role: str
    occurred_at: datetime
    appended_at: datetime
    request_id: str
    trace_id: str
    leaf: bytes
    format: int
    content: bytes
    key_id: UUID | None = None
    state: PayloadState = PayloadState.PRESENT

    @property
    def shard(self) -> int:
        """The shard that the event stands in."""
        return split(self.place)[0]

    @property
    def index(self) -> int:
        """The leaf's index within its shard."""
        return split(self.place)[1]

    @property
    def salt(self) -> bytes:
        """The salt of the payload's commitment."""
        return self._clear()[:SALT_LENGTH]

    @property
    def payload(self) -> bytes:
        """The payload, an RFC 8785 document."""
        return self._clear()[SALT_LENGTH:]

    def _clear(self) -> bytes:
        if self.state is PayloadState.PRESENT and self.format != CLEAR:
            raise ValueError(f"the payload of {self.event_id} isn't opened")
        return self.content


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A signed head of a shard's tree, as the log keeps it."""

    shard: int
    size: int
    root: bytes
    note: str
    signed_at: datetime


@dataclass(frozen=True, slots=True)
class Proven:
    """An event with its inclusion proof, and the head of its shard that the proof leads to."""

    event: Recorded
    proof: Sequence[bytes]
    head: Checkpoint | None = None
