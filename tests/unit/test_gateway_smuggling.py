"""Bytes that two readers of HTTP would read as two requests are none here, and end the connection."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from services._mesh.metrics import Metrics
from services.gateway.app import Gateway
from services.gateway.config import EdgeSettings
from services.gateway.protocol import EdgeProtocol
from services.gateway.routes import Router

# What must never be reached: the second request, hidden in the first one's body.
HIDDEN = b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n"
POST = b"POST /v1/x HTTP/1.1\r\nhost: x\r\n"
LENGTH = b"content-length: %d\r\n" % len(b"0\r\n\r\n" + HIDDEN)
CHUNKED = b"transfer-encoding: chunked\r\n"
LAST = b"\r\n0\r\n\r\n"


class Wire(asyncio.Transport):
    """A transport that keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written, self._closing = b"", False

    def write(self, data: Any) -> None:
        """Keep it, unless it comes too late."""
        self.written += b"" if self._closing else bytes(data)

    def close(self) -> None:
        """Nothing more is written."""
        self._closing = True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """All is taken."""

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self._closing

    def pause_reading(self) -> None:
        """All is there already."""

    def resume_reading(self) -> None:
        """All is there already."""


def answered(*pieces: bytes) -> tuple[Sequence[int], bool]:
    """The statuses of all answers, and whether the connection was ended."""

    async def run() -> tuple[Sequence[int], bool]:
        nowhere: Any = None
        limits = EdgeSettings(listen="127.0.0.1:0", header_bytes=2048)
        gateway = Gateway(Router([]), nowhere, nowhere, limits, Metrics(), lambda: True, {})
        config = uvicorn.Config(gateway, http=EdgeProtocol, ws="none", lifespan="off", log_config=None)
        config.load()
        wire, protocol = Wire(), EdgeProtocol(config, ServerState(), {})
        protocol.connection_made(wire)
        for piece in pieces:
            if not wire.is_closing():
                protocol.data_received(piece)
            for _ in range(20):
                await asyncio.sleep(0)
        ended = wire.is_closing()
        protocol.connection_lost(None)
        statuses = [int(each.split(b" ", 1)[0]) for each in wire.written.split(b"HTTP/1.1 ")[1:]]
        return statuses, ended

    return asyncio.run(run())


def test_what_is_hidden_would_be_answered_if_it_were_read() -> None:
    assert answered(HIDDEN) == ([200], False)
    assert answered(HIDDEN, HIDDEN)[0] == [200, 200]


@pytest.mark.parametrize(
    "head",
    [
        POST + LENGTH + CHUNKED,
        POST + CHUNKED + LENGTH,
        POST + b"content-length: 4\r\ncontent-length: 5\r\n",
        POST + b"content-length: 4, 5\r\n",
        POST + b"content-length: +4\r\n",
        POST + b"content-length: 0x4\r\n",
        POST + b"content-length: -1\r\n",
        POST + b"content-length : 4\r\n",
        POST + b"transfer-encoding : chunked\r\n",
        POST + b"transfer-encoding: xchunked\r\n",
        POST + b"transfer-encoding: chunked, identity\r\n",
        POST + b"transfer-encoding:\x0bchunked\r\n",
        POST + b"x: y\r\n transfer-encoding: chunked\r\n",
        POST + b"x\x00y: z\r\n",
        POST + b"x: y\x00\r\n",
        POST + b"x: a\rtransfer-encoding: chunked\r\n",
        b"POST /v1/x HTTP/1.1\nhost: x\ncontent-length: 5\n",
        b"POST /v1/x HTTP/1.1 \r\nhost: x\r\n",
        b"POST /v1/x HTTP/9.9\r\nhost: x\r\n",
        POST.replace(b"1.1", b"1.0") + CHUNKED,
        POST + b"transfer-encoding: gzip, chunked\r\n",
        POST.replace(b"HTTP/1.1", b"HTTP/2.0"),
        b"POST /v1/x\r\nhost: x\r\n",
        b"PO\x00ST /v1/x HTTP/1.1\r\nhost: x\r\n",
        b"POST /v1/ x HTTP/1.1\r\nhost: x\r\n",
        b"POST /v1/x\x0b HTTP/1.1\r\nhost: x\r\n",
    ],
    ids=lambda head: repr(head[-40:]),
)
def test_a_head_that_can_be_read_in_two_ways_ends_the_connection(head: bytes) -> None:
    statuses, ended = answered(head + b"\r\n0\r\n\r\n" + HIDDEN)
    assert 200 not in statuses
    assert statuses == [400]
    assert ended


@pytest.mark.parametrize(
    "body",
    [
        b"\r\n0x5\r\nhello" + LAST,
        b"\r\n+5\r\nhello" + LAST,
        b"\r\n5\r\nhelloo" + LAST,
        b"\r\n5\nhello\n0\n\n",
        b"\r\nfffffffffffffffff\r\n",
    ],
    ids=repr,
)
def test_a_chunk_that_can_be_read_in_two_ways_ends_the_connection(body: bytes) -> None:
    statuses, ended = answered(POST + CHUNKED + body + HIDDEN)
    assert 200 not in statuses
    assert ended


def test_a_trailer_is_no_header() -> None:
    get = b"GET /healthz HTTP/1.1\r\nhost: x\r\n" + CHUNKED + b"\r\n0\r\n%b\r\n"
    assert answered(get % b"") == answered(get % b"host: y\r\n") == ([200], False)
    assert answered(get.replace(b"host: x", b"host: x\r\norigin: x\r\norigin: y") % b"") == ([400], False)


def test_a_head_that_comes_in_pieces_is_read_as_one() -> None:
    assert answered(*(HIDDEN[place : place + 1] for place in range(len(HIDDEN)))) == ([200], False)


@pytest.mark.parametrize(
    "head",
    [
        b"GET /healthz HTTP/1.1\r\n",
        *(
            b"GET /healthz HTTP/1.1\r\nhost:%b\r\n" % each
            for each in (b"", b" a@x", b" x/y", b" x y", b" x,y", b" \xe9")
        ),
        b"GET /healthz HTTP/1.1\r\nhost: x\r\nhost: x\r\n",
        *(
            b"GET %b HTTP/1.1\r\nhost: x\r\n" % each
            for each in (b"http://y/healthz", b"http://a@x/healthz", b"/healthz#b")
        ),
    ],
    ids=repr,
)
def test_what_another_reader_may_take_to_another_host_ends_the_connection(head: bytes) -> None:
    assert answered(head + b"\r\n") == ([400], True)


def test_a_host_is_who_is_asked_in_every_form() -> None:
    for target in (b"http://X:1/healthz", b"https://x:1/healthz", b"/healthz"):
        assert answered(b"GET %b HTTP/1.1\r\nhost: x:1\r\n\r\n" % target) == ([200], False)
    assert answered(b"GET /healthz HTTP/1.0\r\n\r\n") == ([200], True)  # As health checks do.


def test_what_comes_behind_an_upgrade_is_not_waited_for() -> None:
    upgrade = HIDDEN.replace(b"\r\n\r\n", b"\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n")
    assert answered(upgrade + HIDDEN) == ([200], True)


@pytest.mark.parametrize(
    ("bad", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nx: %b\r\n\r\n" % (b"y" * 3000), 431),
    ],
    ids=["nonsense", "no host", "too large"],
)
def test_what_was_asked_before_is_answered_and_nothing_is_said_in_its_place(bad: bytes, status: int) -> None:
    assert answered(HIDDEN + HIDDEN + bad + HIDDEN) == ([200, 200], True)
    assert answered(HIDDEN, bad) == ([200, status], True)
