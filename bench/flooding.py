"""identity.flood_p99: what people with a session wait while tokens that nobody signed flood in beside them."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import httpx

from bench.identity_mesh import limit_strangers
from bench.measuring import Result
from recoup_local.issuer import organization_id
from recoup_local.supervisor import LocalMesh

RUNS, SECONDS, CAPACITY_SECONDS = 3, 40.0, 6.0
# The flood comes and goes, so that what else the machine does weighs on both. What follows a change isn't counted.
WINDOW, UNCOUNTED = 2.0, 0.3
CALLS_A_SECOND, SESSIONS = 20, 10
# As an installation has it, and so that nobody is slowed down.
LIMITED, UNLIMITED = (2.0, 30), (100_000.0, 100_000)
PATH = f"/v1/organizations/{organization_id('acme')}"


def run(mesh: LocalMesh) -> Result:
    """Measure p99 of valid calls under a flood at half of what the edge can refuse; the floor is the same without it.

    Beside it the same with strangers slowed down by address, as installations have it.
    """
    limit_strangers(mesh, *UNLIMITED)
    before = _processor_seconds(mesh)
    capacity = _ended(_flood(mesh, CAPACITY_SECONDS, 0.0))["401"]
    spent = (_processor_seconds(mesh) - before) / (capacity * CAPACITY_SECONDS)
    found = [_beside(mesh, capacity / 2) for _ in range(RUNS)]
    limit_strangers(mesh, *LIMITED)
    limited = [_beside(mesh, capacity / 2) for _ in range(RUNS)]
    middle, below = (median(run[name] for run in found) for name in ("subject", "floor"))
    result = Result("identity.flood_p99", middle, "ms", "the same calls alone", below, round(middle / below, 3), found)
    facts = {
        "invalid tokens a second that are refused at most": round(capacity),
        "processor time of a refusal, edge and identity, ms": round(spent * 1000, 2),
        "ratio with strangers slowed down": round(median(run["subject"] / run["floor"] for run in limited), 3),
    }
    return replace(result, facts=facts)


def _processor_seconds(mesh: LocalMesh) -> float:
    """What the edge and identity have used of the processors so far."""
    spent = 0.0
    for process in ("gateway", "identity"):
        fields = Path(f"/proc/{mesh.pid(process)}/stat").read_text().rpartition(")")[2].split()
        spent += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return spent


def _beside(mesh: LocalMesh, rate: float) -> dict[str, float]:
    """p99 of valid calls, ms, in the windows in which the flood comes, and in those between."""
    tokens = [mesh.token("acme", "Admin") for _ in range(SESSIONS)]
    asyncio.run(_let_in(mesh, tokens))
    begins_at = time.monotonic() + 1.0
    flood = _flood(mesh, SECONDS, rate, begins_at)
    try:
        taken = asyncio.run(_valid_calls(mesh, tokens, begins_at))
    finally:
        _ended(flood)
    windows: dict[str, list[float]] = {"subject": [], "floor": []}
    for due, seconds in taken:
        window, within = divmod(due - begins_at, WINDOW)
        if within >= UNCOUNTED:
            windows["subject" if int(window) % 2 else "floor"].append(seconds)
    return {name: round(quantiles(each, n=100)[98] * 1000, 3) for name, each in windows.items()}


def _flood(mesh: LocalMesh, seconds: float, rate: float, begins_at: float | None = None) -> subprocess.Popen[str]:
    url = httpx.URL(mesh.gateway_url)
    given: dict[str, Any] = {
        "host": url.host,
        "port": url.port,
        "path": PATH,
        "ca": str(mesh.installation.ca.cert_file),
        "token": mesh.token("acme", "Admin"),
        "rate": rate,
        "window": WINDOW,
        "seconds": seconds,
        "begins_at": begins_at or time.monotonic(),
    }
    flood = subprocess.Popen(
        [sys.executable, "-m", "bench.flood"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert flood.stdin is not None
    flood.stdin.write(json.dumps(given))
    flood.stdin.close()
    flood.stdin = None
    return flood


def _ended(flood: subprocess.Popen[str]) -> Mapping[str, float]:
    """Answers a second, by status, once the flood is over."""
    said, _ = flood.communicate()
    found: dict[str, float] = json.loads(said)
    return found


@asynccontextmanager
async def _client(mesh: LocalMesh) -> AsyncIterator[httpx.AsyncClient]:
    trust = ssl.create_default_context(cafile=str(mesh.installation.ca.cert_file))
    async with httpx.AsyncClient(base_url=mesh.gateway_url, verify=trust, timeout=30.0) as client:
        yield client


async def _call(client: httpx.AsyncClient, token: str) -> None:
    answer = await client.get(PATH, headers={"authorization": f"Bearer {token}"})
    assert answer.status_code == 200, answer.text


async def _let_in(mesh: LocalMesh, tokens: Sequence[str]) -> None:
    """Have the edge know these people, once it lets anybody in again from where the last flood came from."""
    async with _client(mesh) as client:
        for token in tokens:
            headers = {"authorization": f"Bearer {token}"}
            answer = await client.get(PATH, headers=headers)
            if answer.status_code == 429:
                await asyncio.sleep(float(answer.headers["retry-after"]))
                answer = await client.get(PATH, headers=headers)
            assert answer.status_code == 200, answer.text


async def _valid_calls(mesh: LocalMesh, tokens: Sequence[str], begins_at: float) -> list[tuple[float, float]]:
    """When each of the reads was due, at a steady rate by people who were let in before, and how long it took."""
    taken: list[tuple[float, float]] = []
    async with _client(mesh) as client:

        async def call(token: str, due: float) -> None:
            began = time.monotonic()
            await _call(client, token)
            taken.append((due, time.monotonic() - began))

        running = []
        for place in range(int(SECONDS * CALLS_A_SECOND)):
            due = begins_at + place / CALLS_A_SECOND
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            running.append(asyncio.create_task(call(tokens[place % SESSIONS], due)))
        await asyncio.gather(*running)
    return taken
