"""A caller of HTTP/2 and the edge's end of the connection, in one event loop, without a network between.

h2 is the caller's end too, where it keeps to the rules; what breaks them is sent as bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from uvicorn.server import ServerState

from services.gateway.app import Gateway
from services.gateway.config import EdgeSettings
from services.gateway.http2.connection import Http2Protocol
from tests.support.edge import Behind, gateway

WHO = ((b"authorization", b"Bearer x"), (b"content-type", b"application/json"))

_HEAD_BYTES, _GOAWAY = 9, 0x7
# asyncio's own: from how much a transport asks to be spared, and down to how much.
_HIGH, _LOW = 65_536, 16_384
Headers = Iterable[tuple[bytes, bytes]]


def frame(kind: int, stream: int = 0, content: bytes = b"", flags: int = 0) -> bytes:
    """One frame, as RFC 9113, section 4.1 has it."""
    return len(content).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + content


class Wire(asyncio.Transport):
    """What the edge wrote and nobody read yet, and whether the edge reads."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.protocol: Any = None
        self.written = b""
        self.is_read = True
        self.closed = self.aborted = self._is_high = False

    def write(self, data: Any) -> None:
        """Keep it, unless it comes too late."""
        self.written += b"" if self.closed else bytes(data)
        if len(self.written) > _HIGH and not self._is_high:
            self._is_high = True
            self.protocol.pause_writing()

    def taken(self) -> bytes:
        """All that was written, which is then read."""
        written, self.written = self.written, b""
        if self._is_high:
            self._is_high = False
            self.protocol.resume_writing()
        return written

    def close(self) -> None:
        """Nothing more is written."""
        self.closed = True

    def abort(self) -> None:
        """Nor is it waited for what was."""
        self.closed = self.aborted = True

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self.closed

    def pause_reading(self) -> None:
        """The edge wants nothing more."""
        self.is_read = False

    def resume_reading(self) -> None:
        """It does again."""
        self.is_read = True


@dataclass
class Answer:
    """What came on a stream so far."""

    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""
    is_whole: bool = False
    reset: int | None = None
    hints: list[int] = field(default_factory=list)


class Peer:
    """The caller. `reads` says whether it reads what comes, and `takes` whether it opens windows for that."""

    def __init__(self, gateway: Gateway, state: ServerState | None = None, *, begins: bool = True) -> None:
        config = uvicorn.Config(gateway, ws="none", lifespan="off", log_config=None)
        self.gateway, self.state = gateway, state or ServerState()
        self.wire = Wire()
        self.wire.protocol = self.server = Http2Protocol(config, self.state, {})
        self.h2 = H2Connection(
            H2Configuration(client_side=True, validate_outbound_headers=False, normalize_outbound_headers=False)
        )
        self.takes = self.reads = True
        self.answers: dict[int, Answer] = {}
        # Of each GOAWAY: the last stream, the code, and why.
        self.farewells: list[tuple[int, int, bytes]] = []
        # Kind and stream of each other frame.
        self.heard: list[tuple[int, int]] = []
        self._rest, self._begins = b"", begins
        self.server.connection_made(self.wire)
        if begins:
            self.h2.initiate_connection()
            self.say()

    def say(self, data: bytes = b"") -> None:
        """Send what h2 has made, and these bytes."""
        self.tell(self.h2.data_to_send() + data)

    def tell(self, data: bytes) -> None:
        """Send bytes, as long as anybody reads."""
        if data and not self.wire.closed and self.wire.is_read:
            self.server.data_received(data)

    def ask(
        self, path: str = "/healthz", method: str = "GET", headers: Headers = (), body: bytes | None = None, **more: Any
    ) -> int:
        """Send a request; with `body` b"" its head alone, and the rest is still to come. The number of its stream."""
        pseudo = {b":method": method.encode(), b":scheme": b"https", b":authority": b"x", b":path": path.encode()}
        pseudo |= {b":" + name.encode(): value for name, value in more.items()}
        number = self.h2.get_next_available_stream_id()
        self.h2.send_headers(number, [*pseudo.items(), *headers], end_stream=body is None)
        self.answers[number] = Answer()
        if body:
            self.h2.send_data(number, body, end_stream=True)
        self.say()
        return number

    async def answer(self, number: int) -> Answer:
        """The answer, once it is whole, or the stream was reset."""
        answer = self.answers[number]
        async with asyncio.timeout(10):
            while not answer.is_whole and answer.reset is None and not self.wire.closed:
                await self.settle()
        await self.settle()
        return answer

    async def settle(self) -> None:
        """Let everybody do what they can do now."""
        quiet = 0
        while quiet < 20:
            await asyncio.sleep(0)
            quiet = 0 if self._hear() else quiet + 1

    async def end(self) -> None:
        """The connection is lost."""
        self.server.connection_lost(None)
        for _ in range(20):
            await asyncio.sleep(0)

    def _hear(self) -> bool:
        self._rest += self.wire.taken() if self.reads else b""
        heard = False
        while len(self._rest) >= _HEAD_BYTES:
            size = _HEAD_BYTES + int.from_bytes(self._rest[:3], "big")
            one, self._rest = self._rest[:size], self._rest[size:]
            heard = True
            if one[3] == _GOAWAY:  # h2 would take the connection for over.
                self.farewells.append(
                    (int.from_bytes(one[9:13], "big"), int.from_bytes(one[13:17], "big"), one[17:]),
                )
                continue
            number = int.from_bytes(one[5:9], "big")
            self.heard.append((one[3], number))
            if self._begins and (not number or number in self.answers):  # h2 knows nothing of what it didn't send.
                for event in self.h2.receive_data(one):
                    self._note(event)
                self.say()
        return heard

    def _note(self, event: events.Event) -> None:
        number = getattr(event, "stream_id", None)
        if number not in self.answers:
            return
        answer = self.answers[number]
        if isinstance(event, events.ResponseReceived):
            answer.headers = dict(event.headers)
            answer.status = int(answer.headers[b":status"])
        elif isinstance(event, events.InformationalResponseReceived):
            answer.hints.append(int(dict(event.headers)[b":status"]))
        elif isinstance(event, events.DataReceived):
            answer.body += event.data
            if self.takes:
                self.h2.acknowledge_received_data(event.flow_controlled_length, number)
        elif isinstance(event, events.StreamEnded):
            answer.is_whole = True
        elif isinstance(event, events.StreamReset):
            answer.reset = int(event.error_code)


@asynccontextmanager
async def peer(
    behind: Behind | None = None, state: ServerState | None = None, begins: bool = True, **settings: Any
) -> AsyncIterator[Peer]:
    """A caller who has heard the edge's settings; what still runs at the end is let go."""
    limits = EdgeSettings(listen="127.0.0.1:0", **settings)
    made = Peer(gateway(behind or Behind(), limits), state, begins=begins)
    await made.settle()
    try:
        yield made
    finally:
        if behind is not None:
            behind.go.set()
        await made.end()
