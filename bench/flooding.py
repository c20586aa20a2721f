"""identity.flood_p99: what people with a session wait while tokens that nobody signed flood in beside them."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from statistics import median, quantiles
from typing import Any

import httpx

from bench.identity_mesh import limit_strangers
from bench.measuring import Result
from recoup_local.issuer import organization_id
from recoup_local.supervisor import LocalMesh

RUNS, SECONDS, CAPACITY_SECONDS = 5, 8.0, 6.0
CALLS_A_SECOND, SESSIONS = 50, 10
# As an installation has it, and so that nobody is slowed down.
LIMITED, UNLIMITED = (2.0, 30), (100_000.0, 100_000)
PATH = f"/v1/organizations/{organization_id('acme')}"


def run(mesh: LocalMesh) -> Result:
    """Measure p99 of valid calls under a flood at half of what the edge can refuse; the floor is the same without it.

    Beside it the same with strangers slowed down by address, as installations have it.
    """
    limit_strangers(mesh, *UNLIMITED)
    capacity = _flood_alone(mesh, CAPACITY_SECONDS)
    rate = capacity.get("401", 0.0) / 2
    quiet, flooded = _alternated(mesh, rate)
    limit_strangers(mesh, *LIMITED)
    quiet_limited, limited = _alternated(mesh, rate)
    found = [{"subject": round(f, 3), "floor": round(q, 3)} for f, q in zip(flooded, quiet, strict=True)]
    middle, below = median(flooded), median(quiet)
    result = Result("identity.flood_p99", middle, "ms", "the same calls alone", below, round(middle / below, 3), found)
    facts = {
        "invalid tokens a second that are refused at most": round(rate * 2),
        "ratio with strangers slowed down": round(median(limited) / median(quiet_limited), 3),
    }
    return replace(result, facts=facts)


def _alternated(mesh: LocalMesh, rate: float) -> tuple[list[float], list[float]]:
    """p99 of valid calls, ms: alone, and under the flood, in turn; one of each isn't counted."""
    quiet, flooded = [], []
    for turn in range(RUNS + 1):
        alone = asyncio.run(_valid_calls(mesh))
        flood = _flood(mesh, SECONDS + 2.0, rate)
        try:
            time.sleep(1.0)  # It has to come up to its rate.
            beside = asyncio.run(_valid_calls(mesh))
        finally:
            flood.communicate()
        if turn:
            quiet.append(alone)
            flooded.append(beside)
    return quiet, flooded


def _flood_alone(mesh: LocalMesh, seconds: float) -> Mapping[str, float]:
    said, _ = _flood(mesh, seconds, 0.0).communicate()
    found: dict[str, float] = json.loads(said)
    return found


def _flood(mesh: LocalMesh, seconds: float, rate: float) -> subprocess.Popen[str]:
    url = httpx.URL(mesh.gateway_url)
    given: dict[str, Any] = {
        "host": url.host,
        "port": url.port,
        "path": PATH,
        "ca": str(mesh.installation.ca.cert_file),
        "token": mesh.token("acme", "Admin"),
        "rate": rate,
        "seconds": seconds,
    }
    flood = subprocess.Popen(
        [sys.executable, "-m", "bench.flood"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert flood.stdin is not None
    flood.stdin.write(json.dumps(given))
    flood.stdin.close()
    flood.stdin = None
    return flood


async def _valid_calls(mesh: LocalMesh) -> float:
    """p99, ms, of reads at a steady rate by people who are let in, each due at its own moment."""
    trust = ssl.create_default_context(cafile=str(mesh.installation.ca.cert_file))
    tokens = [mesh.token("acme", "Admin") for _ in range(SESSIONS)]
    taken: list[float] = []
    async with httpx.AsyncClient(base_url=mesh.gateway_url, verify=trust, timeout=30.0) as client:

        async def call(token: str, due: float) -> None:
            answer = await client.get(PATH, headers={"authorization": f"Bearer {token}"})
            taken.append(time.perf_counter() - due)
            assert answer.status_code == 200, answer.text

        for token in tokens:
            await call(token, time.perf_counter())
        taken.clear()
        began, running = time.perf_counter(), []
        for place in range(int(SECONDS * CALLS_A_SECOND)):
            due = began + place / CALLS_A_SECOND
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            running.append(asyncio.create_task(call(tokens[place % SESSIONS], max(due, time.perf_counter()))))
        await asyncio.gather(*running)
    return quantiles(taken, n=100)[98] * 1000
