"""Organizations in the database."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services._mesh.errors import NotFound
from services.identity.model.membership import Organization
from services.identity.tables import organizations


def _organization(row: Any) -> Organization:
    return Organization(
        row.organization_id,
        row.slug,
        row.display_name,
        row.time_zone,
        row.reporting_currency,
        row.state,
        row.version,
        row.created_at,
    )


async def find_organization(connection: AsyncConnection, organization_id: UUID) -> Organization | None:
    """The organization, if the transaction is scoped to it and it exists."""
    query = select(organizations).where(organizations.c.organization_id == organization_id)
    row = (await connection.execute(query)).one_or_none()
    return _organization(row) if row else None


async def get_organization(connection: AsyncConnection, organization_id: UUID) -> Organization:
    """The organization. Raises NotFound."""
    found = await find_organization(connection, organization_id)
    if found is None:
        raise NotFound("organization")
    return found


async def insert_organization(connection: AsyncConnection, organization: Organization) -> None:
    """Insert an organization."""
    await connection.execute(
        insert(organizations).values(
            organization_id=organization.organization_id,
            slug=organization.slug,
            display_name=organization.display_name,
            time_zone=organization.time_zone,
            reporting_currency=organization.reporting_currency,
            state=organization.state,
            version=organization.version,
            created_at=organization.created_at,
        )
    )


async def mark_organization(connection: AsyncConnection, organization: Organization, **values: Any) -> Organization:
    """Change columns of an organization, and its version; the caller has compared the etag under a lock."""
    row = (
        await connection.execute(
            update(organizations)
            .where(organizations.c.organization_id == organization.organization_id)
            .values(version=organizations.c.version + 1, **values)
            .returning(organizations)
        )
    ).one()
    return _organization(row)
