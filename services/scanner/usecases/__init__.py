"""What the scanner's API decides, one function a decision."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from services._mesh.context import current
from services._mesh.errors import AlreadyExists, Conflict, Denied, NotFound, Reason, WrongState, invalid_field
from services._mesh.grants import CredentialScope
from services._mesh.ids import uuid7
from services._mesh.jobs import Authority, Job, Planner
from services._mesh.kms.interface import SecretContext
from services._mesh.kms.opening import Sealer
from services._mesh.uow import Store, UnitOfWork
from services.scanner.clients.peers import Exceptions, Identity
from services.scanner.detections import READ_PERMISSIONS
from services.scanner.model.connection import (
    CREDENTIAL_PURPOSE,
    Account,
    Connection,
    ConnectionState,
    NewConnection,
    SealedConnection,
)
from services.scanner.model.reading import APIS, units_of
from services.scanner.model.suppression import Suppression, target_of
from services.scanner.store import connections, scans

VERIFY, SCAN = "verify_connection", "scan"
# The kind of job that makes evidence bundles, and how many scans or connections one of its pages has.
EXPORT_EVIDENCE, EVIDENCE_PAGE = "export_evidence", 50


async def seal_connection(sealer: Sealer, given: NewConnection) -> SealedConnection:
    """Generate a connection's external id, and seal the base key together with it and the roles.

    Raises Invalid when a role isn't in the account that it is given for, and what the key service raises.
    """
    _check_accounts(given.accounts)
    external_id, credential_id = f"recoup-{secrets.token_hex(16)}", uuid7()
    context = SecretContext(current().organization(), credential_id, CREDENTIAL_PURPOSE)
    envelope = await sealer.seal(_plaintext(external_id, given), context)
    return SealedConnection(given, external_id, credential_id, envelope)


async def create_connection(work: UnitOfWork, sealed: SealedConnection) -> Connection:
    """Create a connection with its sealed credential."""
    given = sealed.given
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
    )
    await connections.insert_connection(work.connection, made, sealed.envelope)
    work.emit(
        "scanner.connection.create",
        f"connections/{made.connection_id}",
        {
            "accounts": [account.account_id for account in given.accounts],
            "regions": list(given.regions),
            "access_key_id": given.access_key_id,
        },
    )
    return made


def _check_accounts(accounts: Sequence[Account]) -> None:
    seen: set[str] = set()
    for place, account in enumerate(accounts):
        if account.account_id in seen:
            raise invalid_field(f"aws_accounts[{place}].account_id", "must be given once")
        seen.add(account.account_id)
        for name in ("scan_role_arn", "act_role_arn"):
            arn = getattr(account, name)
            if arn and arn.split(":")[4] != account.account_id:
                raise invalid_field(f"aws_accounts[{place}].{name}", "must be a role of that account")
        if account.scan_role_arn == account.act_role_arn:
            raise invalid_field(f"aws_accounts[{place}].act_role_arn", "must be another role than scan_role_arn")


def _plaintext(external_id: str, given: NewConnection) -> bytes:
    roles = {a.account_id: {"scan": a.scan_role_arn, "act": a.act_role_arn} for a in given.accounts}
    return json.dumps(
        {
            "access_key_id": given.access_key_id,
            "secret_access_key": given.secret_access_key,
            "external_id": external_id,
            "roles": roles,
        }
    ).encode()


async def verify_connection(work: UnitOfWork, planner: Planner, connection_id: UUID) -> Connection:
    """Start a verification. Raises NotFound, WrongState while one runs or when the connection is disabled, Denied."""
    current().require_whole_connections()
    found = await connections.get_connection(work.connection, connection_id, lock=True)
    if found.state in (ConnectionState.DISABLED, ConnectionState.VERIFYING):
        raise _wrong_state("verified", found.state, "PENDING, FAILED or ACTIVE")
    marked = await connections.mark_connection(
        work.connection, connection_id, state=ConnectionState.VERIFYING.value, problem=""
    )
    await work.enqueue(planner.plan(work.organization_id, VERIFY, connection_id, work.now))
    work.emit("scanner.connection.verify", f"connections/{connection_id}")
    return marked


async def disable_connection(work: UnitOfWork, connection_id: UUID, etag: str) -> Connection:
    """Switch a connection off. Raises NotFound, Conflict (ETAG_MISMATCH), Denied."""
    current().require_whole_connections()
    found = await connections.get_connection(work.connection, connection_id, lock=True)
    if etag != found.etag:
        raise Conflict(Reason.ERROR_REASON_ETAG_MISMATCH, "Somebody changed it in between. Read it again, then repeat.")
    marked = await connections.mark_connection(
        work.connection, connection_id, state=ConnectionState.DISABLED.value, problem=""
    )
    work.emit("scanner.connection.disable", f"connections/{connection_id}")
    return marked


async def get_connection(reader: Store, connection_id: UUID) -> Connection:
    """One connection. Raises NotFound."""
    async with reader.read() as connection:
        return await connections.get_connection(connection, connection_id)


async def list_connections(reader: Store, after: UUID | None, limit: int) -> list[Connection]:
    """Connections by id; one more than `limit` shows that there are more."""
    async with reader.read() as connection:
        return await connections.list_connections(connection, after, limit + 1)


async def start_scan(work: UnitOfWork, planner: Planner, connection_id: UUID) -> Any:
    """Start a scan of a connection's whole scope. Raises NotFound, WrongState, AlreadyExists, Denied."""
    current().require_whole_connections()
    found = await connections.get_connection(work.connection, connection_id, lock=True)
    if found.state is not ConnectionState.ACTIVE:
        raise _wrong_state("scanned", found.state, "ACTIVE")
    scan_id = uuid7()
    units = len(units_of([a.account_id for a in found.accounts], found.regions))
    await scans.insert_scan(work.connection, work.organization_id, scan_id, connection_id, units, work.now)
    await work.enqueue(planner.plan(work.organization_id, SCAN, scan_id, work.now))
    work.emit("scanner.scan.start", f"scans/{scan_id}", {"connection_id": str(connection_id)})
    return await scans.get_scan(work.connection, scan_id)


