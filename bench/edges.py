"""gateway.*: what a request costs our edge, against Envoy's transcoder with the same in front of it and behind it.

Both have TLS, the caller's session (warm: each has seen it before), a limit that lets all through, and the same server
behind them; runs alternate. What is compared is the processor time of the edge's own process for each request, and, of
`gateway.p99`, how long a caller waits at half of the rate that our edge can do at most.
"""

from __future__ import annotations

import asyncio
import json
import resource
import ssl
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from statistics import median, quantiles
from uuid import UUID

from bench.envoy_edge import await_port, envoy_edge
from bench.fixed_server import LISTED
from bench.identity_mesh import unlimited
from bench.measuring import RUNS, Result, compare
from recoup_local.embedded.nats import free_port
from recoup_local.issuer import organization_id
from recoup_local.supervisor import LocalMesh

CONNECTIONS, REQUESTS = 8, 2000
_TARGET = f"/v1/organizations/{organization_id('acme')}"
_ID = UUID(int=7)
_BODY = json.dumps({"connectionId": str(_ID), "requestId": str(UUID(int=8))}).encode()
GET = ("GET", f"{_TARGET}/scans/{_ID}", b"")
POST = ("POST", f"{_TARGET}/scans", _BODY)
LIST = ("GET", f"{_TARGET}/findings?pageSize={LISTED}", b"")


@dataclass(frozen=True)
class Edge:
    """An edge's process, its port, and whom to believe there."""

    pid: int
    port: int
    trust: ssl.SSLContext
    token: str

    def request(self, method: str, target: str, body: bytes) -> bytes:
        """A request as it is sent."""
        lines = [f"{method} {target} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {self.token}"]
        if body:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        return "\r\n".join([*lines, "", ""]).encode() + body

    def seconds(self) -> float:
        """The processor time that its process has used, by the clock that clock_getcpuclockid(3) names."""
        return time.clock_gettime((~self.pid << 3) | 2)


@dataclass(frozen=True)
class Edges:
    """Ours, Envoy's, and what ours is made of with nothing of ours in it."""

    ours: Edge
    envoys: Edge
    bare: Edge


@contextmanager
def running_edges(mesh: LocalMesh) -> Iterator[Edges]:
    """All, before one server, and allowed as many files as the machine allows: each connection is one."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    unlimited(mesh)
    config = str(mesh.installation.config_file("scanner"))
    behind = subprocess.Popen([sys.executable, "-m", "bench.fixed_server", config])
    trust = ssl.create_default_context(cafile=str(mesh.installation.ca.cert_file))
    trust.check_hostname = False
    token = mesh.token("acme", "Admin")
    try:
        await_port(behind, mesh.installation.ports["scanner"])
        with envoy_edge(mesh) as envoys, _bare_edge(mesh) as bare:
            ours = (mesh.pid("gateway"), mesh.installation.ports["gateway-rest"])
            yield Edges(*(Edge(pid, port, trust, token) for pid, port in (ours, envoys, bare)))
    finally:
        behind.terminate()
        behind.wait()


@contextmanager
def _bare_edge(mesh: LocalMesh) -> Iterator[tuple[int, int]]:
    port, config = free_port(), str(mesh.installation.config_file("gateway"))
    process = subprocess.Popen([sys.executable, "-m", "bench.bare_edge", config, str(port)])
    try:
        await_port(process, port)
        yield process.pid, port
    finally:
        process.terminate()
        process.wait()


async def get_cpu(edges: Edges) -> Result:
    """One resource."""
    return await _cpu("gateway.get_cpu", edges, GET)


async def post_cpu(edges: Edges) -> Result:
    """A change."""
    return await _cpu("gateway.post_cpu", edges, POST)


async def list_cpu(edges: Edges) -> Result:
    """A page of fifty."""
    return await _cpu("gateway.list50_cpu", edges, LIST)


async def p99(edges: Edges) -> Result:
    """How long a caller waits at half of our edge's most."""
    at_most: list[float] = []

    async def measured(edge: Edge) -> float:
        async with _connected(edge) as ask:
            return _p99(await _steadily(ask, edge.request(*GET), at_most[-1] / 2))

    async with _connected(edges.ours) as ask:
        for _ in range(2):  # The first one warms up.
            at_most.append(REQUESTS / await _elapsed(_many(ask, edges.ours.request(*GET))))
    name = "Envoy's transcoder at the same rate"
    result = await compare("gateway.p99", "ms", name, lambda: measured(edges.ours), lambda: measured(edges.envoys))
    return replace(result, facts={"requests a second at most, ours": round(at_most[-1])})


async def _cpu(name: str, edges: Edges, asked: tuple[str, str, bytes]) -> Result:
    rates: dict[int, list[float]] = defaultdict(list)

    async def measured(edge: Edge) -> float:
        async with _connected(edge) as ask:
            await ask(edge.request(*asked))
            before = edge.seconds()
            rates[edge.pid].append(REQUESTS / await _elapsed(_many(ask, edge.request(*asked))))
            return (edge.seconds() - before) / REQUESTS * 1e6

    floor = "Envoy's transcoder, processor time a request"
    result = await compare(name, "us", floor, lambda: measured(edges.ours), lambda: measured(edges.envoys))
    ours, envoys = (round(median(rates[edge.pid])) for edge in (edges.ours, edges.envoys))
    facts = {f"requests a second over {CONNECTIONS} connections": ours, "Envoy's": envoys}
    bare = [await measured(edges.bare) for _ in range(RUNS)]
    return replace(result, facts=facts | {"us a request of uvicorn and grpc.aio alone": round(median(bare), 1)})


Ask = Callable[[bytes], Awaitable[None]]


@asynccontextmanager
async def _connected(edge: Edge) -> AsyncIterator[Ask]:
    """Asks over a few connections; raises AssertionError for any answer but 200."""
    opened = [await asyncio.open_connection("127.0.0.1", edge.port, ssl=edge.trust) for _ in range(CONNECTIONS)]
    free: asyncio.LifoQueue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.LifoQueue()
    for each in opened:
        free.put_nowait(each)

    async def ask(request: bytes) -> None:
        reader, writer = pair = await free.get()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        body = await reader.readexactly(length)
        assert head[9:12] == b"200", (head, body)
        free.put_nowait(pair)

    try:
        yield ask
    finally:
        for _, writer in opened:
            writer.close()


async def _many(ask: Ask, request: bytes) -> None:
    left = iter(range(REQUESTS))

    async def caller() -> None:
        for _ in left:
            await ask(request)

    await asyncio.gather(*(caller() for _ in range(CONNECTIONS)))


async def _elapsed(work: Awaitable[None]) -> float:
    began = time.perf_counter()
    await work
    return time.perf_counter() - began


async def _steadily(ask: Ask, request: bytes, rate: float) -> list[float]:
    """How long each of the requests took from when it was due, so that waiting for others counts."""
    taken: list[float] = []

    async def one(due: float) -> None:
        await ask(request)
        taken.append(time.perf_counter() - due)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for place in range(REQUESTS):
            due = began + place / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(one(due))
    return taken


def _p99(taken: list[float]) -> float:
    return quantiles(taken, n=100)[98] * 1000
