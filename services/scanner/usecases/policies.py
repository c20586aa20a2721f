"""What the workers of the scanner may do, decided anew at each claim and renewal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from services._mesh.errors import NotFound
from services._mesh.grants import CredentialScope
from services._mesh.jobs import Authority, Job
from services._mesh.uow import Store
from services.scanner.clients.peers import Identity
from services.scanner.model.cloud import ALL_SCOPES, Provider
from services.scanner.model.connection import (
    Connection,
    ConnectionState,
)
from services.scanner.model.rotation_rules import Deadlines
from services.scanner.policies.aws import probe_statements, read_statements
from services.scanner.store import connections, scans
from services.scanner.store.rotation_rules import find_deadlines
from services.scanner.usecases.kinds import require_scanned, wrong_state


class Policies:
    """What the workers of this service may do, decided anew at each claim and renewal."""

    def __init__(self, reader: Store, identity: Identity) -> None:
        self._reader, self._identity = reader, identity

    async def verify(self, job: Job) -> Authority:
        """Both roles of every account may be probed: by reading, and by changes of what there isn't."""
        found, deadlines = await self._connection(job.organization_id, job.subject_id)
        return Authority(credentials=probing(found, deadlines))

    async def check(self, job: Job) -> Authority:
        """As to verify, every day; nothing of a connection that is switched off, whose check then ends."""
        if not await self._identity.is_active(job.organization_id):
            raise NotFound("organization")
        async with self._reader.read(job.organization_id) as connection:
            found = await connections.get_connection(connection, job.subject_id)
            deadlines = await find_deadlines(connection, found)
        is_used = found.state is not ConnectionState.DISABLED
        # Giving up what was never accepted is the API's own doing, which the worker asks for.
        audience = ("scanner",) if found.verified_at is None else ()
        return Authority(audience, probing(found, deadlines) if is_used else (), standing=True)

    async def scan(self, job: Job) -> Authority:
        """The scan role of every account may list what the detections need, and nothing else."""
        async with self._reader.read(job.organization_id) as connection:
            row = await scans.get_scan(connection, job.subject_id)
        found, deadlines = await self._connection(job.organization_id, row.connection_id)
        require_scanned(found)
        return Authority(credentials=reading(found, deadlines))

    async def _connection(self, organization_id: UUID, connection_id: UUID) -> tuple[Connection, Deadlines]:
        if not await self._identity.is_active(organization_id):
            raise NotFound("organization")
        async with self._reader.read(organization_id) as connection:
            found = await connections.get_connection(connection, connection_id)
            deadlines = await find_deadlines(connection, found)
        if found.state is ConnectionState.DISABLED:
            raise wrong_state("used", found.state, "ACTIVE")
        return found, deadlines


def reading(found: Connection, deadlines: Deadlines) -> tuple[CredentialScope, ...]:
    """The scan role of every account, to list what the detections need."""
    of = (found, deadlines)
    return tuple(_scope(of, a.account_id, "scan", read_statements()) for a in found.accounts)


def probing(found: Connection, deadlines: Deadlines) -> tuple[CredentialScope, ...]:
    """Both roles of every account, to be asked, and to have each permission tried without changing anything. In other
    clouds: to see which scopes there are, and what is allowed in each.
    """
    of = (found, deadlines)
    if found.provider is not Provider.AWS:
        named = (ALL_SCOPES, *(account.account_id for account in found.accounts))
        return tuple(_scope(of, scope, f"{found.provider.value}.check", ()) for scope in named)
    scopes = []
    for account in found.accounts:
        scopes.append(_scope(of, account.account_id, "scan", ()))
        scopes.append(_scope(of, account.account_id, "verify", read_statements()))
        if account.act_role_arn:
            partition = account.act_role_arn.split(":")[1]
            scopes.append(_scope(of, account.account_id, "act", ()))
            scopes.append(_scope(of, account.account_id, "probe", probe_statements(partition, account.account_id)))
    return tuple(scopes)


def _scope(of: tuple[Connection, Deadlines], account: str, purpose: str, statements: Sequence[Any]) -> CredentialScope:
    found, deadlines = of
    return CredentialScope(
        credential_id=found.credential_id,
        purpose=purpose,
        account=account,
        statements=tuple(statements),
        refused_from=deadlines.refused_from,
    )