def _wrong_state(what: str, state: ConnectionState, allowed: str) -> WrongState:
    return WrongState(
        Reason.ERROR_REASON_STATE_WRONG,
        f"A connection that is {state.value} can't be {what}.",
        {"state": state.value, "allowed": allowed},
    )


async def get_scan(reader: Store, scan_id: UUID) -> tuple[Any, Sequence[Any]]:
    """A scan and the completeness records that it has so far. Raises NotFound."""
    async with reader.read() as connection:
        return await scans.get_scan(connection, scan_id), await scans.list_units(connection, [scan_id])


async def list_scans(
    reader: Store, before: UUID | None, limit: int, connection_id: UUID | None
) -> list[tuple[Any, Sequence[Any]]]:
    """Scans, newest first; one more than `limit` shows that there are more."""
    async with reader.read() as connection:
        rows = await scans.list_scans(connection, before, limit + 1, connection_id)
        units = await scans.list_units(connection, [row.scan_id for row in rows])
    return [(row, [unit for unit in units if unit.scan_id == row.scan_id]) for row in rows]


InForce = Mapping[UUID, datetime]


async def get_finding(reader: Store, exceptions: Exceptions, finding_id: UUID) -> tuple[Any, InForce]:
    """One finding, and the exceptions in force that could leave it alone. Raises NotFound, Unavailable."""
    async with reader.read() as connection:
        row = await scans.get_finding(connection, finding_id)
    return row, {} if row.exception_id is None else await _in_force(exceptions)


async def list_findings(
    reader: Store,
    exceptions: Exceptions,
    after: tuple[Decimal, UUID] | None,
    limit: int,
    narrowed: Mapping[str, Any],
) -> tuple[Sequence[Any], InForce]:
    """Findings, the largest saving first, and the exceptions in force; one more than `limit` shows that there are more.

    Identity is asked each time, where any finding carries an exception: none outlives its end here. Raises Unavailable.
    """
    async with reader.read() as connection:
        is_asked = await scans.has_excepted(connection)
    in_force = await _in_force(exceptions) if is_asked else {}
    async with reader.read() as connection:
        return await scans.list_findings(connection, after, limit + 1, narrowed, in_force.keys()), in_force


async def _in_force(exceptions: Exceptions) -> InForce:
    found = await exceptions.in_force(current().organization())
    return {exception_id: until for exception_id, (_, until) in found.items()}


