"""What is decided about rotations of credentials: begun, given up, and what the worker may do at each step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from uuid import UUID

from services._mesh.context import current
from services._mesh.errors import Conflict, FieldViolation, Invalid, NotFound, Reason, WrongState, invalid_field
from services._mesh.ids import uuid7
from services._mesh.jobs import Authority, Job, Planner
from services._mesh.kms.interface import SecretContext
from services._mesh.kms.opening import Sealer
from services._mesh.uow import Store, UnitOfWork
from services.scanner.clients.peers import Identity
from services.scanner.model.cloud import Provider
from services.scanner.model.connection import Connection, ConnectionState
from services.scanner.model.given import KEY_FIELDS, NewSecret, faults, plaintext, taken
from services.scanner.model.rotation import ROTATE, TRYING, Rotation, RotationState
from services.scanner.model.rotation_rules import Deadlines
from services.scanner.store import connections
from services.scanner.store import rotations as store
from services.scanner.store.rotation_rules import find_deadlines, find_rules
from services.scanner.usecases.connecting import KeyRules, check_key, check_other_key
from services.scanner.usecases.connections import require_open_kek
from services.scanner.usecases.credentials import end_rotation, names_of
from services.scanner.usecases.kinds import wrong_state
from services.scanner.usecases.policies import probing, reading

_ROTATABLE = (ConnectionState.ACTIVE, ConnectionState.FAILED)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A new credential in its envelope, and the connection as it was when it was sealed."""

    before: Connection
    credential_id: UUID
    access_key_id: str
    envelope: bytes


async def seal_candidate(reader: Store, sealer: Sealer, connection_id: UUID, given: NewSecret) -> Candidate:
    """Seal a new secret with all else that the connection has: external id and roles, or who we are and the scopes.

    Raises NotFound, Invalid with every field that is wrong, and what the key service raises.
    """
    async with reader.read() as connection:
        found = await connections.get_connection(connection, connection_id)
    if "issuer" in found.identity:
        rule = "must not be given: the cloud trusts us for this connection, which holds no secret; connect anew"
        raise invalid_field(KEY_FIELDS[found.provider], rule)
    for field, provider in given.others(found.provider):
        rule = f"is {provider.brand}'s, and the connection is one of {found.provider.brand}; leave it empty"
        raise invalid_field(field, rule)
    made = given.of(found)
    wrong = [FieldViolation(*each) for each in faults(made, datetime.now(UTC)) if not each[0].endswith("_arn")]
    if wrong:
        message = f"{wrong[0].field}: {wrong[0].description}"
        raise Invalid(Reason.ERROR_REASON_FIELD_INVALID, message, field_violations=wrong)
    made = taken(made)
    is_same = made.access_key_id == found.access_key_id
    if made.access_key_id and is_same and found.provider is not Provider.AZURE:  # There it is the application's id.
        rule = f"must be another key than the connection has; make a second one in {found.provider.brand} first"
        raise invalid_field(KEY_FIELDS[found.provider], rule)
    credential_id = uuid7()
    context = SecretContext(current().organization(), credential_id, found.provider.purpose)
    envelope = await sealer.seal(plaintext(found.external_id, made), context)
    return Candidate(found, credential_id, made.access_key_id, envelope)


async def _check_allowed(work: UnitOfWork, rules: KeyRules, given: Candidate) -> None:
    if given.before.provider is Provider.AWS:
        await check_key(work, rules, given.access_key_id)
    else:
        await check_other_key(work, rules, given.before.provider)


async def rotate_credential(work: UnitOfWork, planner: Planner, rules: KeyRules, given: Candidate) -> Rotation:
    """Begin a rotation with a credential that was sealed just now.

    Raises NotFound, Invalid, Denied; WrongState for a connection that isn't in use or is being rotated; Conflict where
    it was changed meanwhile.
    """
    current().require_whole_connections()
    await _check_allowed(work, rules, given)
    found = await connections.get_connection(work.connection, given.before.connection_id, lock=True)
    if found.state not in _ROTATABLE:
        raise wrong_state("given another credential", found.state, "ACTIVE or FAILED")
    before = await store.find_open(work.connection, found.connection_id)
    if before is not None:
        raise _open_already(before)
    if found.credential_id != given.before.credential_id:
        raise Conflict(Reason.ERROR_REASON_ETAG_MISMATCH, "It was rotated at the same moment. Look, then repeat.")
    await require_open_kek(work, given.envelope)
    made = Rotation(
        work.organization_id,
        uuid7(),
        found.connection_id,
        RotationState.PROBING,
        given.credential_id,
        found.credential_id,
        given.access_key_id,
        found.access_key_id,
        work.now,
        provider=found.provider,
    )
    await store.insert_rotation(work.connection, made, given.envelope)
    await work.enqueue(planner.plan(work.organization_id, ROTATE, made.rotation_id, work.now, plan=made.plan))
    said = {**names_of(made), "access_key_id": made.access_key_id}
    work.emit("scanner.credential.rotate", f"connections/{found.connection_id}", said)
    return made


