"""Serves the edge over TLS: with the certificate that is in force, and to the end, without losing a request."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import socket
import ssl
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from services._mesh.settings import TlsSettings
from services._mesh.tls import CertificateFiles
from services.gateway.accepting import Acceptor
from services.gateway.app import Gateway
from services.gateway.config import EdgeSettings
from services.gateway.http2.connection import Http2Protocol
from services.gateway.protocol import EdgeProtocol

log = logging.getLogger(__name__)
_HTTP2 = "h2"
# Besides connections: what the process itself has open.
_OTHER_FILES = 256
# Of TLS 1.2, those that HTTP/2 allows (RFC 9113, appendix A): with forward secrecy, and authenticated.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


class EdgeServer(uvicorn.Server):
    """uvicorn without its own signal handlers: the process has its own. Plain text without `tls`, which tests use."""

    def __init__(
        self, gateway: Gateway, settings: EdgeSettings, drain_seconds: float, tls: EdgeTls | None = None
    ) -> None:
        super().__init__(_configuration(gateway, settings, drain_seconds, tls))
        self._gateway, self._leaving_seconds = gateway, settings.leaving_seconds
        self._ended = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def run_on(self, listener: socket.socket) -> None:
        """Serve until `leave` has ended."""
        _make_room(self._gateway.settings)
        try:
            await self.serve([listener])
        finally:
            self._ended.set()
        if self._gateway.leaving.is_set():
            await asyncio.Event().wait()  # A task that ends by itself is one that failed.

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Take connections ourselves: uvicorn's way counts none before TLS is agreed on, and waits a minute for it."""
        edge, state = self._gateway.settings, self.server_state
        make = partial(AgreedProtocol, self.config, state)
        most = edge.connections + edge.handshakes  # Who is beyond the first number is told so.

        def is_full() -> bool:
            return len(state.connections) >= most

        self.servers: list[Any] = [
            Acceptor(each, make, self.config.ssl, edge, self._gateway.watch, is_full) for each in sockets or ()
        ]
        self.started = True

    async def leave(self) -> None:
        """End, and lose nobody's request. First everybody is still let in, so that whoever spreads the load sees that
        this one isn't ready any more; each connection ends with its next answer, and says so. Then nobody is let in,
        and what runs is answered.
        """
        self._gateway.leave()
        for connection in list(self.server_state.connections):
            if isinstance(connection, EdgeProtocol):
                connection.leave()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._leaving_seconds):
                await self._ended.wait()
        self.should_exit = True
        await self._ended.wait()


class AgreedProtocol(asyncio.Protocol):
    """A connection until TLS says what is spoken on it (RFC 7301): HTTP/1.1, where nothing was agreed."""

    def __init__(self, config: uvicorn.Config, server_state: ServerState, on_lost: Callable[[], None]) -> None:
        self._made_of, self._on_lost = (config, server_state, dict[str, Any]()), on_lost

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Hands it on: the other protocol has the connection from here."""
        tls = transport.get_extra_info("ssl_object")
        is_http2 = tls is not None and tls.selected_alpn_protocol() == _HTTP2
        protocol = (Http2Protocol if is_http2 else EdgeProtocol)(*self._made_of)
        protocol.on_lost = self._on_lost
        transport.set_protocol(protocol)
        protocol.connection_made(transport)


class EdgeTls:
    """What callers are shown. New connections get the newest pair of certificate and key that was found whole."""

    def __init__(self, files: CertificateFiles, settings: TlsSettings, *, http2: bool = True) -> None:
        self._files, self._settings = files, settings
        self._spoken = [_HTTP2, "http/1.1"] if http2 else ["http/1.1"]
        self._current, self._generation = self._made(), files.generation

    def context(self) -> ssl.SSLContext:
        """The context of a listener, which looks for the pair in force at each handshake."""
        context = self._made()
        context.sni_callback = self._choose  # Called without a name as well.
        return context

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        generation = self._files.refresh()
        if generation != self._generation:
            try:
                self._current, self._generation = self._made(), generation
            except (OSError, ssl.SSLError) as error:  # They were changed again just now: the next look finds them.
                log.warning("the new certificate can't be used yet: %s", error)
        connection.context = self._current

    def _made(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(_CIPHERS)
        context.set_alpn_protocols(self._spoken)
        context.load_cert_chain(self._settings.cert, self._settings.key)
        return context


def _make_room(edge: EdgeSettings) -> None:
    """Each connection is an open file, of which a process may have 1024 where nobody asked for more."""
    connections = edge.connections + 2 * edge.handshakes
    wanted = connections + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY != soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        if most < wanted:
            log.warning("%d connections need %d open files; the machine allows %d", connections, wanted, most)


def _configuration(gateway: Gateway, edge: EdgeSettings, drain_seconds: float, tls: EdgeTls | None) -> uvicorn.Config:
    return uvicorn.Config(
        gateway,
        loop="none",
        http=AgreedProtocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        # Who a caller is, is said by the connection: nobody names another address to be counted by.
        proxy_headers=False,
        limit_concurrency=edge.connections,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=max(1, int(drain_seconds)),
        ssl_context_factory=(lambda _config, _default: tls.context()) if tls else None,
    )
