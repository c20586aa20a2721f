"""gateway.connections: the memory of a thousand connections on which nobody asks anything, beside 200 open streams.

Both edges hold the same, one after the other, and answer GETs meanwhile. Held means: every one of the thousand is asked
at the end and answers, and every stream has had an event a second (scan progress). The streams come over two
connections of HTTP/2 where the thousand are of HTTP/2, and over one each where they are of HTTP/1.1.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from statistics import median
from typing import Protocol

import uvloop
from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection

from bench.edges import GET, Edge, running_edges
from bench.fixed_server import EVENT_SECONDS
from bench.measuring import Result, resident_mib
from recoup_local.supervisor import LocalMesh

IDLE, STREAMS, HELD_SECONDS, GETS_A_SECOND = 1000, 200, 15.0, 20
_WATCH = ("GET", f"{GET[1]}:watch", b"")
_AT_ONCE, _A_CONNECTION = 20, 100


@dataclass(frozen=True)
class Held:
    """What an edge's process had resident, MiB, with nothing, the idle, and the streams too; and its answers."""

    before: float
    idle: float
    all: float
    answer_ms: float

    @property
    def of_one(self) -> float:
        """KiB of an idle connection."""
        return (self.idle - self.before) * 1024 / IDLE

    @property
    def of_a_stream(self) -> float:
        """KiB of a stream."""
        return (self.all - self.idle) * 1024 / STREAMS


class _Connection(Protocol):
    """A caller's end."""

    async def ask(self, edge: Edge, method: str, target: str, body: bytes) -> None:
        """Raises AssertionError for any answer but 200."""

    async def watch(self, edge: Edge, begun: asyncio.Event) -> int:
        """How many events came in the time that it is held."""


@dataclass(frozen=True)
class _Way:
    """How to connect, and how many streams such a connection has."""

    connected: Callable[[Edge], AbstractAsyncContextManager[_Connection]]
    streams: int


def run(mesh: LocalMesh) -> Result:
    """KiB that an idle connection of HTTP/1.1 costs; the same of HTTP/2, and of streams, beside it."""
    ours, envoys = _both(mesh, _Way(_OverHttp1.connected, 1))
    ours2, envoys2 = _both(mesh, _Way(_OverHttp2.connected, _A_CONNECTION))
    facts = {
        "resident before, MiB": ours.before,
        f"with {IDLE} idle connections, MiB": ours.idle,
        f"with {STREAMS} open streams too, MiB": ours.all,
        "Envoy's before, MiB": envoys.before,
        "Envoy's with both, MiB": envoys.all,
        "KiB of an open stream, a connection each": round(ours.of_a_stream, 1),
        "Envoy's KiB of a stream": round(envoys.of_a_stream, 1),
        "KiB of an idle connection of HTTP/2": round(ours2.of_one, 1),
        "Envoy's of HTTP/2": round(envoys2.of_one, 1),
        "KiB of an open stream of HTTP/2": round(ours2.of_a_stream, 1),
        "Envoy's of a stream of HTTP/2": round(envoys2.of_a_stream, 1),
        "resident with both of HTTP/2, MiB": ours2.all,
        "a GET beside them, median ms": round(ours.answer_ms, 2),
        "a GET beside them over HTTP/2, median ms": round(ours2.answer_ms, 2),
        "Envoy's GET, median ms": round(envoys.answer_ms, 2),
    }
    ratio = round(ours.of_one / envoys.of_one, 3)
    measured = [{"subject": round(ours.of_one, 1), "floor": round(envoys.of_one, 1)}]
    name = "KiB of one at Envoy's edge"
    return Result("gateway.connections", ours.of_one, "KiB", name, envoys.of_one, ratio, measured, facts)


def _both(mesh: LocalMesh, over: _Way) -> tuple[Held, Held]:
    """Ours and Envoy's, in processes that held nothing before."""
    with running_edges(mesh) as edges, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_held(edges.ours, over)), runner.run(_held(edges.envoys, over))


async def _held(edge: Edge, over: _Way) -> Held:
    async with AsyncExitStack() as held:
        asking = await held.enter_async_context(over.connected(edge))
        await asking.ask(edge, *GET)  # What is made once is made.
        before = resident_mib(edge.pid)
        idle = await _opened(held, edge, over, IDLE)
        with_idle = resident_mib(edge.pid)
        watching = await _watching(held, edge, over)
        taken = await _asked_beside(asking, edge)
        everything = resident_mib(edge.pid)
        seen = [await each for each in watching]
        wanted = HELD_SECONDS / EVENT_SECONDS - 2
        assert all(each >= wanted for each in seen), f"streams had {min(seen)} events in {HELD_SECONDS} s"
        for each in idle:
            await each.ask(edge, *GET)
        return Held(before, with_idle, everything, median(taken) * 1000)


async def _opened(held: AsyncExitStack, edge: Edge, over: _Way, count: int) -> list[_Connection]:
    places, found = asyncio.Semaphore(_AT_ONCE), list[_Connection]()

    async def one() -> None:
        async with places:
            found.append(await held.enter_async_context(over.connected(edge)))

    await asyncio.gather(*(one() for _ in range(count)))
    return found