def _open_already(before: Rotation) -> WrongState:
    way_out = "Wait until it is done: recoup credential status."
    if before.state in TRYING:
        way_out = "Wait for it, or give it up first: recoup credential cancel."
    message = f"The connection is being rotated already; that rotation is {before.state.value}. {way_out}"
    return WrongState(
        Reason.ERROR_REASON_ROTATION_OPEN,
        message,
        {"rotation_id": str(before.rotation_id), "state": before.state.value},
    )


async def cancel_rotation(work: UnitOfWork, connection_id: UUID) -> Rotation:
    """Give up the open rotation of a connection, and destroy its new credential. Raises NotFound, WrongState."""
    current().require_whole_connections()
    await connections.get_connection(work.connection, connection_id, lock=True)
    found = await store.find_open(work.connection, connection_id)
    if found is None or found.state not in TRYING:
        newest = found or await store.find_newest(work.connection, connection_id)
        raise _nothing_to_cancel(newest)
    return await end_rotation(work, found, RotationState.CANCELLED, "", "scanner.credential.cancel")


def _nothing_to_cancel(newest: Rotation | None) -> WrongState:
    if newest is None:
        message = "The connection was never rotated, so there is nothing to give up."
    elif newest.state is RotationState.DRAINING:
        message = "The new credential is in use already. To go back, rotate to the one before when this is DONE."
    else:
        message = f"The newest rotation of the connection is {newest.state.value}, so there is nothing to give up."
    state = newest.state.value if newest else "NONE"
    return WrongState(
        Reason.ERROR_REASON_STATE_WRONG, message, {"state": state, "allowed": " or ".join(s.value for s in TRYING)}
    )


async def get_rotation(reader: Store, connection_id: UUID) -> Rotation:
    """The newest rotation of a connection. Raises NotFound where it has none."""
    async with reader.read() as connection:
        await connections.get_connection(connection, connection_id)
        found = await store.find_newest(connection, connection_id)
    if found is None:
        raise NotFound("rotation")
    return found


async def resolve_credential(reader: Store, organization_id: UUID, credential_id: UUID) -> tuple[UUID, datetime | None]:
    """The credential in use in the place of one that a connection had before, and from when on it is refused.

    It is the same where it is no such one.
    What is granted for a credential that there isn't opens nothing, and the job that has it says so when it dies.
    """
    async with reader.read(organization_id) as connection:
        found = await store.find_current(connection, credential_id)
        if found is None:
            return credential_id, None
        return found.credential_id, (await find_deadlines(connection, found)).refused_from


class RotationPolicies:
    """What the worker may do for a rotation, decided anew at each claim and renewal: the least for its next step."""

    def __init__(self, reader: Store, identity: Identity) -> None:
        self._reader, self._identity = reader, identity

    async def rotate(self, job: Job) -> Authority:
        """The new credential may be probed, then read with; of the one that came to its end the feed may be told.

        While work under the one before may be going on, nothing may.
        """
        async with self._reader.read(job.organization_id) as connection:
            found = await store.get_rotation(connection, job.subject_id)
            of = await connections.get_connection(connection, found.connection_id)
            deadlines = Deadlines.of(await find_rules(connection), bool(found.access_key_id), found.started_at)
        if found.state not in TRYING:
            return Authority(audience=("identity",), plan=found.plan)
        if not await self._identity.is_active(job.organization_id):
            raise NotFound("organization")
        tried = replace(of, credential_id=found.candidate_id)
        # Of other clouds than AWS nothing is scanned yet: what is read is what a check lists.
        is_read = found.state is RotationState.READING and found.provider is Provider.AWS
        scopes = (reading if is_read else probing)(tried, deadlines)
        return Authority(credentials=scopes if of.state is not ConnectionState.DISABLED else (), plan=found.plan)
