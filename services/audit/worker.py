"""The audit-worker process: `python -m services.audit.worker --config FILE`. It makes bundles of evidence."""

from __future__ import annotations

import sys
from functools import partial

from services._mesh.job_tasks import work_on
from services._mesh.process import Mesh, run
from services._mesh.threads import BoundedThreads
from services.audit.clients_evidence import Actions, Log, Peers, Scanner
from services.audit.config import AuditWorkerSettings
from services.audit.evidence_files import EvidenceFolder
from services.audit.model.evidence.export import EXPIRE_EVIDENCE, EXPORT_EVIDENCE
from services.audit.working import exporting
from services.audit.working.exporting import Tools


async def compose(mesh: Mesh, settings: AuditWorkerSettings) -> None:
    """Wire the worker together, and work."""
    evidence = settings.evidence
    threads = BoundedThreads(evidence.threads, "evidence")
    channels = mesh.channels
    peers = Peers(Log(channels.to("audit")), Actions(channels.to("actions")), Scanner(channels.to("scanner")))
    tools = Tools(peers, EvidenceFolder(evidence.folder, threads), threads)
    handlers = {
        EXPORT_EVIDENCE: partial(exporting.export_evidence, tools),
        EXPIRE_EVIDENCE: partial(exporting.expire_evidence, tools),
    }
    store = mesh.store("audit")
    await work_on(mesh, "audit", store, handlers, concurrency=2, on_dead=exporting.give_up)
    try:
        await mesh.serve([])
    finally:
        threads.close()


if __name__ == "__main__":
    sys.exit(run(AuditWorkerSettings, compose, "Recoup's audit worker"))
