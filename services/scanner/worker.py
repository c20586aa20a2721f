"""The scanner-worker process: `python -m services.scanner.worker --config FILE`."""

from __future__ import annotations

import sys
from functools import partial

from services._mesh.credentials import CredentialDesk
from services._mesh.job_tasks import work_on
from services._mesh.process import Mesh, run
from services._mesh.threads import BoundedThreads
from services._mesh.worker import Handler
from services.scanner import checking, rotating, sealing, working
from services.scanner.clients.azure import AzureReader
from services.scanner.clients.feed import Feed
from services.scanner.clients.google import GoogleReader
from services.scanner.clients.peers import Broker, Pricing, Registry
from services.scanner.clients.rewrapping import Keeper, Wrapper
from services.scanner.config import ScannerWorkerSettings
from services.scanner.model.cloud import Provider
from services.scanner.model.rewrapping import REWRAP
from services.scanner.model.rotation import ROTATE
from services.scanner.sealing import Rotating
from services.scanner.usecases.credentials import REVOKE
from services.scanner.usecases.kinds import CHECK, SCAN, VERIFY
from services.scanner.working import Tools


async def compose(mesh: Mesh, settings: ScannerWorkerSettings) -> None:
    """Wire the worker together, and work."""
    threads = BoundedThreads(settings.reading.threads, "aws")
    broker = mesh.channels.to("broker")
    tools = Tools(
        CredentialDesk(mesh.channels.to("scanner"), broker),
        Broker(broker),
        Pricing(mesh.channels.to("pricing")),
        threads,
        settings.aws,
        Registry(mesh.channels.to("scanner")),
        settings.checking.every_hours,
        {
            Provider.AZURE: AzureReader(threads, settings.azure),
            Provider.GCP: GoogleReader(threads, settings.google),
        },
    )
    feed = Feed(mesh.channels.to("identity"))
    handlers: dict[str, Handler] = {
        VERIFY: partial(checking.verify, tools),
        CHECK: partial(checking.check, tools),
        SCAN: partial(working.scan, tools),
        REVOKE: partial(sealing.revoke, feed),
        ROTATE: partial(rotating.rotate, rotating.TryingClouds(tools), feed),
        REWRAP: partial(sealing.move, Rotating(feed, Keeper(mesh.channels.to("scanner")), Wrapper(broker))),
    }
    await work_on(mesh, "scanner", mesh.store("scanner"), handlers, on_dead=rotating.give_up)
    try:
        await mesh.serve([])
    finally:
        threads.close()


if __name__ == "__main__":
    sys.exit(run(ScannerWorkerSettings, compose, "Recoup's scanner worker"))
