"""audit.append: events through the gRPC API in batches, durable, against `unnest` inserts of the same bytes."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from statistics import quantiles
from typing import Any
from uuid import UUID, uuid4

from bench.log_mesh import event
from bench.measuring import Result, compare, resident_mib
from recoup.audit.v1 import audit_pb2, audit_service_pb2, audit_service_pb2_grpc
from recoup_local.embedded.postgres import connect
from recoup_local.supervisor import LocalMesh
from tests.support.mesh import channel_of

EVENTS, BATCH, WORKERS = 10_000, 250, 8
FLOOR_ROWS_A_COMMIT = 100
# Half of the rate that is aimed at.
STEADY_RATE, STEADY_SECONDS, STEADY_BATCH = 5000, 4, 50
FLOOR = f"unnest inserts, {FLOOR_ROWS_A_COMMIT} a commit"


async def run(mesh: LocalMesh) -> Result:
    """Measure; beside it the acknowledgement's 99th percentile at a steady rate, and the audit process's memory."""
    async with channel_of(mesh, "audit", "identity") as channel:
        stub = audit_service_pb2_grpc.AuditServiceStub(channel)
        before = resident_mib(mesh.pid("audit"))

        async def subject() -> float:
            return await throughput(stub)

        async def floor() -> float:
            return await _floor(mesh)

        result = await compare("audit.append", "events/s", FLOOR, subject, floor)
        p99 = await _steady(stub)
    facts = {
        f"p99 of an acknowledgement at {STEADY_RATE} events/s, ms": round(p99 * 1000, 1),
        "audit's memory before, MiB": before,
        "audit's memory after, MiB": resident_mib(mesh.pid("audit")),
    }
    return replace(result, facts=facts)


async def throughput(stub: Any) -> float:
    """Events a second, when each of some producers sends its batches one after the other."""
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


async def _floor(mesh: LocalMesh) -> float:
    assert mesh.postgres is not None
    connection = await connect(mesh.postgres)
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
