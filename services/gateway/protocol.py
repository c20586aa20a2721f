"""uvicorn's HTTP protocol, which answers in our terms where a request doesn't even reach the application.

It gives a request's head its time, too: uvicorn waits for one for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cached_property
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from services._mesh.errors import Problem
from services.gateway.app import Gateway
from services.gateway.bodies import too_large_head, too_slow_head, unreadable
from services.gateway.config import EdgeSettings
from services.gateway.heads import is_clear
from services.gateway.newcomers import busy
from services.gateway.reading import Reading
from services.gateway.whole import Whole

# Requests that wait for the one before them; hardly any client sends even one so.
_MOST_WAITING = 16


class EdgeProtocol(HttpToolsProtocol):
    """Serves a `Gateway`. Its parser bounds nothing: a request's head is counted here, and a body's trailers."""

    _in_head, _in_body, _in_trailers, _is_over, _came, _named = False, False, False, False, 0, 0
    _deadline: asyncio.TimerHandle | None = None
    on_lost: Callable[[], None] = staticmethod(lambda: None)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Whoever comes asks for something within the time of a head."""
        super().connection_made(transport)
        self._reading = Reading(transport, self._settings.call_seconds)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more is waited for."""
        super().connection_lost(exc)
        self._reading.end()
        self.on_lost()
        if self._deadline is not None:
            self._deadline.cancel()

    def pause_writing(self) -> None:
        """Who doesn't read gets nothing more, and has to begin."""
        super().pause_writing()
        self._reading.begin()

    def resume_writing(self) -> None:
        """They do."""
        super().resume_writing()
        self._reading.end()

    def data_received(self, data: bytes) -> None:
        """Bytes of a head that goes on and on are counted before they are parsed, since the parser keeps them."""
        if self._is_over:
            return
        self._came += len(data)
        if self._in_head and self._came > self._settings.header_bytes:
            self._refuse(self._too_large())
            self._watch()
            return
        super().data_received(data)
        # Behind a chunk's size comes its body, which is known once it is parsed: then this is over.
        if self._in_trailers and self._came > self._settings.header_bytes and not self.transport.is_closing():
            self._refuse(self._too_large())
        self._watch()

    def _watch(self) -> None:
        """See that what somebody began to send ends: a head, or what is left of a body that was answered already. No
        byte that comes in between makes its time longer.
        """
        is_owed = self._in_head or self.cycle is None or self.cycle.response_complete
        if self._deadline is not None and (self.transport.is_closing() or not is_owed):
            self._deadline.cancel()
            self._deadline = None
        elif is_owed and self._deadline is None and not self.transport.is_closing():
            self._deadline = self.loop.call_later(self._settings.head_seconds, self._too_slow)

    def _too_slow(self) -> None:
        self._deadline = None
        if self._in_head:
            self._refuse(too_slow_head(self._settings.head_seconds))
        elif not self.transport.is_closing():
            self.transport.close()

    def on_message_begin(self) -> None:
        """A head begins. Who asks on and on before an answer asks again what isn't answered (RFC 9112, 9.3.2)."""
        if len(self.pipeline) >= _MOST_WAITING:
            raise ValueError("too many requests at once")
        self._in_head, self._came, self._named = True, 0, 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A piece of the path."""
        self._named += len(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header. A trailer is counted and says nothing: a head was checked before it came (RFC 9110, 6.5.1)."""
        self._named += len(name) + len(value)
        if self._in_head:
            super().on_header(name, value)
        if self._is_too_large():
            raise ValueError("the head is too large")  # The parser makes it one of its own, and nothing is served.

    def on_headers_complete(self) -> None:
        """The head is over. Behind one that would speak something else from here, the parser reads nothing more."""
        if not is_clear(self.parser.get_http_version(), self.url, self.headers):
            raise ValueError("the head can be read in two ways")
        self._in_head, self._in_body = False, True
        super().on_headers_complete()
        goes_on = not self._gateway.leaving.is_set() and not self.parser.should_upgrade()
        self.cycle.keep_alive = self.cycle.keep_alive and goes_on

    def on_chunk_header(self) -> None:
        """The size of a chunk. The last one has no body, and trailers may follow it."""
        self._in_trailers, self._came = True, 0

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._in_trailers = False
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is over."""
        self._in_body = self._in_trailers = False
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """A problem document in the place of uvicorn's plain text; nothing that follows on the connection is read."""
        self._refuse(self._too_large() if self._is_too_large() else unreadable())

    def leave(self) -> None:
        """The process is to end: the answer that is worked on is the last one here, and says so."""
        if self.cycle is not None and not self.cycle.response_started:
            self.cycle.keep_alive = False

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """Beyond the number of connections, uvicorn would answer in plain text."""
        super()._start_asgi_task(cycle, self._served(cycle) if app is self.app else self._full)

    def _served(self, cycle: RequestResponseCycle) -> Any:
        gateway, send = self._gateway, Whole(cycle)
        return lambda scope, receive, _: gateway(scope, receive, send)

    async def _full(self, _scope: Any, _receive: Any, send: Any) -> None:
        status, headers, body = self._gateway.refused(busy())
        headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    @cached_property
    def _gateway(self) -> Gateway:
        gateway = self.config.app
        assert isinstance(gateway, Gateway)
        return gateway

    @cached_property
    def _settings(self) -> EdgeSettings:
        return self._gateway.settings

    def _is_too_large(self) -> bool:
        return self._named > self._settings.header_bytes or len(self.headers or ()) > self._settings.header_count

    def _too_large(self) -> Problem:
        return too_large_head(self._settings.header_bytes, self._settings.header_count)

    def _refuse(self, problem: Problem) -> None:
        """Say so, as the last word here; in nobody else's answer, and to nobody who still waits for another one."""
        if self._in_body and self.cycle.response_started:  # It is of a request that has its answer.
            self.transport.close()
        elif self._in_body or self.cycle is None or self.cycle.response_complete:
            self._say(problem)
        else:
            self._is_over, self._in_head, self.cycle.keep_alive = True, False, False

    def _say(self, problem: Problem) -> None:
        status, headers, body = self._gateway.refused(problem)
        said = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode()
        lines = [name + b": " + value + b"\r\n" for name, value in (*headers, (b"connection", b"close"))]
        self.transport.write(b"".join((said, *lines, b"\r\n", body)))
        self.transport.close()
