"""SQL of rotations of credentials. A connection is locked before its rotation, everywhere."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import delete, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services._mesh.errors import NotFound
from services.scanner.model.cloud import Provider
from services.scanner.model.connection import Connection, ConnectionState, PermissionCheck, RoleCheck
from services.scanner.model.health import Health
from services.scanner.model.rotation import OPEN, Rotation, RotationState
from services.scanner.store.connections import get_connection, mark_checked
from services.scanner.tables import connections, credential_uses, credentials, rotations


def _rotation(row: Any) -> Rotation:
    facts = dict(row._mapping)
    facts["state"], facts["provider"] = RotationState(row.state), Provider(row.provider)
    facts["role_checks"] = tuple(RoleCheck(**each) for each in row.role_checks)
    facts["permission_checks"] = tuple(PermissionCheck(**each) for each in row.permission_checks)
    return Rotation(**facts)


async def insert_rotation(connection: AsyncConnection, made: Rotation, envelope: bytes) -> None:
    """Insert a rotation with its new credential."""
    await connection.execute(
        insert(credentials).values(
            organization_id=made.organization_id,
            credential_id=made.candidate_id,
            connection_id=made.connection_id,
            envelope=envelope,
            purpose=made.provider.purpose,
            created_at=made.started_at,
        )
    )
    values = {**asdict(made), "state": made.state.value, "provider": made.provider.value}
    await connection.execute(insert(rotations).values({**values, "role_checks": [], "permission_checks": []}))


async def get_rotation(connection: AsyncConnection, rotation_id: UUID, *, lock: bool = False) -> Rotation:
    """A rotation of the transaction's organization. Raises NotFound."""
    query = select(rotations).where(rotations.c.rotation_id == rotation_id)
    row = (await connection.execute(query.with_for_update() if lock else query)).one_or_none()
    if row is None:
        raise NotFound("rotation")
    return _rotation(row)


async def find_newest(connection: AsyncConnection, connection_id: UUID) -> Rotation | None:
    """The newest rotation of a connection."""
    query = select(rotations).where(rotations.c.connection_id == connection_id)
    row = (await connection.execute(query.order_by(rotations.c.rotation_id.desc()).limit(1))).one_or_none()
    return None if row is None else _rotation(row)


async def find_open(connection: AsyncConnection, connection_id: UUID) -> Rotation | None:
    """The rotation of a connection that isn't over, locked."""
    is_open = rotations.c.state.in_([state.value for state in OPEN])
    query = select(rotations).where(rotations.c.connection_id == connection_id, is_open)
    row = (await connection.execute(query.with_for_update())).one_or_none()
    return None if row is None else _rotation(row)


async def mark_rotation(connection: AsyncConnection, rotation_id: UUID, **values: Any) -> Rotation:
    """Change columns of a rotation."""
    for name in ("role_checks", "permission_checks"):
        if name in values:
            values[name] = [asdict(check) for check in values[name]]
    changed = update(rotations).where(rotations.c.rotation_id == rotation_id).values(**values).returning(rotations)
    return _rotation((await connection.execute(changed)).one())


async def promote(connection: AsyncConnection, found: Rotation, health: Health, now: datetime) -> bool:
    """Put the new credential in the place of the one that the rotation began with; False where another one is there."""
    swapped = (
        update(connections)
        .where(
            connections.c.connection_id == found.connection_id,
            connections.c.credential_id == found.replaced_id,
            connections.c.state != ConnectionState.DISABLED.value,
        )
        .values(credential_id=found.candidate_id, access_key_id=found.access_key_id)
    )
    if not (await connection.execute(swapped)).rowcount:
        return False
    await mark_checked(connection, health, now)
    return True


async def destroy_credential(connection: AsyncConnection, credential_id: UUID) -> None:
    """Drop a sealed credential."""
    for table in (credentials, credential_uses):
        await connection.execute(delete(table).where(table.c.credential_id == credential_id))


async def find_current(connection: AsyncConnection, credential_id: UUID) -> Connection | None:
    """The connection in use that has a credential, or had it before rotations."""
    had = select(rotations.c.connection_id).where(
        rotations.c.replaced_id == credential_id,
        rotations.c.state.in_((RotationState.DRAINING.value, RotationState.DONE.value)),
    )
    query = select(connections.c.connection_id).where(
        or_(connections.c.credential_id == credential_id, connections.c.connection_id.in_(had)),
        connections.c.state != ConnectionState.DISABLED.value,
    )
    found: UUID | None = (await connection.execute(query)).scalar_one_or_none()
    return None if found is None else await get_connection(connection, found)
