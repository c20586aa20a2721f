"""audit.flat_10m and audit.proof_p99_ms: what a log of ten million entries costs, against one of ten thousand."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from random import Random
from statistics import median, quantiles
from uuid import UUID

import asyncpg
import grpc.aio

from bench.audit_append import throughput
from bench.filling import Filler
from bench.measuring import Result, compare, resident_mib
from recoup.audit.v1 import audit_service_pb2 as pb
from recoup.audit.v1 import audit_service_pb2_grpc
from recoup.identity.v1 import identity_service_pb2, identity_service_pb2_grpc
from recoup_local.embedded.postgres import connect
from recoup_local.issuer import organization_id
from recoup_local.supervisor import LocalMesh
from services._mesh.clock import Clock
from services._mesh.config import load_settings
from services._mesh.storage.opening import open_storage
from services.audit.config import AuditSettings
from services.audit.model import merkle
from services.audit.model.tiles import WIDTH
from tests.support.mesh import channel_of, soon

SMALL = 10_000
PROOFS = 1000
# Other organizations beside the one whose events are proved.
OTHERS = 15


class FilledLog:
    """A log that is filled once for both benchmarks, which it must then be large enough for, beside a small one."""

    def __init__(self, mesh: LocalMesh, small: LocalMesh, entries: int) -> None:
        self._mesh, self._small, self._entries = mesh, small, entries
        self._filler: Filler | None = None
        self.facts: dict[str, float] = {}

    async def flat(self) -> Result:
        """The rate of appends at the full size, in parts of that at ten thousand; one after the other in turn."""
        await self._fill()
        async with (
            channel_of(self._mesh, "audit", "identity") as large,
            channel_of(self._small, "audit", "identity") as small,
        ):
            stubs = [audit_service_pb2_grpc.AuditServiceStub(channel) for channel in (large, small)]
            result = await compare(
                "audit.flat_10m",
                "events/s",
                f"the same at {SMALL} entries and what was appended since",
                lambda: throughput(stubs[0]),
                lambda: throughput(stubs[1]),
            )
        return replace(result, facts={**self.facts, "audit's memory after, MiB": resident_mib(self._mesh.pid("audit"))})

    async def proof(self) -> Result:
        """The 99th percentile of an inclusion proof by RPC, milliseconds, against a read of the same event."""
        await self._fill()
        self._small.stop()  # Idle, it would still be a tenth of what else runs.
        assert self._filler is not None
        acme = organization_id("acme")
        events = [event_id for organization, event_id in self._filler.sample if organization == acme]
        passport = await self._passport()
        random, medians = Random(1), list[float]()
        async with channel_of(self._mesh, "audit", "client/tests") as channel:
            stub = audit_service_pb2_grpc.AuditServiceStub(channel)

            async def prove(event_id: UUID) -> None:
                request = pb.GetEventProofRequest(organization_id=str(acme), event_id=str(event_id))
                await stub.GetEventProof(request, metadata=(("authorization", f"Bearer {passport}"),), timeout=30)

            async def read(event_id: UUID) -> None:
                request = pb.GetEventRequest(organization_id=str(acme), event_id=str(event_id))
                await stub.GetEvent(request, metadata=(("authorization", f"Bearer {passport}"),), timeout=30)

            async def signed() -> bool | None:
                return await _answered(prove, events[-1])

            await soon(signed)
            chosen = random.choices(events, k=PROOFS)
            name = "the same event read without a proof, p99"
            result = await compare(
                "audit.proof_p99_ms", "ms", name, lambda: _p99(prove, chosen, medians), lambda: _p99(read, chosen, [])
            )
        return replace(result, facts={**self.facts, "median of a proof, ms": round(median(medians), 2)})

    async def _fill(self) -> None:
        if self._filler is not None:
            return
        assert self._mesh.postgres is not None
        connection = await connect(self._mesh.postgres)
        # Nobody else appends meanwhile, the log itself included.
        self._mesh.kill("audit")
        size = await connection.fetchval("SELECT size FROM audit.head")
        rows = await connection.fetch("SELECT height, position, hash FROM audit.nodes")
        nodes = {(row["height"], row["position"]): bytes(row["hash"]) for row in rows}
        organizations = [organization_id("acme"), *(UUID(int=n) for n in range(1, OTHERS + 1))]
        self._filler = Filler(merkle.Frontier.at(size, nodes), organizations)
        began = time.perf_counter()
        await self._filler.fill(connection, self._entries)
        await self._archived(connection)
        # A log that grew to this size was vacuumed on the way; one that was copied in would be while it is measured.
        await connection.execute("VACUUM (ANALYZE) audit.entries, audit.payloads, audit.dedup, audit.nodes")
        await connection.execute("CHECKPOINT")
        stored = await connection.fetchval("SELECT pg_database_size(current_database())")
        self.facts = {
            "entries": float(self._entries),
            "filled in, s": round(time.perf_counter() - began, 1),
            "database, GiB": round(stored / 2**30, 2),
        }
        await connection.close()
        await self._mesh.restart("audit")

    async def _archived(self, connection: asyncpg.Connection) -> None:
        """Say that what was filled in is archived: copying ten million entries isn't what is measured here."""
        settings = load_settings(AuditSettings, self._mesh.installation.config_file("audit")).archive
        assert settings is not None
        await connection.execute(
            "INSERT INTO audit.archive (shard, location, size, complete, archived_at) VALUES (0, $1, $2, false, now())"
            " ON CONFLICT (shard) DO UPDATE SET size = excluded.size",
            open_storage(settings.folder, settings.bucket, Clock()).where,
            self._entries // WIDTH * WIDTH,
        )

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


async def _answered(prove: Callable[[UUID], Awaitable[None]], event_id: UUID) -> bool | None:
    try:
        await prove(event_id)
    except grpc.aio.AioRpcError as error:
        if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND):
            return None  # Not under a checkpoint yet.
        raise
    return True


async def _p99(call: Callable[[UUID], Awaitable[None]], events: Sequence[UUID], medians: list[float]) -> float:
    taken = []
    for event_id in events:
        began = time.perf_counter()
        await call(event_id)
        taken.append((time.perf_counter() - began) * 1000)
    medians.append(median(taken))
    return quantiles(taken, n=100)[98]
