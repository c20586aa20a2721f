"""What is decided about connections: made, verified, switched off; and their sealed credentials."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from services._mesh.context import current
from services._mesh.envelope import parse
from services._mesh.errors import Conflict, Denied, FieldViolation, Invalid, Reason
from services._mesh.ids import uuid7
from services._mesh.jobs import Planner
from services._mesh.kms.interface import SecretContext
from services._mesh.kms.opening import Sealer
from services._mesh.uow import Store, UnitOfWork
from services.scanner.model.cloud import Provider
from services.scanner.model.connection import (
    Connection,
    ConnectionState,
    NewConnection,
    SealedConnection,
)
from services.scanner.model.given import faults, federates, plaintext, taken
from services.scanner.store import connections, keks, keys
from services.scanner.store.credential_uses import note_use
from services.scanner.usecases.connecting import KeyRules, check_key, check_other_key, new_external_id
from services.scanner.usecases.credentials import end_with_connection, revoke_credential
from services.scanner.usecases.kinds import (
    CHECK,
    DELIVER,
    EVIDENCE_PAGE,
    FIRST_CHECK,
    PENDING_PERIOD,
    VERIFY,
    gives_up_at,
    require_evidence_grant,
    wrong_state,
)
from services.scanner.usecases.rotation_rules import require_young


async def seal_connection(reader: Store, sealer: Sealer, given: NewConnection, issuer: str = "") -> SealedConnection:
    """Seal the base key together with the organization's external id, a new one where it has none, and the roles; of
    other clouds, who we are there together with the scopes.

    Raises Invalid with every field that is wrong, and what the key service raises.
    """
    if wrong := [FieldViolation(*each) for each in faults(given, datetime.now(UTC), can_federate=bool(issuer))]:
        message = f"{wrong[0].field}: {wrong[0].description}"
        raise Invalid(Reason.ERROR_REASON_FIELD_INVALID, message, field_violations=wrong)
    given, external_id = taken(given, issuer), ""
    if given.provider is Provider.AWS:
        async with reader.read() as connection:
            external_id = await connections.find_external_id(connection) or new_external_id()
    credential_id = uuid7()
    context = SecretContext(current().organization(), credential_id, given.provider.purpose)
    envelope = await sealer.seal(plaintext(external_id, given), context)
    return SealedConnection(given, external_id, credential_id, envelope)


async def create_connection(
    work: UnitOfWork, planner: Planner, rules: KeyRules, sealed: SealedConnection
) -> Connection:
    """Create a connection with its sealed credential; it is given up where nobody verifies it in time.

    Raises Invalid for a key where none is allowed, and for none where one is needed; Conflict when an external id was
    made meanwhile.
    """
    given = sealed.given
    await _check_allowed(work, rules, sealed)
    made = Connection(
        work.organization_id,
        uuid7(),
        given.display_name,
        given.accounts,
        given.regions,
        sealed.external_id,
        sealed.credential_id,
        given.access_key_id,
        ConnectionState.PENDING,
        "",
        (),
        1,
        work.now,
        None,
        provider=given.provider,
        identity=given.identity.public,
    )
    await require_open_kek(work, sealed.envelope)
    await connections.insert_connection(work.connection, made, sealed.envelope)
    await work.enqueue(planner.plan(work.organization_id, CHECK, made.connection_id, work.now + FIRST_CHECK))
    work.emit(
        "scanner.connection.create",
        f"connections/{made.connection_id}",
        {
            "accounts": [account.account_id for account in given.accounts],
            "regions": list(given.regions),
            "access_key_id": given.access_key_id,
            "provider": given.provider.value,
            **given.identity.public,
        },
    )
    return made


async def _check_allowed(work: UnitOfWork, rules: KeyRules, sealed: SealedConnection) -> None:
    given = sealed.given
    if given.provider is not Provider.AWS:
        if not federates(given):
            await check_other_key(work, rules, given.provider)
        return
    await check_key(work, rules, given.access_key_id)
    kept = await connections.take_external_id(work.connection, work.organization_id, sealed.external_id, work.now)
    if kept != sealed.external_id:
        raise Conflict(Reason.ERROR_REASON_ETAG_MISMATCH, "Somebody connected at the same moment. Connect again.")


async def require_open_kek(work: UnitOfWork, envelope: bytes) -> None:
    """Raises Conflict where the key was retired since the credential was sealed under it."""
    await keks.lock(work.connection, work.organization_id)
    if await keks.is_retired(work.connection, parse(envelope).kek):
        raise Conflict(Reason.ERROR_REASON_ETAG_MISMATCH, "The key was retired at the same moment. Connect again.")


async def verify_connection(work: UnitOfWork, planner: Planner, connection_id: UUID) -> Connection:
    """Start a verification. Raises NotFound, WrongState while one runs or when the connection is disabled, Denied."""
    current().require_whole_connections()
    found = await connections.get_connection(work.connection, connection_id, lock=True)
    if found.state in (ConnectionState.DISABLED, ConnectionState.VERIFYING):
        raise wrong_state("verified", found.state, "PENDING, FAILED or ACTIVE")
    await require_young(work, found)
    marked = await connections.mark_connection(
        work.connection, connection_id, state=ConnectionState.VERIFYING.value, problem=""
    )
    await work.enqueue(planner.plan(work.organization_id, VERIFY, connection_id, work.now))
    await _keep_checking(work, planner, connection_id)
    work.emit("scanner.connection.verify", f"connections/{connection_id}")
    return marked


async def check_connection(work: UnitOfWork, planner: Planner, connection_id: UUID) -> Connection:
    """Have an accepted connection checked now; scans go on meanwhile. Raises NotFound, WrongState, Denied."""
    current().require_whole_connections()
    found = await connections.get_connection(work.connection, connection_id, lock=True)
    if found.state is not ConnectionState.ACTIVE:
        raise wrong_state("checked", found.state, "ACTIVE")
    await require_young(work, found)
    await work.enqueue(planner.plan(work.organization_id, VERIFY, connection_id, work.now))
    await _keep_checking(work, planner, connection_id)
    work.emit("scanner.connection.check", f"connections/{connection_id}", {"state": found.state.value})
    return found


async def _keep_checking(work: UnitOfWork, planner: Planner, connection_id: UUID) -> None:
    """See to the daily check: of a connection that is older than these, and of one whose check was given up."""
    if not await connections.has_job(work.connection, CHECK, connection_id):
        await work.enqueue(planner.plan(work.organization_id, CHECK, connection_id, work.now + FIRST_CHECK))


async def disable_connection(work: UnitOfWork, planner: Planner, connection_id: UUID, etag: str) -> Connection:
    """Switch a connection off, and have its credential revoked. Raises NotFound, Conflict (ETAG_MISMATCH), Denied."""
    current().require_whole_connections()
    found = await connections.get_connection(work.connection, connection_id, lock=True)
    if etag != found.etag:
        raise Conflict(Reason.ERROR_REASON_ETAG_MISMATCH, "Somebody changed it in between. Read it again, then repeat.")
    marked = await _switch_off(work, planner, found, "")
    work.emit("scanner.connection.disable", f"connections/{connection_id}")
    return marked


async def expire_connection(work: UnitOfWork, planner: Planner) -> None:
    """Give up the connection of a check's grant, which nobody had accepted in time. Again, it changes nothing.

    Raises Denied (GRANT_INVALID), NotFound, WrongState for one that was accepted, or still has time.
    """
    grant = current().grant
    if grant is None or grant.kind != CHECK:
        raise Denied(Reason.ERROR_REASON_GRANT_INVALID, "The grant isn't for checking a connection.")
    found = await connections.get_connection(work.connection, UUID(grant.subject), lock=True)
    if found.verified_at is not None or (found.state is not ConnectionState.DISABLED and work.now < gives_up_at(found)):
        raise wrong_state("given up", found.state, f"never accepted within {PENDING_PERIOD.days} days")
    if found.state is not ConnectionState.DISABLED:
        problem = f"It wasn't verified within {PENDING_PERIOD.days} days. Connect the cloud scope again."
        await _switch_off(work, planner, found, problem)
    work.emit("scanner.connection.expire", f"connections/{found.connection_id}", {"before": found.state.value})


async def _switch_off(work: UnitOfWork, planner: Planner, found: Connection, problem: str) -> Connection:
    """Nobody uses it any more, everybody is told of its credential, and what was sealed of it is destroyed.

    Switching off is for good. Who was granted the credential before is refused it by its keeper from here on.
    """
    marked = await connections.mark_connection(
        work.connection, found.connection_id, state=ConnectionState.DISABLED.value, problem=problem
    )
    await end_with_connection(work, found.connection_id)
    await connections.delete_credentials(work.connection, found.connection_id)
    await revoke_credential(work, planner, found.credential_id)
    return marked


async def get_connection(reader: Store, connection_id: UUID) -> Connection:
    """One connection. Raises NotFound."""
    async with reader.read() as connection:
        return await connections.get_connection(connection, connection_id)


async def list_connections(reader: Store, after: UUID | None, limit: int) -> list[Connection]:
    """Connections by id; one more than `limit` shows that there are more."""
    async with reader.read() as connection:
        return await connections.list_connections(connection, after, limit + 1)


async def fetch_sealed_credential(reader: Store, credential_id: UUID) -> bytes:
    """The sealed credential that the caller's grant names. Raises Denied (GRANT_INVALID), NotFound."""
    grant = current().grant
    if grant is None or grant.credential is None or grant.credential.credential_id != credential_id:
        raise Denied(Reason.ERROR_REASON_GRANT_INVALID, "The grant names another credential.")
    async with reader.begin(interim=True) as work:
        await note_use(work.connection, work.organization_id, credential_id, work.now)
        if grant.kind == DELIVER:  # Keys alone, as the others have connections' credentials alone.
            return await keys.get_envelope(work.connection, credential_id)
        return await connections.get_envelope(work.connection, credential_id)


async def list_evidence_connections(reader: Store, after: UUID | None) -> list[Connection]:
    """A page of connections by id. Raises Denied (GRANT_INVALID)."""
    require_evidence_grant()
    async with reader.read() as connection:
        return await connections.list_connections(connection, after, EVIDENCE_PAGE)
