"""What the worker of evidence may do."""

from __future__ import annotations

from services._mesh.errors import NotFound, Reason, WrongState
from services._mesh.jobs import Authority, Job
from services._mesh.uow import Store
from services.audit.clients_evidence import Identity
from services.audit.model.evidence.export import OPEN_STATES, EvidenceState
from services.audit.store import exports


class Policies:
    """What the worker of this service may do, decided anew at each claim and renewal."""

    def __init__(self, reader: Store, identity: Identity) -> None:
        self._reader, self._identity = reader, identity

    async def export_evidence(self, job: Job) -> Authority:
        """The log's proofs, the receipts and the scans of the organization may be read, for a bundle still wanted."""
        if not await self._identity.is_active(job.organization_id):
            raise NotFound("organization")
        async with self._reader.read(job.organization_id) as connection:
            export = await exports.get_export(connection, job.subject_id)
        if export.state not in OPEN_STATES:
            raise WrongState(
                Reason.ERROR_REASON_STATE_WRONG,
                f"An export that is {export.state} isn't made.",
                {"state": export.state, "allowed": EvidenceState.QUEUED},
            )
        return Authority(audience=("audit", "actions", "scanner"))

    async def expire_evidence(self, job: Job) -> Authority:
        """Nothing outside of the worker's own folder."""
        async with self._reader.read(job.organization_id) as connection:
            await exports.get_export(connection, job.subject_id)
        return Authority()