async def except_finding(reader: Store, exceptions: Exceptions, wanted: Suppression) -> tuple[UUID, datetime]:
    """Have identity make the exception that is to leave a finding alone, on behalf of the caller; its id and its end.

    One that was made before, and that the finding doesn't carry because we failed in between, is taken. Raises
    NotFound, WrongState where the finding isn't open, AlreadyExists where it is left alone, and what identity raises.
    """
    async with reader.read() as connection:
        row = await scans.get_finding(connection, wanted.finding_id)
    if row.state != "OPEN":
        raise WrongState(
            Reason.ERROR_REASON_STATE_WRONG,
            f"A finding that is {row.state} needs no exception.",
            {"state": row.state, "allowed": "OPEN"},
        )
    try:
        return await exceptions.create(current().organization(), wanted)
    except AlreadyExists:
        found = await exceptions.in_force(current().organization())
        about = target_of(wanted.finding_id)
        made = {exception_id: until for exception_id, (target, until) in found.items() if target == about}
        if not made or row.exception_id in made:
            raise
        return next(iter(made.items()))


async def suppress_finding(work: UnitOfWork, finding_id: UUID, exception_id: UUID, until: datetime, reason: str) -> Any:
    """Leave a finding alone for as long as an exception is in force. Raises NotFound."""
    before = await scans.get_finding(work.connection, finding_id)
    await scans.mark_excepted(work.connection, finding_id, exception_id)
    said = {"exception_id": str(exception_id), "expires_at": until.isoformat(), "reason": reason}
    work.emit(
        "scanner.finding.suppress",
        target_of(finding_id),
        {**said, "before": str(before.exception_id or ""), "resource": before.id, "detection": before.detection_id},
    )
    return await scans.get_finding(work.connection, finding_id)


async def fetch_sealed_credential(reader: Store, credential_id: UUID) -> bytes:
    """The sealed credential that the caller's grant names. Raises Denied (GRANT_INVALID), NotFound."""
    grant = current().grant
    if grant is None or grant.credential is None or grant.credential.credential_id != credential_id:
        raise Denied(Reason.ERROR_REASON_GRANT_INVALID, "The grant names another credential.")
    async with reader.read() as connection:
        return await connections.get_envelope(connection, credential_id)


async def list_evidence_scans(
    reader: Store, begins_at: datetime, ends_at: datetime, after: UUID | None
) -> list[tuple[Any, Sequence[Any]]]:
    """A page of a period's scans with their completeness records, oldest first. Raises Denied (GRANT_INVALID)."""
    _require_evidence_grant()
    async with reader.read() as connection:
        rows = await scans.list_scans_between(connection, begins_at, ends_at, after, EVIDENCE_PAGE)
        return [(row, await scans.list_units(connection, [row.scan_id])) for row in rows]


async def list_evidence_connections(reader: Store, after: UUID | None) -> list[Connection]:
    """A page of connections by id. Raises Denied (GRANT_INVALID)."""
    _require_evidence_grant()
    async with reader.read() as connection:
        return await connections.list_connections(connection, after, EVIDENCE_PAGE)


def _require_evidence_grant() -> None:
    grant = current().grant
    if grant is None or grant.kind != EXPORT_EVIDENCE:
        raise Denied(Reason.ERROR_REASON_GRANT_INVALID, "The grant isn't for an export of evidence.")


class Policies:
    """What the workers of this service may do, decided anew at each claim and renewal."""

    def __init__(self, reader: Store, identity: Identity) -> None:
        self._reader, self._identity = reader, identity

    async def verify(self, job: Job) -> Authority:
        """Both roles of every account may be probed."""
        found = await self._connection(job.organization_id, job.subject_id)
        scopes = [_scope(found, account.account_id, "scan", ()) for account in found.accounts]
        scopes += [_scope(found, a.account_id, "act", ()) for a in found.accounts if a.act_role_arn]
        return Authority(credentials=tuple(scopes))

    async def scan(self, job: Job) -> Authority:
        """The scan role of every account may list what the detections need, and nothing else."""
        async with self._reader.read(job.organization_id) as connection:
            row = await scans.get_scan(connection, job.subject_id)
        found = await self._connection(job.organization_id, row.connection_id)
        reads = ({"actions": sorted({*READ_PERMISSIONS, *APIS}), "resources": ["*"]},)
        return Authority(
            credentials=tuple(_scope(found, account.account_id, "scan", reads) for account in found.accounts)
        )

    async def _connection(self, organization_id: UUID, connection_id: UUID) -> Connection:
        if not await self._identity.is_active(organization_id):
            raise NotFound("organization")
        async with self._reader.read(organization_id) as connection:
            found = await connections.get_connection(connection, connection_id)
        if found.state is ConnectionState.DISABLED:
            raise _wrong_state("used", found.state, "ACTIVE")
        return found


def _scope(found: Connection, account: str, purpose: str, statements: Sequence[Any]) -> CredentialScope:
    return CredentialScope(
        credential_id=found.credential_id, purpose=purpose, account=account, statements=tuple(statements)
    )
