"""Allowed origins in the database: one row for each organization that ever named any."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.identity.model.origins import AllowedOrigins
from services.identity.tables.origins import allowed_origins


async def get_origins(connection: AsyncConnection, organization_id: UUID) -> AllowedOrigins:
    """The allowed origins of the transaction's organization; none where nobody named any."""
    query = select(allowed_origins).where(allowed_origins.c.organization_id == organization_id)
    row = (await connection.execute(query)).one_or_none()
    return AllowedOrigins(organization_id, tuple(row.origins) if row else (), row.version if row else 0)


async def put_origins(connection: AsyncConnection, wanted: AllowedOrigins) -> None:
    """Write them; the caller has compared the etag under a lock."""
    given = insert(allowed_origins).values(
        organization_id=wanted.organization_id, origins=list(wanted.origins), version=wanted.version
    )
    values = {"origins": given.excluded.origins, "version": given.excluded.version}
    await connection.execute(given.on_conflict_do_update(index_elements=["organization_id"], set_=values))
