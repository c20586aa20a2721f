"""identity.exchange_p99_ms: a passport exchanged for a narrower one at identity, each for the first time.

Measured at half of what identity can do at most, as the log's acknowledgements are: at the most it can do, what a call
takes is how many wait in front of it. Beside it the same with always so many in flight.
"""

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
    full: list[float] = []
    rates: list[float] = []
    steady: list[float] = []
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

        async def exchanges() -> list[Call]:
            return [_exchange(exchanger, each) for each in await _in_turn([issue] * EXCHANGES, [])]

        async def subject() -> float:
            calls = await exchanges()
            began = time.perf_counter()
            await _in_turn(calls, full)
            rates.append(EXCHANGES / (time.perf_counter() - began))
            taken = await _steadily(await exchanges(), rates[-1] / 2)
            steady.extend(taken)
            return _p99(taken)

        async def check() -> Any:
            return await health.Check(health_pb2.HealthCheckRequest(), timeout=30)

        async def floor() -> float:
            return _p99(await _steadily([check] * EXCHANGES, rates[-1] / 2 if rates else 100.0))

        result = await compare("identity.exchange_p99_ms", "ms", "p99 of a health check there", subject, floor)
    facts = {
        "median of an exchange, ms": round(median(steady) * 1000, 2),
        "exchanges a second at most": round(median(rates)),
        f"p99 with {IN_FLIGHT} always in flight, ms": round(_p99(full), 2),
    }
    return replace(result, facts=facts)


def _exchange(exchanger: Any, passport: str) -> Call:
    request = pb.ExchangePassportRequest(passport=passport, audience="scanner")
    return lambda: exchanger.ExchangePassport(request, timeout=30)


async def _steadily(calls: list[Call], rate: float) -> list[float]:
    """Make the calls at a rate; how long each took from when it was due, so that waiting for others counts."""
    taken: list[float] = []

    async def one(call: Call, due: float) -> None:
        await call()
        taken.append(time.perf_counter() - due)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for place, call in enumerate(calls):
            due = began + place / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(one(call, due))
    return taken


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
