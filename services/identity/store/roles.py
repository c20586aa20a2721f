"""Custom roles in the database."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services._mesh.errors import NotFound
from services.identity.model.membership import CustomRole
from services.identity.tables import members, roles

_HOLDERS = (
    select(func.count())
    .where(
        members.c.organization_id == roles.c.organization_id,
        members.c.custom_role_id == roles.c.role_id,
        members.c.state != "REMOVED",
    )
    .correlate(roles)
    .scalar_subquery()
    .label("holders")
)


def _role(row: Any) -> CustomRole:
    return CustomRole(
        row.organization_id,
        row.role_id,
        row.name,
        row.description,
        tuple(row.permissions),
        row.version,
        row.created_at,
    )


async def get_role(connection: AsyncConnection, role_id: UUID, *, lock: bool = False) -> CustomRole:
    """A custom role of the transaction's organization. Raises NotFound."""
    query = select(roles).where(roles.c.role_id == role_id)
    row = (await connection.execute(query.with_for_update() if lock else query)).one_or_none()
    if row is None:
        raise NotFound("role")
    return _role(row)


async def find_roles(connection: AsyncConnection, role_ids: Collection[UUID]) -> dict[UUID, CustomRole]:
    """Those of the custom roles that are there, by id."""
    if not role_ids:
        return {}
    query = select(roles).where(roles.c.role_id.in_(list(role_ids)))
    return {row.role_id: _role(row) for row in await connection.execute(query)}


async def get_held_role(connection: AsyncConnection, role_id: UUID) -> tuple[CustomRole, int]:
    """A custom role, and how many hold it. Raises NotFound."""
    row = (await connection.execute(select(roles, _HOLDERS).where(roles.c.role_id == role_id))).one_or_none()
    if row is None:
        raise NotFound("role")
    return _role(row), int(row.holders)


async def list_roles(connection: AsyncConnection, after: UUID | None, limit: int) -> list[tuple[CustomRole, int]]:
    """Custom roles by id, after `after`, each with how many hold it."""
    query = select(roles, _HOLDERS).order_by(roles.c.role_id).limit(limit)
    if after is not None:
        query = query.where(roles.c.role_id > after)
    return [(_role(row), int(row.holders)) for row in await connection.execute(query)]


async def count_roles(connection: AsyncConnection) -> int:
    """How many custom roles the transaction's organization has."""
    return int((await connection.execute(select(func.count()).select_from(roles))).scalar_one())


async def insert_role(connection: AsyncConnection, role: CustomRole) -> bool:
    """Insert a custom role; False where there is one of that name."""
    made = insert(roles).values(
        organization_id=role.organization_id,
        role_id=role.role_id,
        name=role.name,
        description=role.description,
        permissions=list(role.permissions),
        version=role.version,
        created_at=role.created_at,
    )
    done = await connection.execute(made.on_conflict_do_nothing(index_elements=["organization_id", "name"]))
    return bool(done.rowcount)


async def mark_role(connection: AsyncConnection, role_id: UUID, **values: Any) -> CustomRole:
    """Change columns of a custom role, and its version."""
    changed = (
        update(roles).where(roles.c.role_id == role_id).values(version=roles.c.version + 1, **values).returning(roles)
    )
    return _role((await connection.execute(changed)).one())


async def delete_role(connection: AsyncConnection, role_id: UUID) -> None:
    """Delete a custom role; the table of members keeps one that somebody holds."""
    await connection.execute(delete(roles).where(roles.c.role_id == role_id))
