"""Organizations in the database."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from services._mesh.database import sqlstate_of
from services._mesh.errors import AlreadyExists, NotFound, Reason
from services.identity.model.membership import Organization
from services.identity.tables import organizations
from services.identity.tables.invitations import ownerships

_OWNER = (
    select(ownerships.c.member_id)
    .where(ownerships.c.organization_id == organizations.c.organization_id)
    .scalar_subquery()
    .label("owner_member_id")
)
_UNIQUE_VIOLATION = "23505"


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
        row.owner_member_id,
    )


async def find_organization(connection: AsyncConnection, organization_id: UUID) -> Organization | None:
    """The organization, if the transaction is scoped to it and it exists."""
    query = select(organizations, _OWNER).where(organizations.c.organization_id == organization_id)
    row = (await connection.execute(query)).one_or_none()
    return _organization(row) if row else None


async def get_organization(connection: AsyncConnection, organization_id: UUID) -> Organization:
    """The organization. Raises NotFound."""
    found = await find_organization(connection, organization_id)
    if found is None:
        raise NotFound("organization")
    return found


async def insert_organization(connection: AsyncConnection, organization: Organization) -> None:
    """Insert an organization. Raises AlreadyExists where the short name is taken."""
    try:
        await _insert(connection, organization)
    except IntegrityError as error:
        if sqlstate_of(error) != _UNIQUE_VIOLATION:
            raise
        raise AlreadyExists(
            Reason.ERROR_REASON_RESOURCE_EXISTS, "This short name is taken.", {"resource": "organization"}
        ) from error


async def _insert(connection: AsyncConnection, organization: Organization) -> None:
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
            .returning(organizations, _OWNER)
        )
    ).one()
    return _organization(row)
