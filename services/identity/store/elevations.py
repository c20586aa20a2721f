"""Break-glass access in the database. Whether it is in force is compared in SQL, at each look."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Select, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services._mesh.errors import NotFound
from services.identity.model.elevations import Elevation
from services.identity.tables.elevations import elevations


def _elevation(row: Any) -> Elevation:
    return Elevation(
        elevation_id=row.elevation_id,
        organization_id=row.organization_id,
        holder=row.holder,
        holder_person=row.holder_person,
        session_id=row.session_id,
        permissions=tuple(row.permissions),
        reason=row.reason,
        begins_at=row.begins_at,
        expires_at=row.expires_at,
        review_id=row.review_id,
        ended_at=row.ended_at,
        ended_by=row.ended_by or "",
    )


def _in_state(query: Select[Any], state: str, now: datetime) -> Select[Any]:
    over, ended = elevations.c.expires_at <= now, elevations.c.ended_at.is_not(None)
    chosen = {"ACTIVE": ~ended & ~over, "EXPIRED": ~ended & over, "ENDED": ended}
    return query.where(chosen[state]) if state else query


async def insert_elevation(connection: AsyncConnection, made: Elevation, aal: int) -> None:
    """Insert an elevation."""
    await connection.execute(
        insert(elevations).values(
            organization_id=made.organization_id,
            elevation_id=made.elevation_id,
            holder=made.holder,
            holder_person=made.holder_person,
            session_id=made.session_id,
            aal=aal,
            permissions=list(made.permissions),
            reason=made.reason,
            begins_at=made.begins_at,
            expires_at=made.expires_at,
            review_id=made.review_id,
        )
    )


async def find_elevation_in_force(
    connection: AsyncConnection, elevation_id: UUID, holder: str, session_id: str, now: datetime
) -> Elevation | None:
    """The elevation, if it is this actor's in this session, and neither expired by `now` nor ended."""
    query = _in_state(select(elevations), "ACTIVE", now).where(
        elevations.c.elevation_id == elevation_id,
        elevations.c.holder == holder,
        elevations.c.session_id == session_id,
    )
    row = (await connection.execute(query)).one_or_none()
    return _elevation(row) if row else None


async def get_elevation(connection: AsyncConnection, elevation_id: UUID, *, lock: bool = False) -> Elevation:
    """An elevation of the transaction's organization. Raises NotFound."""
    query = select(elevations).where(elevations.c.elevation_id == elevation_id)
    row = (await connection.execute(query.with_for_update() if lock else query)).one_or_none()
    if row is None:
        raise NotFound("elevation")
    return _elevation(row)


async def list_elevations(
    connection: AsyncConnection, before: UUID | None, limit: int, state: str, now: datetime
) -> list[Elevation]:
    """Elevations, newest first (their ids are UUIDv7), before `before`."""
    query = _in_state(select(elevations), state, now).order_by(elevations.c.elevation_id.desc()).limit(limit)
    if before is not None:
        query = query.where(elevations.c.elevation_id < before)
    return [_elevation(row) for row in await connection.execute(query)]


async def lock_holder(connection: AsyncConnection, organization_id: UUID, holder: str) -> None:
    """Have whoever would take break-glass access as this actor wait for the end of the transaction."""
    key = select(func.pg_advisory_xact_lock(func.hashtextextended(f"elevation {organization_id}/{holder}", 0)))
    await connection.execute(key)


async def lock_elevations_in_force(connection: AsyncConnection, holder: str, now: datetime) -> Sequence[Elevation]:
    """An actor's elevations that are in force, locked."""
    query = _in_state(select(elevations), "ACTIVE", now).where(elevations.c.holder == holder)
    return [_elevation(row) for row in await connection.execute(query.with_for_update())]


async def mark_elevation_ended(
    connection: AsyncConnection, elevation_id: UUID, ended_at: datetime, ended_by: str
) -> Elevation:
    """End an elevation; the caller has locked it and knows that it is in force."""
    changed = (
        update(elevations)
        .where(elevations.c.elevation_id == elevation_id)
        .values(ended_at=ended_at, ended_by=ended_by)
        .returning(elevations)
    )
    return _elevation((await connection.execute(changed)).one())
