"""audit.flat_10m and audit.proof_p99_ms: what a log of ten million entries costs, against one of ten thousand."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from random import Random
from statistics import median, quantiles
from typing import Any
from uuid import UUID, uuid4

import grpc.aio

from bench.audit_append import throughput
from bench.filling import Filler
from bench.log_mesh import event
from bench.measuring import RUNS, Result, compare, resident_mib
from recoup.audit.v1 import audit_service_pb2 as pb
from recoup.audit.v1 import audit_service_pb2_grpc
from recoup.identity.v1 import identity_service_pb2, identity_service_pb2_grpc
from recoup_local.embedded.postgres import connect
from recoup_local.issuer import organization_id
from recoup_local.supervisor import LocalMesh
from services.audit.model import merkle
from tests.support.mesh import channel_of, soon

SMALL = 10_000
PROOFS = 1000
# Other organizations beside the one whose events are proved.
OTHERS = 15


class FilledLog:
    """A log that is filled once for both benchmarks, which it must then be large enough for."""

    def __init__(self, mesh: LocalMesh, entries: int) -> None:
        self._mesh, self._entries = mesh, entries
        self._small: list[float] = []
        self._filler: Filler | None = None
        self.facts: dict[str, float] = {}

    async def flat(self) -> Result:
        """The rate of appends at the full size, in parts of that at ten thousand."""
        await self._fill()
        async with channel_of(self._mesh, "audit", "identity") as channel:
            stub = audit_service_pb2_grpc.AuditServiceStub(channel)
            large = await _rates(stub)
        runs = [{"subject": round(a, 1), "floor": round(b, 1)} for a, b in zip(large, self._small, strict=True)]
        ratio = round(median(large) / median(self._small), 4)
        floor = f"the same at {SMALL} entries"
        facts = {**self.facts, "audit's memory after, MiB": resident_mib(self._mesh.pid("audit"))}
        return Result("audit.flat_10m", median(large), "events/s", floor, median(self._small), ratio, runs, facts)

    async def proof(self) -> Result:
        """The 99th percentile of an inclusion proof, milliseconds, against a read of the same row by its key."""
        await self._fill()
        assert self._filler is not None
        assert self._mesh.postgres is not None
        acme = organization_id("acme")
        events = [event_id for organization, event_id in self._filler.sample if organization == acme]
        passport = await self._passport()
        random, row = Random(1), await connect(self._mesh.postgres)
        async with channel_of(self._mesh, "audit", "client/tests") as channel:
            stub = audit_service_pb2_grpc.AuditServiceStub(channel)

            async def prove(event_id: UUID) -> None:
                request = pb.GetEventProofRequest(organization_id=str(acme), event_id=str(event_id))
                await stub.GetEventProof(request, metadata=(("authorization", f"Bearer {passport}"),), timeout=30)

            async def read(event_id: UUID) -> None:
                await row.fetchrow("SELECT * FROM audit.dedup WHERE event_id = $1", event_id)

            async def signed() -> bool | None:
                return await _answered(prove, events[-1])

            await soon(signed)
            chosen = random.choices(events, k=PROOFS)
            name = "a row of the same event by its key, p99"
            result = await compare(
                "audit.proof_p99_ms", "ms", name, lambda: _p99(prove, chosen), lambda: _p99(read, chosen)
            )
        await row.close()
        return replace(result, facts=self.facts)

    async def _fill(self) -> None:
        if self._filler is not None:
            return
        assert self._mesh.postgres is not None
        connection = await connect(self._mesh.postgres)
        async with channel_of(self._mesh, "audit", "identity") as channel:
            stub = audit_service_pb2_grpc.AuditServiceStub(channel)
            self._small = await _rates(stub)
        size = await connection.fetchval("SELECT size FROM audit.head")
        rows = await connection.fetch("SELECT height, position, hash FROM audit.nodes")
        nodes = {(row["height"], row["position"]): bytes(row["hash"]) for row in rows}
        organizations = [organization_id("acme"), *(UUID(int=n) for n in range(1, OTHERS + 1))]
        self._filler = Filler(merkle.Frontier.at(size, nodes), organizations)
        began = time.perf_counter()
        await self._filler.fill(connection, self._entries)
        async with channel_of(self._mesh, "audit", "identity") as channel:
            # The sequencer finds the head elsewhere than it left it, says no once, and takes over.
            await soon(lambda: _appended(audit_service_pb2_grpc.AuditServiceStub(channel)))
        await connection.execute("ANALYZE audit.entries, audit.payloads, audit.dedup, audit.nodes")
        await connection.execute("CHECKPOINT")
        stored = await connection.fetchval("SELECT pg_database_size(current_database())")
        self.facts = {
            "entries": float(self._entries),
            "filled in, s": round(time.perf_counter() - began, 1),
            "database, GiB": round(stored / 2**30, 2),
        }
        await connection.close()

    async def _passport(self) -> str:
        async with channel_of(self._mesh, "identity", "client/tests") as channel:
            answer = await identity_service_pb2_grpc.IdentityServiceStub(channel).IssuePassport(
                identity_service_pb2.IssuePassportRequest(
                    session_token=self._mesh.token("acme", "Auditor"),
                    audience="audit",
                    organization_id=str(organization_id("acme")),
                ),
                timeout=10,
            )
        return str(answer.passport)


async def _rates(stub: Any) -> list[float]:
    await throughput(stub)
    return [await throughput(stub) for _ in range(RUNS)]


async def _appended(stub: Any) -> bool | None:
    try:
        await stub.AppendEvents(pb.AppendEventsRequest(events=[event(uuid4(), 1)]), timeout=30)
    except grpc.aio.AioRpcError as error:
        if error.code() == grpc.StatusCode.UNAVAILABLE:
            return None
        raise
    return True


async def _answered(prove: Callable[[UUID], Awaitable[None]], event_id: UUID) -> bool | None:
    try:
        await prove(event_id)
    except grpc.aio.AioRpcError as error:
        if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND):
            return None  # Not under a checkpoint yet.
        raise
    return True


async def _p99(call: Callable[[UUID], Awaitable[None]], events: Sequence[UUID]) -> float:
    taken = []
    for event_id in events:
        began = time.perf_counter()
        await call(event_id)
        taken.append((time.perf_counter() - began) * 1000)
    return quantiles(taken, n=100)[98]
