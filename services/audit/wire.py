"""Between the log's messages and its model."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from recoup.audit.v1 import audit_pb2, audit_service_pb2
from services._mesh.times import moment, stamp
from services.audit.model.events import EventFilter, Produced, Proven


def produced(message: audit_pb2.ProducedEvent) -> Produced:
    """An event as a producer hands it over."""
    return Produced(UUID(message.event_id), UUID(message.organization_id), message.producer_counter, message.payload)


def event_filter(request: audit_service_pb2.ListEventsRequest) -> EventFilter:
    """What a list is narrowed to."""
    return EventFilter(
        request.action,
        request.target,
        request.request_id,
        moment(request.occurred_after) if request.HasField("occurred_after") else None,
        moment(request.occurred_before) if request.HasField("occurred_before") else None,
    )


def event(row: Any) -> audit_pb2.Event:
    """An event's row as it is read."""
    return audit_pb2.Event(
        event_id=str(row.event_id),
        organization_id=str(row.organization_id),
        index=row.idx,
        organization_seq=row.organization_seq,
        producer=row.producer,
        action=row.action,
        target=row.target,
        result=row.result,
        role=row.role,
        occurred_at=stamp(row.occurred_at),
        appended_at=stamp(row.appended_at),
        request_id=row.request_id,
        trace_id=row.trace_id,
        payload=bytes(row.payload),
    )


def proven(found: Proven) -> audit_pb2.ProvenEvent:
    """An event with its proof."""
    row = found.row
    return audit_pb2.ProvenEvent(
        leaf=bytes(row.leaf),
        index=row.idx,
        payload=bytes(row.payload),
        salt=bytes(row.salt),
        proof=list(found.proof),
    )


def checkpoint(row: Any) -> audit_pb2.Checkpoint:
    """A signed head's row."""
    return audit_pb2.Checkpoint(note=row.note, size=row.size, root=bytes(row.root))
