"""Between the log's messages and its model."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from google.api.httpbody_pb2 import HttpBody

from recoup.audit.v1 import audit_pb2, audit_service_pb2
from services._mesh.log_client import Erased
from services._mesh.times import moment, stamp
from services.audit.model.events import Checkpoint, EventFilter, PayloadState, Position, Produced, Proven, Recorded
from services.audit.model.heads import PublishedHead

_STATES = {
    PayloadState.PRESENT: audit_pb2.PAYLOAD_STATE_PRESENT,
    PayloadState.ERASED: audit_pb2.PAYLOAD_STATE_ERASED,
    PayloadState.UNREADABLE: audit_pb2.PAYLOAD_STATE_UNREADABLE,
}


def produced(message: audit_pb2.ProducedEvent) -> Produced:
    """An event as a producer hands it over."""
    return Produced(UUID(message.event_id), UUID(message.organization_id), message.producer_counter, message.payload)


def erased_after(request: audit_service_pb2.FindErasedEventsRequest) -> Erased | None:
    """Where the answer before ended; None at first."""
    if not (request.after_organization_id and request.after_erasure_id):
        return None
    return Erased(UUID(request.after_organization_id), UUID(request.after_erasure_id), (), request.after_counter)


def erased_events(found: Erased | None) -> audit_service_pb2.FindErasedEventsResponse:
    """What a producer is told of its erased events."""
    if found is None:
        return audit_service_pb2.FindErasedEventsResponse()
    return audit_service_pb2.FindErasedEventsResponse(
        organization_id=str(found.organization_id),
        erasure_id=str(found.erasure_id),
        event_ids=[str(event_id) for event_id in found.event_ids],
        last_counter=found.last_counter,
    )


def event_filter(request: audit_service_pb2.ListEventsRequest) -> EventFilter:
    """What a list is narrowed to."""
    return EventFilter(
        request.action,
        request.target,
        request.request_id,
        moment(request.occurred_after) if request.HasField("occurred_after") else None,
        moment(request.occurred_before) if request.HasField("occurred_before") else None,
        request.actor,
        request.role,
        request.result,
        request.trace_id,
    )


def position(token: str) -> Position | None:
    """Where a list goes on, from an opened page token."""
    if not token:
        return None
    place, _, occurred_at = token.partition(" ")
    return Position(int(place), datetime.fromisoformat(occurred_at))


def token_of(last: Recorded) -> str:
    """What a page token holds after an event."""
    return f"{last.place} {last.occurred_at.isoformat()}"


def event(row: Recorded) -> audit_pb2.Event:
    """An event as it is read."""
    return audit_pb2.Event(
        event_id=str(row.event_id),
        organization_id=str(row.organization_id),
        index=row.index,
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
        payload=row.payload,
        payload_state=_STATES[row.state],
        shard=row.shard,
    )


def proven(found: Proven) -> audit_pb2.ProvenEvent:
    """An event with its proof."""
    event = found.event
    return audit_pb2.ProvenEvent(
        leaf=event.leaf,
        index=event.index,
        payload=event.payload,
        salt=event.salt,
        shard=event.shard,
        proof=list(found.proof),
        checkpoint=checkpoint(found.head) if found.head else None,
    )


def checkpoint(head: Checkpoint) -> audit_pb2.Checkpoint:
    """A signed head."""
    origin = head.note.partition("\n")[0]
    return audit_pb2.Checkpoint(note=head.note, size=head.size, root=head.root, shard=head.shard, origin=origin)


_OfShard = (
    audit_service_pb2.GetLogCheckpointRequest
    | audit_service_pb2.GetLogTileRequest
    | audit_service_pb2.GetCheckpointRequest
    | audit_service_pb2.GetConsistencyProofRequest
)


def shard(request: _OfShard) -> int | None:
    """The shard that is asked for; None for the newest."""
    return request.shard if request.HasField("shard") else None


def text_body(text: str) -> HttpBody:
    """A signed note, as C2SP has it served."""
    return HttpBody(content_type="text/plain; charset=utf-8", data=text.encode())


def octets_body(octets: bytes) -> HttpBody:
    """The hashes of a tile, as C2SP has them served."""
    return HttpBody(content_type="application/octet-stream", data=octets)


def organization_head(
    head: PublishedHead, publication: Proven, under: Checkpoint
) -> audit_service_pb2.GetOrganizationHeadResponse:
    """An organization's published head."""
    return audit_service_pb2.GetOrganizationHeadResponse(
        entry=head.entry,
        position=head.position,
        path=head.path,
        organization_seq=head.organization_seq,
        publication=proven(publication),
        checkpoint=checkpoint(under),
    )
