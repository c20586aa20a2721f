"""What our edge is made of, and nothing else: uvicorn behind TLS, and one call of grpc.aio under mTLS for each request.

`python -m bench.bare_edge CONFIG PORT`, with the configuration of the gateway. It authenticates, limits, traces, checks
and transcodes nothing: what it costs, no edge of these parts can do without.
"""

from __future__ import annotations

import ssl
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import uvicorn

from bench.fixed_server import SERVICE
from services._mesh.config import load_settings
from services.gateway.config import GatewaySettings

# Whatever else is asked for is one resource.
_METHODS = {"POST": "StartScan", "findings": "ListFindings"}


class Bare:
    """Hands each request's bearer on, and answers the bytes that come back."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._calls: dict[str, Any] = {}

    async def __call__(
        self, scope: Mapping[str, Any], receive: object, send: Callable[[dict[str, Any]], Awaitable[None]]
    ) -> None:
        """Answer one request."""
        last = scope["path"].rpartition("/")[2]
        name = _METHODS.get(scope["method"]) or _METHODS.get(last, "GetScan")
        bearer = next(value for key, value in scope["headers"] if key == b"authorization")
        body = await self._call(name)(b"", metadata=(("authorization", bearer.decode()),), timeout=10.0)
        length = str(len(body)).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        await send({"type": "http.response.body", "body": body})

    def _call(self, name: str) -> Any:
        if not self._calls:  # Made in the event loop that they are for.
            tls = self._settings.tls
            trusted = grpc.ssl_channel_credentials(tls.ca.read_bytes(), tls.key.read_bytes(), tls.cert.read_bytes())
            options = [("grpc.ssl_target_name_override", "scanner")]
            channel = grpc.aio.secure_channel(self._settings.peers["scanner"], trusted, options=options)
            names = (*_METHODS.values(), "GetScan")
            self._calls = {each: channel.unary_unary(f"/{SERVICE}/{each}") for each in names}
        return self._calls[name]


def main(config: Path, port: int) -> None:
    """Serve until terminated."""
    settings = load_settings(GatewaySettings, config)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(settings.tls.cert, settings.tls.key)
    parts: dict[str, Any] = {"http": "httptools", "loop": "uvloop", "ws": "none", "lifespan": "off"}
    uvicorn.run(
        Bare(settings),
        port=port,
        **parts,
        access_log=False,
        log_config=None,
        ssl_context_factory=lambda *_: context,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
