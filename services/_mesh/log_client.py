"""The log's client for the relay and the reconciler: appends events, and asks what the log holds of ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import grpc.aio

from recoup.audit.v1 import audit_pb2, audit_service_pb2, audit_service_pb2_grpc
from services._mesh.errors import from_rpc_error
from services._mesh.relay import PendingEvent

APPEND_SECONDS = 10.0
SUMMARY_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Summary:
    """What the log holds of a producer's events between two counters. `event_ids` only where asked for."""

    count: int
    digest: bytes
    event_ids: tuple[UUID, ...] = ()


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
        return Summary(answer.count, bytes(answer.digest), tuple(UUID(each) for each in answer.event_ids))
