"""SQL of connections and their sealed credentials."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import delete, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from services._mesh.errors import NotFound
from services.scanner.model.cloud import CloudScope, Provider
from services.scanner.model.connection import Account, Connection, ConnectionState, PermissionCheck, RoleCheck
from services.scanner.model.health import Health
from services.scanner.tables import connections, credential_uses, credentials, external_ids, jobs, static_keys


def _connection(row: Any) -> Connection:
    return Connection(
        row.organization_id,
        row.connection_id,
        row.display_name,
        tuple(Account(**each) for each in row.accounts),
        tuple(row.regions),
        row.external_id,
        row.credential_id,
        row.access_key_id,
        ConnectionState(row.state),
        row.problem,
        tuple(RoleCheck(**each) for each in row.role_checks),
        row.version,
        row.created_at,
        row.verified_at,
        tuple(PermissionCheck(**each) for each in row.permission_checks),
        row.checked_at,
        Provider(row.provider),
        dict(row.identity),
        tuple(CloudScope(**each) for each in row.discovered),
    )


async def insert_connection(connection: AsyncConnection, made: Connection, envelope: bytes) -> None:
    """Insert a connection with its sealed credential."""
    await connection.execute(
        insert(connections).values(
            organization_id=made.organization_id,
            connection_id=made.connection_id,
            display_name=made.display_name,
            provider=made.provider.value,
            identity=dict(made.identity),
            discovered=[],
            accounts=[asdict(account) for account in made.accounts],
            regions=list(made.regions),
            external_id=made.external_id,
            credential_id=made.credential_id,
            access_key_id=made.access_key_id,
            state=made.state.value,
            problem="",
            role_checks=[],
            version=made.version,
            created_at=made.created_at,
        )
    )
    await connection.execute(
        insert(credentials).values(
            organization_id=made.organization_id,
            credential_id=made.credential_id,
            connection_id=made.connection_id,
            envelope=envelope,
            purpose=made.provider.purpose,
            created_at=made.created_at,
        )
    )


async def get_connection(connection: AsyncConnection, connection_id: UUID, *, lock: bool = False) -> Connection:
    """A connection of the transaction's organization. Raises NotFound."""
    query = select(connections).where(connections.c.connection_id == connection_id)
    row = (await connection.execute(query.with_for_update() if lock else query)).one_or_none()
    if row is None:
        raise NotFound("connection")
    return _connection(row)


async def list_connections(connection: AsyncConnection, after: UUID | None, limit: int) -> list[Connection]:
    """Connections by id, after `after`."""
    query = select(connections).order_by(connections.c.connection_id).limit(limit)
    if after is not None:
        query = query.where(connections.c.connection_id > after)
    return [_connection(row) for row in await connection.execute(query)]


async def mark_connection(connection: AsyncConnection, connection_id: UUID, **values: Any) -> Connection:
    """Change columns of a connection, and its version."""
    changed = (
        update(connections)
        .where(connections.c.connection_id == connection_id)
        .values(version=connections.c.version + 1, **values)
        .returning(connections)
    )
    return _connection((await connection.execute(changed)).one())


async def mark_checked(connection: AsyncConnection, health: Health, now: datetime) -> Connection:
    """Record what a check saw of a connection that is locked by this transaction."""
    before, state = health.before, health.state
    return await mark_connection(
        connection,
        before.connection_id,
        state=state.value,
        problem=health.problem,
        role_checks=[asdict(check) for check in health.roles],
        permission_checks=[asdict(check) for check in health.permissions],
        discovered=[asdict(scope) for scope in health.discovered],
        verified_at=now if state is ConnectionState.ACTIVE else before.verified_at,
        checked_at=now,
    )


async def find_static_keys(connection: AsyncConnection) -> bool | None:
    """Whether the organization allows long-lived keys, or None where it never said."""
    found: bool | None = (await connection.execute(select(static_keys.c.allowed))).scalar()
    return found


async def set_static_keys(connection: AsyncConnection, organization_id: UUID, allowed: bool, now: datetime) -> None:
    """Keep whether the organization allows long-lived keys."""
    values = {"allowed": allowed, "changed_at": now}
    said = upsert(static_keys).values(organization_id=organization_id, **values)
    await connection.execute(said.on_conflict_do_update(index_elements=["organization_id"], set_=values))


async def has_job(connection: AsyncConnection, kind: str, connection_id: UUID) -> bool:
    """Whether a job of this kind is still to be done for a connection."""
    is_its = (jobs.c.kind == kind) & (jobs.c.subject_id == connection_id)
    query = select(jobs.c.job_id).where(is_its, jobs.c.status.in_(("READY", "LEASED"))).limit(1)
    return (await connection.execute(query)).first() is not None


async def delete_credentials(connection: AsyncConnection, connection_id: UUID) -> None:
    """Forget the credentials of a connection."""
    ids = select(credentials.c.credential_id).where(credentials.c.connection_id == connection_id)
    await connection.execute(delete(credential_uses).where(credential_uses.c.credential_id.in_(ids)))
    await connection.execute(delete(credentials).where(credentials.c.connection_id == connection_id))


async def get_envelope(connection: AsyncConnection, credential_id: UUID) -> bytes:
    """A sealed credential whose connection is in use. Raises NotFound."""
    query = (
        select(credentials.c.envelope)
        .join(connections, connections.c.connection_id == credentials.c.connection_id)
        .where(credentials.c.credential_id == credential_id, connections.c.state != ConnectionState.DISABLED.value)
    )
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise NotFound("credential")
    return bytes(row.envelope)


async def is_in_use(connection: AsyncConnection, credential_id: UUID) -> bool:
    """Whether a connection that isn't disabled uses a credential."""
    using = select(connections.c.connection_id).where(
        connections.c.credential_id == credential_id, connections.c.state != ConnectionState.DISABLED.value
    )
    return bool((await connection.execute(select(using.exists()))).scalar())


async def find_external_id(connection: AsyncConnection) -> str | None:
    """The external id of the transaction's organization, or None where it has none yet."""
    found: str | None = (await connection.execute(select(external_ids.c.external_id))).scalar()
    return found


async def take_external_id(connection: AsyncConnection, organization_id: UUID, new: str, now: datetime) -> str:
    """The organization's external id: `new` where it had none. Whoever comes at the same time gets the same."""
    made = upsert(external_ids).values(organization_id=organization_id, external_id=new, created_at=now)
    await connection.execute(made.on_conflict_do_nothing())
    return str((await connection.execute(select(external_ids.c.external_id))).scalar_one())
