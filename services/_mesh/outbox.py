"""Events on their way into the outbox: their payload (RFC 8785), and the one statement that counts and writes them.

The counter of an organization is gapless because it is a row that the transaction itself changes, never a sequence:
what rolls back gives its numbers back. It must not know what any event means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from services._mesh import canonical
from services._mesh.context import CallContext
from services._mesh.database import execute_raw
from services._mesh.ids import PLATFORM as PLATFORM
from services._mesh.telemetry import trace_parent

EVENT_FORMAT = 1
# Why a process acts for itself, or under a grant: nobody's role.
SYSTEM_ROLE = "SYSTEM"
RESULTS = frozenset({"OK", "DENIED", "FAILED"})
# As the log's own proto limits a payload.
MAX_PAYLOAD_BYTES = 65536


class EventOwed(Exception):
    """State was changed, and the transaction would have committed without the event that it owes."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to `target`, such as "things/<uuid>". `metadata` is text, sanitized by the caller."""

    event_id: UUID
    action: str
    target: str
    result: str
    metadata: Mapping[str, Any]


# The counter is taken and the rows are written in one statement. `ordinality` keeps the order of emission.
# Organization, moment and traceparent; then an array of each: ids, actions, payloads.
_INSERT = """
WITH taken AS (
  INSERT INTO {schema}.outbox_counters AS c (organization_id, value) VALUES ($1, cardinality($4::uuid[]))
  ON CONFLICT (organization_id) DO UPDATE SET value = c.value + EXCLUDED.value RETURNING c.value
)
INSERT INTO {schema}.outbox (organization_id, event_id, counter, action, payload, occurred_at, trace_parent)
SELECT $1, e.event_id, taken.value - cardinality($4::uuid[]) + e.place, e.action, e.payload, $2, $3
FROM taken, unnest($4::uuid[], $5::text[], $6::bytea[]) WITH ORDINALITY AS e(event_id, action, payload, place)
"""


@cache
def _insert(schema: str) -> str:
    return _INSERT.format(schema=schema)


async def write(
    connection: AsyncConnection,
    schema: str,
    organization_id: UUID,
    events: Sequence[Event],
    context: CallContext | None,
    now: datetime,
) -> None:
    """Count and write `events`, in their order. Must be the transaction's last statement: it locks the counter."""
    payloads = [payload_of(event, organization_id, schema, context, now) for event in events]
    ids, actions = [event.event_id for event in events], [event.action for event in events]
    await execute_raw(connection, _insert(schema), organization_id, now, trace_parent(), ids, actions, payloads)


def payload_of(event: Event, organization_id: UUID, schema: str, context: CallContext | None, now: datetime) -> bytes:
    """The event's payload, RFC 8785. Who did it comes from the call's verified context, never from the use case.

    Raises ValueError where it is larger than the log takes: such an event would hold up all that follow it.
    """
    person = context.responsible_person if context else None
    payload = canonical.dumps(
        {
            "v": EVENT_FORMAT,
            "event_id": str(event.event_id),
            "organization_id": str(organization_id),
            "action": event.action,
            "target": event.target,
            "result": event.result,
            "actor": context.actor if context else f"process:{schema}",
            "responsible_person": str(person) if person else "",
            "role": (context.role if context else "") or SYSTEM_ROLE,
            "occurred_at": now.isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "request_id": context.request_id if context else "",
            "trace_id": context.trace_id if context else "",
            "authority": context.authority if context else "system",
            "metadata": dict(event.metadata),
        }
    )
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise ValueError(f"the event {event.action} has {len(payload)} bytes; the log takes {MAX_PAYLOAD_BYTES}")
    return payload
