"""An answer that is whole goes out in one piece; one that isn't, as it comes; none with a header that is two."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import MutableMapping, Sequence
from typing import Any

import pytest
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from services.gateway.whole import Whole

LENGTH = (b"content-length", b"2")


class Wire:
    """A transport that keeps what is written, in the pieces in which it was."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.closed = False
        self.answered = 0

    def write(self, piece: bytes) -> None:
        self.pieces.append(piece)

    def close(self) -> None:
        self.closed = True

    def done(self) -> None:
        self.answered += 1

    def is_closing(self) -> bool:
        return self.closed


def cycle(wire: Wire, *, keep_alive: bool = True) -> RequestResponseCycle:
    transport: Any = wire
    scope: Any = {"method": "GET", "http_version": "1.1"}
    log = logging.getLogger("test")
    headers = [(b"date", b"today")]
    flow = FlowControl(transport)
    return RequestResponseCycle(
        scope, transport, flow, log, log, False, headers, asyncio.Event(), False, keep_alive, wire.done
    )


async def say(send: Whole, headers: Sequence[tuple[bytes, bytes]], *pieces: bytes) -> None:
    start: MutableMapping[str, Any] = {"type": "http.response.start", "status": 200, "headers": list(headers)}
    await send(start)
    for place, piece in enumerate(pieces):
        await send({"type": "http.response.body", "body": piece, "more_body": place < len(pieces) - 1})


@pytest.mark.parametrize("keep_alive", [True, False])
async def test_an_answer_that_is_whole_is_one_write(keep_alive: bool) -> None:
    wire = Wire()
    await say(Whole(cycle(wire, keep_alive=keep_alive)), [LENGTH], b"{}")
    end = b"" if keep_alive else b"connection: close\r\n"
    assert wire.pieces == [b"HTTP/1.1 200 OK\r\ndate: today\r\ncontent-length: 2\r\n" + end + b"\r\n{}"]
    assert (wire.closed, wire.answered) == (not keep_alive, 1)


@pytest.mark.parametrize("headers", [(), [LENGTH]])
async def test_one_that_comes_in_pieces_goes_out_in_pieces(headers: Sequence[tuple[bytes, bytes]]) -> None:
    wire = Wire()
    await say(Whole(cycle(wire)), headers, b"{", b"}")
    assert len(wire.pieces) > 2
    assert b"".join(wire.pieces).startswith(b"HTTP/1.1 200 OK\r\ndate: today\r\n")
    assert (b"transfer-encoding: chunked" in wire.pieces[0]) == (not headers)
    assert wire.answered == 1


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: x=y", b"a\nb", b"a\rb", b"a\0b"])
async def test_a_header_that_would_begin_another_is_not_sent(value: bytes) -> None:
    wire = Wire()
    with pytest.raises(ValueError):
        await say(Whole(cycle(wire)), [LENGTH, (b"x-request-id", value)], b"{}")
    assert wire.pieces == []


async def test_whoever_has_left_or_does_not_read_is_not_written_to() -> None:
    wire = Wire()
    made = cycle(wire)
    made.flow.pause_writing()
    writing = asyncio.create_task(say(Whole(made), [LENGTH], b"{}"))
    await asyncio.sleep(0)
    assert wire.pieces == []
    made.disconnected = True
    made.flow.resume_writing()
    await writing
    assert (wire.pieces, wire.answered) == ([], 0)
