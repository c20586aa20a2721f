"""The gateway process: `python -m services.gateway --config FILE`."""

from __future__ import annotations

import sys

from recoup.services import SERVICES
from services._mesh.process import Mesh, run
from services.gateway.app import Gateway
from services.gateway.bucket import Bucket
from services.gateway.config import GatewaySettings
from services.gateway.origins import Origins
from services.gateway.pages import pages
from services.gateway.passports import PassportOffice
from services.gateway.routes import Router
from services.gateway.serving import EdgeServer, EdgeTls


async def compose(mesh: Mesh, settings: GatewaySettings) -> None:
    """Wire the edge together and serve REST; the mesh side serves health only."""
    edge = settings.gateway
    listener = mesh.listen(edge.listen, "gateway.listen")
    router = Router([(process, each) for process, services in SERVICES.items() for each in services])
    for name in sorted({each.service for each in router.routes} | {each.service for each in router.forwards}):
        mesh.channels.to(name)  # Whose address is missing is said now, and not to whoever asks first.
    gateway = Gateway(
        router,
        PassportOffice(mesh.channels.to("identity"), mesh.revocations, mesh.clock),
        mesh.channels.to,
        edge,
        mesh.metrics,
        mesh.revocations.is_fresh,
        pages(),
        Origins(mesh.channels.to("identity"), edge.dashboard_origins),
        Bucket(mesh.nats(), edge.gateways, mesh.metrics) if edge.shared == "nats" else None,
    )
    mesh.follow_revocations()
    tls = EdgeTls(mesh.files, settings.tls, http2=edge.http2)
    server = EdgeServer(gateway, edge, settings.limits.drain_seconds, tls)
    mesh.task(server.run_on(listener), "rest")
    try:
        await mesh.serve([])
    finally:
        if not mesh.is_rehearsal:
            await server.leave()


if __name__ == "__main__":
    sys.exit(run(GatewaySettings, compose, "Recoup's gateway"))
