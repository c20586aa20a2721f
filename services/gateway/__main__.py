"""The gateway process: `python -m services.gateway --config FILE`."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Iterator

import uvicorn

from recoup.services import SERVICES
from services._mesh.listening import listening_socket
from services._mesh.process import Mesh, run
from services.gateway.app import Gateway
from services.gateway.config import EdgeSettings, GatewaySettings
from services.gateway.origins import Origins
from services.gateway.pages import pages
from services.gateway.passports import PassportOffice
from services.gateway.protocol import EdgeProtocol
from services.gateway.routes import Router


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: the process has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def compose(mesh: Mesh, settings: GatewaySettings) -> None:
    """Wire the edge together and serve REST; the mesh side serves health only."""
    edge = settings.gateway
    listener = listening_socket(edge.listen, "gateway.listen")
    gateway = Gateway(
        Router([(process, each) for process, services in SERVICES.items() for each in services]),
        PassportOffice(mesh.channels.to("identity"), mesh.revocations, mesh.clock),
        mesh.channels.to,
        edge,
        mesh.metrics,
        mesh.revocations.is_fresh,
        pages(),
        Origins(mesh.channels.to("identity"), edge.dashboard_origins),
    )
    mesh.follow_revocations()
    server = _Server(_configuration(gateway, edge, settings))
    mesh.task(_serve(mesh, server, listener), "rest")
    try:
        await mesh.serve([])
    finally:
        server.should_exit = True


async def _serve(mesh: Mesh, server: _Server, listener: socket.socket) -> None:
    await server.serve([listener])
    mesh.stop()


def _configuration(gateway: Gateway, edge: EdgeSettings, settings: GatewaySettings) -> uvicorn.Config:
    return uvicorn.Config(
        gateway,
        loop="none",
        http=EdgeProtocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=edge.connections,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=int(settings.limits.drain_seconds),
        h11_max_incomplete_event_size=edge.header_bytes,
        ssl_certfile=str(settings.tls.cert),
        ssl_keyfile=str(settings.tls.key),
    )


if __name__ == "__main__":
    sys.exit(run(GatewaySettings, compose, "Recoup's gateway"))
