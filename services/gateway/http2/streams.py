"""One stream of HTTP/2 as one ASGI exchange: what comes is kept within the window, what goes waits for the peer's."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import MutableMapping
from typing import Any, Protocol

from services.gateway.http2.requests import Asked

log = logging.getLogger(__name__)


class Connection(Protocol):
    """What a stream asks of its connection."""

    def begin(self, stream: Stream, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Send the head of an answer."""

    def expect(self, size: int) -> None:
        """A piece of the answer, of so many bytes, will be sent."""

    def room(self, stream: Stream, wanted: int) -> int | None:
        """How many bytes may be sent now; None where it has to wait."""

    def send(self, stream: Stream, piece: bytes, *, is_last: bool) -> None:
        """Send so much of the answer."""

    def acknowledge(self, stream: Stream, size: int) -> None:
        """So much of the body was taken, and as much may come."""

    def give_up(self, stream: Stream) -> None:
        """End a stream whose answer won't be whole."""


class Stream:
    """The exchange. Each piece of the answer has `seconds` to be taken, however little the peer takes at a time."""

    def __init__(self, connection: Connection, number: int, asked: Asked, seconds: float) -> None:
        self.number, self._asked = number, asked
        self._connection, self._seconds = connection, seconds
        self._body, self._kept, self._length = bytearray(), 0, 0
        self._more_body = True
        self._came, self._room = asyncio.Event(), asyncio.Event()
        self._expects = any(each == (b"expect", b"100-continue") for each in asked.scope["headers"])
        self.has_begun = self.is_answered = False
        # Nobody is there any more who would read the answer.
        self.is_gone = False

    @property
    def has_whole_request(self) -> bool:
        """Whether nothing more will come."""
        return not self._more_body

    def take(self, data: bytes, size: int) -> bool:
        """A piece of the body, which counts so much against the windows; whether as much was announced."""
        self._body += data
        self._kept += size
        self._length += len(data)
        self._came.set()
        return self._asked.length is None or self._length <= self._asked.length

    def end_request(self) -> bool:
        """The request is whole; whether it is as long as was announced."""
        is_so = self._asked.length in (None, self._length)
        if is_so:
            self._more_body = False
            self._came.set()
        return is_so

    def leave(self) -> None:
        """The caller went away, as far as this stream goes."""
        if not self.is_gone:
            self.is_gone = True
            self._release()
            self._came.set()
            self._room.set()

    def wake(self) -> None:
        """There may be room again."""
        self._room.set()

    async def run(self) -> None:
        """Serve it to the end."""
        try:
            await self._asked.app(self._asked.scope, self._receive, self._send)
        except Exception as error:
            log.error("a stream failed at the edge", exc_info=error)
        finally:
            if not self.is_gone and not self.is_answered:
                self._connection.give_up(self)

    async def _receive(self) -> MutableMapping[str, Any]:
        if self._expects and self._more_body and not self.has_begun and not self.is_gone:
            self._connection.begin(self, 100, [])
        self._expects = False
        if not self.is_gone and not self.is_answered:
            await self._came.wait()
            self._came.clear()
        if self.is_gone or self.is_answered:
            return {"type": "http.disconnect"}
        body, self._body = bytes(self._body), bytearray()
        self._release()
        return {"type": "http.request", "body": body, "more_body": self._more_body}

    def _release(self) -> None:
        kept, self._kept = self._kept, 0
        if kept:
            self._connection.acknowledge(self, kept)

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        if self.is_gone:
            return
        if message["type"] == "http.response.start":
            self.has_begun, self._expects = True, False
            self._connection.begin(self, message["status"], list(message["headers"]))
            return
        body = message.get("body", b"") if self._asked.scope["method"] != "HEAD" else b""
        await self._send_body(body, is_last=not message.get("more_body", False))

    async def _send_body(self, body: bytes, *, is_last: bool) -> None:
        at, until = 0, 0.0
        self._connection.expect(len(body))
        while not self.is_gone and (at < len(body) or is_last):
            room = self._connection.room(self, len(body) - at)
            if room is None:
                until = until or asyncio.get_running_loop().time() + self._seconds
                await self._wait(until)
                continue
            piece, at = body[at : at + room], at + room
            ends = is_last and at >= len(body)
            self.is_answered = ends
            self._connection.send(self, piece, is_last=ends)
            if ends:
                self._came.set()  # For who waits to see whether the caller went away.
                return

    async def _wait(self, until: float) -> None:
        self._room.clear()
        try:
            async with asyncio.timeout_at(until):
                await self._room.wait()
        except TimeoutError:
            self._connection.give_up(self)
