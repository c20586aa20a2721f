"""The audit process, with the sequencer and the checkpointer: `python -m services.audit --config FILE`."""

from __future__ import annotations

import sys

from recoup.audit.v1 import audit_service_pb2
from services._mesh.pages import PageTokens
from services._mesh.process import Mesh, run
from services.audit.checkpointer import Checkpointer
from services.audit.clients import SignerClient
from services.audit.config import AuditSettings
from services.audit.rpc import AuditRpc
from services.audit.sequencer import Sequencer


async def compose(mesh: Mesh, settings: AuditSettings) -> None:
    """Wire the log together and serve."""
    reader = mesh.store("audit")
    database = mesh.database(settings.log.sequencer, pool_size=4)
    sequencer = Sequencer(database, mesh.clock)
    signer = SignerClient(mesh.channels.to("audit-signer"))
    checkpointer = Checkpointer(
        database, sequencer, mesh.clock, signer.sign, signer.last_signed, settings.log.checkpoint_seconds
    )
    mesh.task(sequencer.run(), "sequencer")
    mesh.health.needs("the sequencer's take-over", lambda: sequencer.ready)
    mesh.task(checkpointer.run(), "checkpointer")
    mesh.follow_revocations()
    rpc = AuditRpc(reader, sequencer, checkpointer, PageTokens.from_file(settings.log.page_key), signer.key_manifest)
    await mesh.serve([(audit_service_pb2.DESCRIPTOR.services_by_name["AuditService"], rpc)])


if __name__ == "__main__":
    sys.exit(run(AuditSettings, compose, "Recoup's audit service"))