async def _watching(held: AsyncExitStack, edge: Edge, over: _Way) -> list[asyncio.Task[int]]:
    """The streams, each of which has had its first event, and how many events each has until the time is over."""
    connections = await _opened(held, edge, over, STREAMS // over.streams)
    tasks, begun = [], [asyncio.Event() for _ in range(STREAMS)]
    for place, event in enumerate(begun):
        watch = connections[place // over.streams].watch(edge, event)
        tasks.append(asyncio.create_task(watch))
        held.callback(tasks[-1].cancel)
    async with asyncio.timeout(60):
        await asyncio.gather(*(event.wait() for event in begun))
    return tasks


async def _asked_beside(asking: _Connection, edge: Edge) -> list[float]:
    taken, ends_at = [], time.perf_counter() + HELD_SECONDS
    while time.perf_counter() < ends_at:
        began = time.perf_counter()
        await asking.ask(edge, *GET)
        taken.append(time.perf_counter() - began)
        await asyncio.sleep(1 / GETS_A_SECOND)
    return taken


class _OverHttp1:
    """A connection, with one stream on it at most."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    @asynccontextmanager
    async def connected(cls, edge: Edge) -> AsyncIterator[_OverHttp1]:
        """A new one."""
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.port, ssl=edge.trust)
        try:
            yield cls(reader, writer)
        finally:
            writer.close()

    async def ask(self, edge: Edge, method: str, target: str, body: bytes) -> None:
        """Raises AssertionError for any answer but 200."""
        self._writer.write(edge.request(method, target, body))
        head = await self._head()
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        await self._reader.readexactly(length)

    async def watch(self, edge: Edge, begun: asyncio.Event) -> int:
        """How many events came in the time that it is held."""
        self._writer.write(edge.request(*_WATCH))
        await self._head()
        count = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None) as time_left:
                while await self._reader.readuntil(b"}\n"):
                    count += 1
                    if not begun.is_set():
                        begun.set()
                        time_left.reschedule(asyncio.get_running_loop().time() + HELD_SECONDS)
        return count

    async def _head(self) -> bytes:
        head = await self._reader.readuntil(b"\r\n\r\n")
        assert head[9:12] == b"200", head
        return head


class _OverHttp2:
    """A connection, which h2 speaks on for us."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._h2 = H2Connection(H2Configuration(client_side=True))
        self._h2.initiate_connection()
        self._seen: dict[int, Callable[[events.Event], None]] = {}
        self._send()

    @classmethod
    @asynccontextmanager
    async def connected(cls, edge: Edge) -> AsyncIterator[_OverHttp2]:
        """A new one, on which both have said what they allow."""
        trust = _speaking_http2(edge.trust)
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.port, ssl=trust)
        made = cls(writer)
        made._heard(await reader.read(65_536))
        reading = asyncio.create_task(made._read(reader))
        try:
            yield made
        finally:
            reading.cancel()
            writer.close()

    async def ask(self, edge: Edge, method: str, target: str, _body: bytes) -> None:
        """Raises AssertionError for any answer but 200."""
        ended = asyncio.Event()

        def see(event: events.Event) -> None:
            if isinstance(event, events.StreamEnded):
                ended.set()

        self._begin(edge, method, target, see)
        async with asyncio.timeout(60):
            await ended.wait()

    async def watch(self, edge: Edge, begun: asyncio.Event) -> int:
        """How many events came in the time that it is held."""
        count = 0

        def see(event: events.Event) -> None:
            nonlocal count
            if isinstance(event, events.DataReceived) and event.data:
                count += event.data.count(b"\n")
                begun.set()

        self._begin(edge, *_WATCH[:2], see)
        await begun.wait()
        await asyncio.sleep(HELD_SECONDS)
        return count

    def _begin(self, edge: Edge, method: str, target: str, see: Callable[[events.Event], None]) -> None:
        number = self._h2.get_next_available_stream_id()
        self._seen[number] = see
        pseudo = [(":method", method), (":scheme", "https"), (":authority", "localhost"), (":path", target)]
        self._h2.send_headers(number, [*pseudo, ("authorization", f"Bearer {edge.token}")], end_stream=True)
        self._send()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(65_536):
            self._heard(data)

    def _heard(self, data: bytes) -> None:
        for event in self._h2.receive_data(data):
            if isinstance(event, events.ResponseReceived):
                assert dict(event.headers)[b":status"] == b"200", event.headers
            if isinstance(event, events.DataReceived):
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            see = self._seen.get(getattr(event, "stream_id", 0) or 0)
            if see is not None:
                see(event)
        self._send()

    def _send(self) -> None:
        self._writer.write(self._h2.data_to_send())


_contexts: dict[ssl.SSLContext, ssl.SSLContext] = {}


def _speaking_http2(trust: ssl.SSLContext) -> ssl.SSLContext:
    """The same trust, and HTTP/2 alone."""
    if trust not in _contexts:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        made.check_hostname = False
        made.load_verify_locations(cadata="".join(map(ssl.DER_cert_to_PEM_cert, trust.get_ca_certs(binary_form=True))))
        made.set_alpn_protocols(["h2"])
        _contexts[trust] = made
    return _contexts[trust]
