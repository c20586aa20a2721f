"""The pricing-worker process: `python -m services.pricing.worker --config FILE`."""

from __future__ import annotations

import sys
from datetime import timedelta
from functools import partial

from services._mesh.credentials import CredentialDesk
from services._mesh.job_tasks import work_on
from services._mesh.process import Mesh, run
from services._mesh.threads import BoundedThreads
from services.pricing import working
from services.pricing.config import PricingWorkerSettings
from services.pricing.usecases.bills import IMPORT_BILL
from services.pricing.working import Tools


async def compose(mesh: Mesh, settings: PricingWorkerSettings) -> None:
    """Wire the worker together, and work."""
    fetching = settings.fetching
    threads = BoundedThreads(fetching.threads, "bill")
    tools = Tools(
        CredentialDesk(mesh.channels.to("scanner"), mesh.channels.to("broker")),
        threads,
        settings.aws,
        timedelta(hours=fetching.settle_hours),
        fetching.most_gib * 1024**3,
    )
    handlers = {IMPORT_BILL: partial(working.import_bill, tools)}
    await work_on(mesh, "pricing", mesh.store("pricing"), handlers, on_dead=working.give_up)
    try:
        await mesh.serve([])
    finally:
        threads.close()


if __name__ == "__main__":
    sys.exit(run(PricingWorkerSettings, compose, "Recoup's pricing worker"))
