"""What is decided about sealed credentials: that one may never be used again, and what the job that says so may do."""

from __future__ import annotations

from uuid import UUID

from services._mesh.errors import Reason, WrongState
from services._mesh.jobs import Authority, Job, Planner
from services._mesh.uow import Store, UnitOfWork
from services.scanner.store import connections

# The kind of job that takes a credential's end to identity's revocation feed.
REVOKE = "revoke_credential"


async def revoke_credential(work: UnitOfWork, planner: Planner, credential_id: UUID) -> None:
    """Have everybody told that a credential isn't used any more, by a job of the same transaction: it can't be lost."""
    await work.enqueue(planner.plan(work.organization_id, REVOKE, credential_id, work.now))


class CredentialPolicies:
    """What the worker may do that tells of credentials."""

    def __init__(self, reader: Store) -> None:
        self._reader = reader

    async def revoke(self, job: Job) -> Authority:
        """Identity may be told, as long as no connection uses the credential: for good is for good."""
        async with self._reader.read(job.organization_id) as connection:
            if await connections.is_in_use(connection, job.subject_id):
                raise WrongState(
                    Reason.ERROR_REASON_STATE_WRONG,
                    "A connection uses the credential, so it isn't revoked.",
                    {"state": "IN_USE", "allowed": "no connection that uses it"},
                )
        return Authority(audience=("identity",))
