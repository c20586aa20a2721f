"""Appends to the log of a running mesh as one of its producers, over mTLS; the producer itself needn't be there."""

from __future__ import annotations

from collections.abc import Sequence

from recoup.audit.v1 import audit_pb2, audit_service_pb2, audit_service_pb2_grpc
from recoup_local.supervisor import LocalMesh
from services.audit.model.events import Produced
from tests.support.mesh import channel_of


async def append(mesh: LocalMesh, events: Sequence[Produced], producer: str = "pricing") -> list[int]:
    """Append events; returns their indexes. Raises AioRpcError."""
    async with channel_of(mesh, "audit", producer) as channel:
        stub = audit_service_pb2_grpc.AuditServiceStub(channel)
        request = audit_service_pb2.AppendEventsRequest(
            events=[
                audit_pb2.ProducedEvent(
                    event_id=str(each.event_id),
                    organization_id=str(each.organization_id),
                    producer_counter=each.producer_counter,
                    payload=each.payload,
                )
                for each in events
            ]
        )
        answer = await stub.AppendEvents(request, timeout=30)
        return [int(index) for index in answer.indexes]
