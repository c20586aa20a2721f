"""Who connects and doesn't get to the end of TLS is bounded: in number, of an address, in time. Others are served."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services.gateway.accepting import Acceptor
from tests.support.edge import Behind, answer_of, served
from tests.support.edge_tls import Place, on_uvloop, until

HEALTH = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


class Edge:
    """An edge, and who calls it from which of the addresses of loopback."""

    def __init__(self, place: Place, server: Any, port: int) -> None:
        self._trust, self._server, self.port = place.trust(), server, port

    async def silent(self, address: str = "127.0.0.1", says: bytes = b"") -> Streams:
        """A connection on which this much of TLS is said."""
        streams = await asyncio.open_connection("127.0.0.1", self.port, local_addr=(address, 0))
        streams[1].write(says)
        return streams

    async def status(self, address: str = "127.0.0.1") -> int:
        """What a GET over TLS is answered; 0 where the connection is ended before."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", self.port, ssl=self._trust, server_hostname="localhost", local_addr=(address, 0)
            )
            writer.write(HEALTH)
            try:
                return (await answer_of(reader))[0]
            finally:
                writer.close()
        return 0

    def counted(self, name: str) -> int:
        """The value of one series."""
        lines = self._server._gateway.watch._metrics.render().splitlines()
        return next(int(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} "))

    def refused(self, limit: str) -> int:
        """How often a limit was reached."""
        return self.counted(f'recoup_http_refused{{limit="{limit}"}}')

    async def shaking(self, number: int) -> None:
        """So many are in a handshake."""
        await until(lambda: self.counted("recoup_http_handshakes") == number)


@contextlib.asynccontextmanager
async def edge(place: Place, **settings: Any) -> AsyncIterator[Edge]:
    async with asyncio.timeout(20), served(Behind(), place.tls(), **settings) as (server, port):
        yield Edge(place, server, port)


async def ended(streams: Streams, piece: bytes = b"") -> float:
    """In how many seconds the edge ends it, whatever is said meanwhile, a piece at a time."""
    reader, writer = streams
    began = asyncio.get_running_loop().time()
    reading = asyncio.create_task(reader.read())
    while not reading.done():
        writer.write(piece)
        await asyncio.wait({reading}, timeout=0.02)
    with contextlib.suppress(ConnectionError):
        reading.result()
    writer.close()
    return asyncio.get_running_loop().time() - began


@on_uvloop
async def test_a_handshake_has_its_time_whatever_dribbles_in(place: Place) -> None:
    async with edge(place, handshake_seconds=0.4) as it:
        record = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"  # How a ClientHello of 508 bytes begins.
        slow = [await it.silent(), await it.silent(says=record)]
        await it.shaking(2)
        times = asyncio.gather(ended(slow[0]), ended(slow[1], b"\x00"))
        assert [await it.status() for _ in range(5)] == [200] * 5
        assert max(await times) < 5
        assert it.refused("handshake_seconds") == 2
        # What is no TLS ends at once, and is nobody's time that was over.
        assert await ended(await it.silent(says=HEALTH)) < 0.3
        await it.shaking(0)
        assert it.refused("handshake_seconds") == 2


@on_uvloop
async def test_an_address_has_so_many_handshakes_and_nobody_else_fewer(place: Place) -> None:
    async with edge(place, address_handshakes=2) as it:
        held = [await it.silent() for _ in range(2)]
        await it.shaking(2)
        assert await it.status() == 0
        assert await it.status("127.0.0.2") == 200
        assert it.refused("address_handshakes") == 1
        held.pop()[1].close()
        await it.shaking(1)
        assert await it.status() == 200
        held.pop()[1].close()


@on_uvloop
async def test_where_there_are_too_many_the_oldest_ends_once_it_had_its_time(place: Place) -> None:
    async with edge(place, handshakes=3, handshake_seconds=2.0) as it:
        first = await it.silent("127.0.0.2")
        await it.shaking(1)
        others = [await it.silent(f"127.0.0.{3 + number}") for number in range(2)]
        await it.shaking(3)
        assert await it.status() == 0  # It may be that we are slow, and not they.
        await asyncio.sleep(0.5)
        assert await it.status() == 200
        assert await ended(first) < 1
        assert it.refused("handshakes") == 2
        assert it.refused("handshake_seconds") == 0
        for _, writer in others:
            writer.close()


@on_uvloop
async def test_an_address_has_so_many_connections_and_nobody_else_fewer(place: Place) -> None:
    async with edge(place, address_connections=3) as it:

        async def held(*spoken: str) -> Streams:
            return await asyncio.open_connection(
                "127.0.0.1", it.port, ssl=place.trust(*spoken), server_hostname="localhost"
            )

        holding = [await held("http/1.1"), await held("h2"), await it.silent()]
        await until(lambda: len(it._server.server_state.connections) == 2)
        await it.shaking(1)
        assert await it.status() == 0
        assert await it.status("127.0.0.2") == 200
        assert it.refused("address_connections") == 1
        while holding:  # Of each kind, one that leaves makes room.
            holding.pop()[1].close()
            await until(lambda: it._server.servers[0]._held["127.0.0.1"] == len(holding))
            assert await it.status() == 200
            await until(lambda: it._server.servers[0]._held["127.0.0.1"] == len(holding))
        assert not it._server.servers[0]._held


@on_uvloop
async def test_beyond_those_who_are_told_so_nobody_is_let_in(place: Place) -> None:
    async with edge(place, connections=1, handshakes=1) as it:
        held = []
        for _ in range(2):
            held.append(await asyncio.open_connection("localhost", it.port, ssl=place.trust("http/1.1")))
            await until(lambda: len(it._server.server_state.connections) == len(held))
        assert await it.status() == 0
        assert it.refused("connections") == 1
        held.pop()[1].close()
        await until(lambda: len(it._server.server_state.connections) == 1)
        assert await it.status() == 503
        held.pop()[1].close()


async def test_without_files_connections_wait_and_are_taken_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.gateway.accepting._AGAIN_SECONDS", 0.05)
    async with asyncio.timeout(20), served(Behind()) as (server, port):
        (acceptor,) = server.servers
        assert isinstance(acceptor, Acceptor)
        taken, listener = [], acceptor._listener

        class Short:
            """The listener of a process whose files are all in use for a while."""

            def accept(self) -> Any:
                taken.append(1)
                if len(taken) < 3:
                    raise OSError(24, "Too many open files")
                return listener.accept()

            def fileno(self) -> int:
                return listener.fileno()

        acceptor._listener = Short()  # type: ignore[assignment]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HEALTH)
        assert (await answer_of(reader))[0] == 200
        assert len(taken) >= 3
        writer.close()
        acceptor._listener = listener
