"""audit.append: events through the gRPC API in batches, durable, against `unnest` inserts of the same bytes."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from statistics import quantiles
from typing import Any
from uuid import UUID, uuid4

import rfc8785

from bench.measuring import Result, compare
from recoup.audit.v1 import audit_pb2, audit_service_pb2, audit_service_pb2_grpc
from recoup_local.embedded.postgres import connect
from tests.support.mesh import TestMesh

EVENTS, BATCH, WORKERS = 8000, 250, 4
FLOOR_ROWS_A_COMMIT = 100
STEADY_RATE, STEADY_SECONDS, STEADY_BATCH = 2000, 4, 20


def event(organization: UUID, counter: int) -> audit_pb2.ProducedEvent:
    """An event of about 600 bytes."""
    event_id = uuid4()
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


async def run(made: TestMesh) -> Result:
    """Measure; prints the acknowledgement's 99th percentile at a steady rate too."""
    async with made.channel("audit", "identity") as channel:
        stub = audit_service_pb2_grpc.AuditServiceStub(channel)

        async def subject() -> float:
            return await _throughput(stub)

        async def floor() -> float:
            return await _floor(made)

        result = await compare(
            "audit.append", "events/s", f"unnest inserts, {FLOOR_ROWS_A_COMMIT} a commit", subject, floor
        )
        p99 = await _steady(stub)
    print(f"  acknowledged at {STEADY_RATE} events/s: p99 {p99 * 1000:.1f} ms")
    return result


async def _throughput(stub: Any) -> float:
    batches = []
    for _ in range(WORKERS):
        organization = uuid4()
        events = [event(organization, counter + 1) for counter in range(EVENTS // WORKERS)]
        batches.append([events[i : i + BATCH] for i in range(0, len(events), BATCH)])

    async def send(own: list[list[audit_pb2.ProducedEvent]]) -> None:
        for batch in own:
            await stub.AppendEvents(audit_service_pb2.AppendEventsRequest(events=batch), timeout=60)

    began = time.perf_counter()
    await asyncio.gather(*(send(own) for own in batches))
    return EVENTS / (time.perf_counter() - began)


async def _floor(made: TestMesh) -> float:
    assert made.mesh.postgres is not None
    connection = await connect(made.mesh.postgres)
    organization = uuid4()
    rows = [(UUID(e.event_id), e.payload) for e in (event(organization, n + 1) for n in range(EVENTS))]
    try:
        await connection.execute("CREATE TABLE IF NOT EXISTS bench_floor (id uuid PRIMARY KEY, payload bytea NOT NULL)")
        began = time.perf_counter()
        for start in range(0, EVENTS, FLOOR_ROWS_A_COMMIT):
            part = rows[start : start + FLOOR_ROWS_A_COMMIT]
            await connection.execute(
                "INSERT INTO bench_floor SELECT * FROM unnest($1::uuid[], $2::bytea[])",
                [row[0] for row in part],
                [row[1] for row in part],
            )
        return EVENTS / (time.perf_counter() - began)
    finally:
        await connection.close()


async def _steady(stub: Any) -> float:
    """The 99th percentile of acknowledgements, seconds, at a steady rate."""
    organization, counter, taken = uuid4(), 0, []

    async def one(batch: list[audit_pb2.ProducedEvent]) -> None:
        began = time.perf_counter()
        await stub.AppendEvents(audit_service_pb2.AppendEventsRequest(events=batch), timeout=60)
        taken.append(time.perf_counter() - began)

    running, pause = [], STEADY_BATCH / STEADY_RATE
    prepared = []
    for _ in range(STEADY_RATE * STEADY_SECONDS // STEADY_BATCH):
        prepared.append([event(organization, counter + place + 1) for place in range(STEADY_BATCH)])
        counter += STEADY_BATCH
    start = time.perf_counter()
    for place, batch in enumerate(prepared):
        running.append(asyncio.create_task(one(batch)))
        await asyncio.sleep(max(0.0, start + (place + 1) * pause - time.perf_counter()))
    await asyncio.gather(*running)
    return quantiles(taken, n=100)[98]
