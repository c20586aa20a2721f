"""Appends to the log of a running mesh as one of its producers, over mTLS; the producer itself needn't be there."""

from __future__ import annotations

from collections.abc import Sequence

import grpc
import grpc.aio

from recoup.audit.v1 import audit_pb2, audit_service_pb2, audit_service_pb2_grpc
from recoup_local.supervisor import LocalMesh
from services.audit.model.events import Produced


async def append(mesh: LocalMesh, events: Sequence[Produced], producer: str = "pricing") -> list[int]:
    """Append events; returns their indexes. Raises AioRpcError."""
    folder = mesh.installation.folder(producer)
    credentials = grpc.ssl_channel_credentials(
        mesh.installation.ca.cert_file.read_bytes(),
        (folder / "tls.key").read_bytes(),
        (folder / "tls.pem").read_bytes(),
    )
    address = f"127.0.0.1:{mesh.installation.ports['audit']}"
    async with grpc.aio.secure_channel(address, credentials, [("grpc.ssl_target_name_override", "audit")]) as channel:
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
