"""identity.exchange_p99_ms: a passport exchanged for a narrower one at identity, each for the first time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from statistics import median, quantiles
from typing import Any

from grpc_health.v1 import health_pb2, health_pb2_grpc

from bench.measuring import Result, compare
from recoup.identity.v1 import identity_service_pb2 as pb
from recoup.identity.v1 import identity_service_pb2_grpc
from recoup_local.issuer import organization_id
from recoup_local.supervisor import LocalMesh
from tests.support.mesh import channel_of

EXCHANGES, IN_FLIGHT = 500, 4
Call = Callable[[], Awaitable[Any]]


async def run(mesh: LocalMesh) -> Result:
    """Measure; the floor is a call over the same kind of connection to the same process that does nothing."""
    taken: list[float] = []
    issued: list[float] = []
    async with (
        channel_of(mesh, "identity", "client/tests") as client,
        channel_of(mesh, "identity", "actions") as actions,
    ):
        issuer = identity_service_pb2_grpc.IdentityServiceStub(client)
        exchanger = identity_service_pb2_grpc.IdentityServiceStub(actions)
        health = health_pb2_grpc.HealthStub(client)
        session = mesh.token("acme", "Admin")
        wanted = pb.IssuePassportRequest(
            session_token=session, audience="actions", organization_id=str(organization_id("acme"))
        )

        async def issue() -> str:
            return str((await issuer.IssuePassport(wanted, timeout=30)).passport)

        async def subject() -> float:
            passports = await _in_turn([issue] * EXCHANGES, issued)

            def exchange(passport: str) -> Call:
                request = pb.ExchangePassportRequest(passport=passport, audience="scanner")
                return lambda: exchanger.ExchangePassport(request, timeout=30)

            found: list[float] = []
            await _in_turn([exchange(passport) for passport in passports], found)
            taken.extend(found)
            return _p99(found)

        async def floor() -> float:
            found: list[float] = []
            await _in_turn([lambda: health.Check(health_pb2.HealthCheckRequest(), timeout=30)] * EXCHANGES, found)
            return _p99(found)

        result = await compare("identity.exchange_p99_ms", "ms", "p99 of a health check there", subject, floor)
    facts = {
        "median of an exchange, ms": round(median(taken) * 1000, 2),
        "p99 of a session's passport, ms": round(_p99(issued), 2),
    }
    return replace(result, facts=facts)


async def _in_turn(calls: list[Call], taken: list[float]) -> list[Any]:
    """Make the calls, a few at a time; their answers, and how long each took."""
    left = iter(calls)
    answers = []

    async def caller() -> None:
        for call in left:
            began = time.perf_counter()
            answers.append(await call())
            taken.append(time.perf_counter() - began)

    await asyncio.gather(*(caller() for _ in range(IN_FLIGHT)))
    return answers


def _p99(taken: list[float]) -> float:
    return quantiles(taken, n=100)[98] * 1000
