"""The edge over TLS on the event loop that its process runs on: a certificate, and who believes it."""

from __future__ import annotations

import asyncio
import functools
import ssl
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx
import uvloop

from recoup_local.ca import LocalCa
from services._mesh.settings import TlsSettings
from services._mesh.tls import CertificateFiles
from services.gateway.serving import EdgeTls


def on_uvloop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """The same test on the processes' event loop, whose transports are others than asyncio's."""

    @functools.wraps(test)
    def run(**given: Any) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(test(**given))

    return run


class Place:
    """A certificate, those who believe it, and the folder of both."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._ca = folder, LocalCa(folder / "ca")
        self.issue()
        self.settings = TlsSettings(ca=self._ca.cert_file, cert=self.cert, key=self.key, check_seconds=0.001)

    def issue(self) -> None:
        """A new pair, in the place of the old one."""
        issued = self._ca.issue("gateway", self.folder)
        self.cert, self.key = issued.cert, issued.key

    def tls(self, **how: Any) -> EdgeTls:
        return EdgeTls(CertificateFiles(self.settings), self.settings, **how)

    def trust(self, *spoken: str) -> ssl.SSLContext:
        made = ssl.create_default_context(cafile=str(self._ca.cert_file))
        if spoken:
            made.set_alpn_protocols(spoken)
        return made

    def client(self, port: int, *, http2: bool = True) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=f"https://localhost:{port}", verify=self.trust(), http2=http2, timeout=20)


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)
