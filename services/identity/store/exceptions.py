"""Exceptions in the database. Whether one is in force is compared in SQL, at each look."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Select, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services._mesh.errors import NotFound
from services.identity.model.exceptions import MAX_IN_FORCE, REVIEWED_WITHIN, ExceptionKind, Granted
from services.identity.tables.exceptions import exceptions as t


def _granted(row: Any) -> Granted:
    return Granted(
        exception_id=row.exception_id,
        organization_id=row.organization_id,
        kind=ExceptionKind(row.kind),
        about=row.about,
        reason=row.reason,
        owner=row.owner,
        owner_person=row.owner_person,
        reviewers=tuple(row.reviewers),
        created_at=row.created_at,
        term_begins_at=row.term_begins_at,
        expires_at=row.expires_at,
        ended_at=row.ended_at,
        ended_by=row.ended_by or "",
    )


def _in_state(query: Select[Any], state: str, now: datetime) -> Select[Any]:
    if not state:
        return query
    if state == "ENDED":
        return query.where(t.c.ended_at.is_not(None))
    over, noticed, overdue = t.c.expires_at <= now, t.c.notice_at <= now, t.c.expires_at <= now - REVIEWED_WITHIN
    chosen = {"ACTIVE": ~over & ~noticed, "DUE": ~over & noticed, "EXPIRED": over & ~overdue, "OVERDUE": overdue}
    return query.where(t.c.ended_at.is_(None), chosen[state])


async def lock_kind(connection: AsyncConnection, organization_id: UUID, kind: ExceptionKind) -> None:
    """Have whoever would make an exception of this kind wait for the end of the transaction."""
    key = select(func.pg_advisory_xact_lock(func.hashtextextended(f"exception {organization_id}/{kind}", 0)))
    await connection.execute(key)


async def insert_exception(connection: AsyncConnection, made: Granted) -> None:
    """Insert an exception."""
    await connection.execute(
        insert(t).values(
            organization_id=made.organization_id,
            exception_id=made.exception_id,
            kind=made.kind.value,
            about=made.about,
            reason=made.reason,
            owner=made.owner,
            owner_person=made.owner_person,
            reviewers=list(made.reviewers),
            created_at=made.created_at,
            term_begins_at=made.term_begins_at,
            notice_at=made.notice_at,
            expires_at=made.expires_at,
        )
    )


async def get_exception(connection: AsyncConnection, exception_id: UUID, *, lock: bool = False) -> Granted:
    """An exception of the transaction's organization. Raises NotFound."""
    found = await find_exception(connection, exception_id, lock=lock)
    if found is None:
        raise NotFound("exception")
    return found


async def find_exception(connection: AsyncConnection, exception_id: UUID, *, lock: bool = False) -> Granted | None:
    """An exception of the transaction's organization, or None."""
    query = select(t).where(t.c.exception_id == exception_id)
    row = (await connection.execute(query.with_for_update() if lock else query)).one_or_none()
    return _granted(row) if row else None


async def list_exceptions(
    connection: AsyncConnection, before: UUID | None, limit: int, state: str, about: str, now: datetime
) -> list[Granted]:
    """Exceptions, newest first (their ids are UUIDv7), before `before`."""
    query = _in_state(select(t), state, now).order_by(t.c.exception_id.desc()).limit(limit)
    if about:
        query = query.where(t.c.about == about)
    if before is not None:
        query = query.where(t.c.exception_id < before)
    return [_granted(row) for row in await connection.execute(query)]


async def list_in_force(connection: AsyncConnection, kind: ExceptionKind, now: datetime) -> Sequence[Granted]:
    """All exceptions of a kind that are in force."""
    query = select(t).where(t.c.kind == kind.value, t.c.ended_at.is_(None), t.c.expires_at > now)
    return [_granted(row) for row in await connection.execute(query.order_by(t.c.expires_at).limit(2 * MAX_IN_FORCE))]


async def mark_exception(connection: AsyncConnection, exception_id: UUID, **values: Any) -> Granted:
    """Change columns of an exception that the caller has locked."""
    changed = update(t).where(t.c.exception_id == exception_id).values(**values).returning(t)
    return _granted((await connection.execute(changed)).one())
