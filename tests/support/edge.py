"""A gateway that serves on loopback, before services that answer as a test wants them to."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

from recoup.identity.v1 import sso_service_pb2
from recoup.scanner.v1 import scanner_service_pb2
from services._mesh.metrics import Metrics
from services.gateway.app import Gateway
from services.gateway.config import EdgeSettings
from services.gateway.pages import pages
from services.gateway.passports import Issued
from services.gateway.routes import Router
from services.gateway.serving import EdgeServer, EdgeTls
from tests.support.things import ACME, linked_passport
from tests.support.transcoding import descriptors

SCANS = f"/v1/organizations/{ACME}/scans"
STREAM = "/v1/repeat/1"
SIGN_IN = "/v1/sso/sessions"
_ROUTER = Router(
    [
        ("scanner", scanner_service_pb2.DESCRIPTOR.services_by_name["ScannerService"]),
        ("identity", sso_service_pb2.DESCRIPTOR.services_by_name["SsoService"]),
        ("test", descriptors("everything.proto").services_by_name["EchoService"]),
    ]
)
_PAGES = pages()


class Behind:
    """Identity and every service: all sessions are good, a call is answered once `go` is set, and a stream has one
    answer and goes on.
    """

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.go.set()
        self.running = 0
        self.metadata: list[tuple[str, str]] = []

    def knows(self, _session: str) -> bool:
        return True

    async def passport(self, *_for: str) -> Issued:
        return Issued("a passport", linked_passport(uuid4()))

    def unary_unary(self, _name: str, response_deserializer: Any, **_codecs: Any) -> Any:
        async def call(*_request: Any, metadata: Any, **_how: Any) -> Any:
            self.metadata, self.running = list(metadata), self.running + 1
            await self.go.wait()
            self.running -= 1
            return response_deserializer(b"")

        return call

    def unary_stream(self, _name: str, response_deserializer: Any, **_codecs: Any) -> Any:
        class Call:
            async def __aiter__(_self) -> AsyncIterator[Any]:
                yield response_deserializer(b"")
                await asyncio.Event().wait()

            def cancel(_self) -> None:
                """Nothing runs behind it."""

        return lambda *_request, **_how: Call()


def gateway(behind: Behind, settings: EdgeSettings) -> Gateway:
    """A gateway before them."""
    here: Any = behind
    return Gateway(_ROUTER, here, lambda _: here, settings, Metrics(), lambda: True, _PAGES)


@asynccontextmanager
async def served(behind: Behind, tls: EdgeTls | None = None, **settings: Any) -> AsyncIterator[tuple[EdgeServer, int]]:
    """The server and its port."""
    limits = EdgeSettings(listen="127.0.0.1:0", **{"leaving_seconds": 0.0, **settings})
    server = EdgeServer(gateway(behind, limits), limits, 2.0, tls)
    listener = socket.create_server(("127.0.0.1", 0))
    running = asyncio.create_task(server.run_on(listener))
    try:
        while not server.started:
            await asyncio.sleep(0)
        yield server, listener.getsockname()[1]
    finally:
        behind.go.set()
        await server.leave()
        running.cancel()


async def told(port: int, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """What these bytes are answered: status, headers (of one name the last) and all that follows, to the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    try:
        return await answer_of(reader)
    finally:
        writer.close()


async def answer_of(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """The one answer that is left, and its body, which ends with the connection or by its length."""
    top = (await reader.readuntil(b"\r\n\r\n")).decode()
    line, *lines = top.removesuffix("\r\n\r\n").split("\r\n")
    headers = {name.lower(): value for name, _, value in (each.partition(": ") for each in lines)}
    length = headers.get("content-length")
    body = await reader.readexactly(int(length)) if length else await reader.read()
    return int(line.split()[1]), headers, body
