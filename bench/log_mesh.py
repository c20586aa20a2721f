"""The part of the mesh that an event goes through, on a synced disk: a producer, the log, its signer and witness."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import rfc8785

from bench.measuring import TRACE_RATIO
from recoup.audit.v1 import audit_pb2
from recoup_local.supervisor import LocalMesh
from services._mesh.ids import uuid7

PROCESSES = ("audit-signer", "audit-witness", "audit", "identity", "pricing")


@contextmanager
def running_log() -> Iterator[LocalMesh]:
    """These processes and what they stand on; everything is taken down at the end."""
    state = Path(tempfile.mkdtemp(prefix="recoup-log-"))
    mesh = LocalMesh(state, cloud=False, only=PROCESSES, fsync=True, trace_ratio=TRACE_RATIO)
    try:
        asyncio.run(mesh.start())
        yield mesh
    finally:
        mesh.stop()
        shutil.rmtree(state, ignore_errors=True)


def event(organization: UUID, counter: int) -> audit_pb2.ProducedEvent:
    """An event of about 600 bytes, as identity produces them."""
    event_id = uuid7()
    payload = rfc8785.dumps(
        {
            "v": 1,
            "event_id": str(event_id),
            "organization_id": str(organization),
            "action": "identity.bench.append",
            "target": f"bench/{counter}",
            "result": "OK",
            "actor": f"user:{organization}",
            "responsible_person": str(organization),
            "role": "ADMIN",
            "occurred_at": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
            "request_id": str(event_id),
            "trace_id": "0" * 32,
            "authority": f"passport:{event_id}",
            "metadata": {"padding": "x" * 60},
        }
    )
    return audit_pb2.ProducedEvent(
        event_id=str(event_id), organization_id=str(organization), producer_counter=counter, payload=payload
    )
