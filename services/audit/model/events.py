"""Events on their way in and out of the log: as produced, as asked for, as proven. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID


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


@dataclass(frozen=True, slots=True)
class Proven:
    """An event's row with its inclusion proof."""

    row: Any
    proof: Sequence[bytes]
