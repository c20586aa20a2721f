"""Writes an answer that is there as a whole in one piece: head and body in one write, and one TLS record if they fit.

uvicorn looks at every header twice and writes twice; our headers are checked together. What comes piece by piece is
left to it.
"""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

_LENGTH = b"content-length"
Headers = Iterable[tuple[bytes, bytes]]


class Whole:
    """The way to the caller of one request: ASGI's `send`."""

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._head: MutableMapping[str, Any] | None = None

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        """Keep the head of an answer that says its length until the body is there."""
        head, self._head = self._head, None
        if head is not None and not message.get("more_body"):
            await self._write(head["status"], head["headers"], message["body"])
        elif head is None and any(name == _LENGTH for name, _ in message.get("headers", ())):
            self._head = message
        else:
            for each in (head, message):
                if each is not None:
                    self._frame(each)
                    await self._cycle.send(each)  # type: ignore[arg-type]

    def _frame(self, message: MutableMapping[str, Any]) -> None:
        """HTTP/1.0 has no chunks (RFC 9112, 7.1), which uvicorn writes all the same: there the connection's end is the
        end of the answer.
        """
        cycle = self._cycle
        if cycle.scope["http_version"] == "1.0":
            cycle.chunked_encoding, cycle.keep_alive = False, False
            cycle.expected_content_length = len(message.get("body", b""))

    async def _write(self, status: int, headers: Headers, body: bytes) -> None:
        cycle = self._cycle
        if cycle.flow.write_paused and not cycle.disconnected:
            await cycle.flow.drain()
        # uvicorn says that the caller has gone to the last request that came, which needn't be this one.
        cycle.disconnected = cycle.disconnected or cycle.transport.is_closing()
        if cycle.disconnected:
            return
        head = _head(STATUS_LINE[status], [*cycle.default_headers, *headers], closes=not cycle.keep_alive)
        cycle.response_started, cycle.waiting_for_100_continue = True, False
        cycle.transport.write(head + body)
        cycle.response_complete = True
        cycle.message_event.set()
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()


def _head(status: bytes, headers: list[tuple[bytes, bytes]], *, closes: bool) -> bytes:
    """Raises ValueError where a value would begin another line."""
    if closes:
        headers.append((b"connection", b"close"))
    lines = [name + b": " + value for name, value in headers]
    head = status + b"\r\n".join(lines) + b"\r\n\r\n"
    ends = len(lines) + 2
    if head.count(b"\n") != ends or head.count(b"\r") != ends or b"\0" in head:
        raise ValueError("a header holds a line break")
    return head
