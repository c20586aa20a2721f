"""The log's client for relay, reconciler and clearing: appends events, asks what the log holds and erased of ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import grpc.aio

from recoup.audit.v1 import audit_pb2, audit_service_pb2, audit_service_pb2_grpc
from services._mesh.errors import from_rpc_error
from services._mesh.relay import PendingEvent
from services._mesh.times import stamp

APPEND_SECONDS = 10.0
SUMMARY_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Summary:
    """What the log holds of a producer's events between two counters. `event_ids` only where asked for.

    What stands before the place `detached_before` was taken out of the database with its shard, and isn't counted.
    """

    count: int
    digest: bytes
    event_ids: tuple[UUID, ...] = ()
    detached_before: int = 0


@dataclass(frozen=True, slots=True)
class Erased:
    """Events of a producer that one erasure made unreadable, up to a counter; where to go on from."""

    organization_id: UUID
    erasure_id: UUID
    event_ids: tuple[UUID, ...]
    last_counter: int


class LogClient:
    """Calls the log under this process's certificate, which tells the log who produces."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = audit_service_pb2_grpc.AuditServiceStub(channel)

    async def append(self, events: Sequence[PendingEvent]) -> list[int]:
        """Append, all or none; returns the indexes once they are durable. Raises Problem."""
        request = audit_service_pb2.AppendEventsRequest(
            events=[
                audit_pb2.ProducedEvent(
                    event_id=str(event.event_id),
                    organization_id=str(event.organization_id),
                    producer_counter=event.counter,
                    payload=event.payload,
                )
                for event in events
            ]
        )
        try:
            answer = await self._stub.AppendEvents(request, timeout=APPEND_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, "audit") from None
        return list(answer.indexes)

    async def summarize(self, organization_id: UUID, first: int, last: int, *, with_ids: bool = False) -> Summary:
        """What the log holds of ours between two counters, both included. Raises Problem."""
        request = audit_service_pb2.SummarizeProducerRequest(
            organization_id=str(organization_id), from_counter=first, to_counter=last, include_event_ids=with_ids
        )
        try:
            answer = await self._stub.SummarizeProducer(request, timeout=SUMMARY_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, "audit") from None
        ids = tuple(UUID(each) for each in answer.event_ids)
        return Summary(answer.count, bytes(answer.digest), ids, answer.detached_before)

    async def next_erased(self, since: datetime, after: Erased | None) -> Erased | None:
        """The next of our events that were erased since, erasure by erasure; None at the end. Raises Problem."""
        request = audit_service_pb2.FindErasedEventsRequest(erased_after=stamp(since))
        if after is not None:
            request.after_organization_id = str(after.organization_id)
            request.after_erasure_id = str(after.erasure_id)
            request.after_counter = after.last_counter
        try:
            answer = await self._stub.FindErasedEvents(request, timeout=SUMMARY_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, "audit") from None
        if not answer.erasure_id:
            return None
        ids = tuple(UUID(each) for each in answer.event_ids)
        return Erased(UUID(answer.organization_id), UUID(answer.erasure_id), ids, answer.last_counter)
