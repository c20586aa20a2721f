"""What the log raises the alarm about: events `audit.alarm.raise` by kind. Pure."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from services._mesh.ids import PLATFORM

log = logging.getLogger(__name__)


class AlarmKind(StrEnum):
    """What is wrong. The event's metadata says where."""

    COUNTER_GAP = "COUNTER_GAP"
    COUNTER_REUSED = "COUNTER_REUSED"
    EVENT_CONFLICT = "EVENT_CONFLICT"
    PREFIX_NOT_OWNED = "PREFIX_NOT_OWNED"
    SIGNER_REFUSED = "SIGNER_REFUSED"
    SELF_CHECK_FAILED = "SELF_CHECK_FAILED"
    CONTROL_BYPASSED = "CONTROL_BYPASSED"
    OUTSIDE_DIFFERS = "OUTSIDE_DIFFERS"
    WITNESS_DISAGREES = "WITNESS_DISAGREES"
    SUBJECT_KEY_BROKEN = "SUBJECT_KEY_BROKEN"
    ALARMS_HELD_BACK = "ALARMS_HELD_BACK"


@dataclass(frozen=True, slots=True)
class Alarm:
    """One thing that is wrong. `metadata` is text; `once` tells what is the same thing again (else all of it does)."""

    kind: AlarmKind
    organization_id: UUID
    metadata: Mapping[str, str]
    once: str = ""

    @property
    def key(self) -> tuple[str, ...]:
        """What makes a second alarm the same as the first."""
        told = (self.once,) if self.once else tuple(f"{name}={self.metadata[name]}" for name in sorted(self.metadata))
        return (self.kind, str(self.organization_id), *told)


UNOPENED = "it doesn't open"


def broken_key(organization_id: UUID, key_id: UUID, how: str = UNOPENED) -> Alarm:
    """A subject's key isn't what it was made as, once for each way.

    Among the installation's own events: those of the organization may be under the very key.
    """
    metadata = {"organization_id": str(organization_id), "key_id": str(key_id), "how": how}
    return Alarm(AlarmKind.SUBJECT_KEY_BROKEN, PLATFORM, metadata)


# Takes an alarm without waiting, and sees that it becomes an event.
Note = Callable[[Alarm], None]


def only_log(alarm: Alarm) -> None:
    """For whoever has no outbox: the alarm is a line of the process's log."""
    log.error("security: %s of organization %s: %s", alarm.kind, alarm.organization_id, dict(alarm.metadata))
