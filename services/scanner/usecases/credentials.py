"""What is decided about sealed credentials: that one may never be used again, and what the job that says so may do."""

from __future__ import annotations

from uuid import UUID

from services._mesh.clock import Clock
from services._mesh.errors import Reason, WrongState
from services._mesh.jobs import Authority, Job, Planner
from services._mesh.uow import Store, UnitOfWork
from services.scanner.model.rotation import TRYING, Rotation, RotationState
from services.scanner.store import connections, keys, rotations

# The kind of job that takes a credential's end to identity's revocation feed.
REVOKE = "revoke_credential"


async def revoke_credential(work: UnitOfWork, planner: Planner, credential_id: UUID) -> None:
    """Have everybody told that a credential isn't used any more, by a job of the same transaction: it can't be lost."""
    await work.enqueue(planner.plan(work.organization_id, REVOKE, credential_id, work.now))


async def end_with_connection(work: UnitOfWork, connection_id: UUID) -> None:
    """Give up what a connection that is switched off, and locked, was being rotated to."""
    found = await rotations.find_open(work.connection, connection_id)
    if found is not None and found.state in TRYING:
        problem = "The connection was disabled."
        await end_rotation(work, found, RotationState.CANCELLED, problem, "scanner.credential.cancel")


async def end_rotation(work: UnitOfWork, found: Rotation, state: RotationState, problem: str, action: str) -> Rotation:
    """End a rotation that is locked, without its new credential. The worker tells the revocation feed next."""
    values = {"state": state.value, "problem": problem, "ended_at": work.now}
    ended = await rotations.mark_rotation(work.connection, found.rotation_id, **values)
    await rotations.destroy_credential(work.connection, found.candidate_id)
    said = {**names_of(found), "problem": problem, "state": state.value}
    result = "FAILED" if state is RotationState.FAILED else "OK"
    work.emit(action, f"connections/{found.connection_id}", said, result)
    return ended


def names_of(found: Rotation) -> dict[str, str]:
    """What events say of a rotation: itself, the credential before, and the one after."""
    ids = {"rotation_id": found.rotation_id, "before": found.replaced_id, "after": found.candidate_id}
    return {name: str(value) for name, value in ids.items()}


class CredentialPolicies:
    """What the worker may do that tells of credentials."""

    def __init__(self, reader: Store, clock: Clock) -> None:
        self._reader, self._clock = reader, clock

    async def revoke(self, job: Job) -> Authority:
        """Identity may be told, as long as no connection uses the credential and no key is it: for good is for good."""
        async with self._reader.read(job.organization_id) as connection:
            is_key = await keys.is_live_key(connection, job.subject_id, self._clock.now())
            if is_key or await connections.is_in_use(connection, job.subject_id):
                raise WrongState(
                    Reason.ERROR_REASON_STATE_WRONG,
                    "The credential is in use, so it isn't revoked.",
                    {"state": "IN_USE", "allowed": "no connection that uses it, no live key"},
                )
        return Authority(audience=("identity",))
