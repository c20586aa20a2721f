"""The actions-worker process: `python -m services.actions.worker --config FILE`."""

from __future__ import annotations

import sys
from functools import partial

from services._mesh.credentials import CredentialDesk
from services._mesh.job_tasks import work_on
from services._mesh.process import Mesh, run
from services._mesh.worker import Handler
from services.actions.clients.aws import Threads
from services.actions.clients.peers import Bills, OwnApi
from services.actions.config import ActionsWorkerSettings
from services.actions.usecases.requests import CHECKPOINT, EXECUTE, EXPIRE
from services.actions.working.checking import check
from services.actions.working.executing import Tools, execute
from services.actions.working.expiring import expire
from services.actions.working.outcomes import give_up


async def compose(mesh: Mesh, settings: ActionsWorkerSettings) -> None:
    """Wire the worker together, and work."""
    threads = Threads.of(settings.execution.threads)
    desk = CredentialDesk(mesh.channels.to("scanner"), mesh.channels.to("broker"))
    tools = Tools(desk, threads, settings.aws, settings.execution, mesh.clock)
    bills, api = Bills(mesh.channels.to("pricing")), OwnApi(mesh.channels.to("actions"))
    handlers: dict[str, Handler] = {
        EXECUTE: partial(execute, tools),
        CHECKPOINT: partial(check, tools, bills, api),
        EXPIRE: expire,
    }
    await work_on(mesh, "actions", mesh.store("actions"), handlers, on_dead=give_up)
    try:
        await mesh.serve([])
    finally:
        threads.close()


if __name__ == "__main__":
    sys.exit(run(ActionsWorkerSettings, compose, "Recoup's actions worker"))
