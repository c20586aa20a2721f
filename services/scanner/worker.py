"""The scanner-worker process: `python -m services.scanner.worker --config FILE`."""

from __future__ import annotations

import sys
from functools import partial

from services._mesh.credentials import CredentialDesk
from services._mesh.job_tasks import work_on
from services._mesh.process import Mesh, run
from services._mesh.threads import BoundedThreads
from services.scanner import checking, working
from services.scanner.clients.peers import Broker, Pricing
from services.scanner.config import ScannerWorkerSettings
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
        settings.checking.every_hours,
    )
    handlers = {
        VERIFY: partial(checking.verify, tools),
        CHECK: partial(checking.check, tools),
        SCAN: partial(working.scan, tools),
    }
    await work_on(mesh, "scanner", mesh.store("scanner"), handlers, on_dead=checking.give_up)
    try:
        await mesh.serve([])
    finally:
        threads.close()


if __name__ == "__main__":
    sys.exit(run(ScannerWorkerSettings, compose, "Recoup's scanner worker"))
