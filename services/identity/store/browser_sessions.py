"""Browser sessions in the database. What is over is compared here, and not by whoever reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Select, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from services._mesh.errors import NotFound
from services.identity.model.browser_sessions import IDLE, MOST_LISTED, USE_NOTED_EVERY, BrowserSession, Shown
from services.identity.tables.browser_sessions import browser_session_uses, browser_sessions

_used_at = func.coalesce(browser_session_uses.c.used_at, browser_sessions.c.created_at)
_WITH_USE = browser_sessions.outerjoin(
    browser_session_uses,
    (browser_session_uses.c.organization_id == browser_sessions.c.organization_id)
    & (browser_session_uses.c.session_id == browser_sessions.c.session_id),
)


def _shown_at(wall_now: datetime) -> Select[Any]:
    return select(
        browser_sessions,
        _used_at.label("used_at"),
        (browser_sessions.c.expires_at <= wall_now).label("is_over"),
        (_used_at <= wall_now - IDLE).label("is_idle"),
        (_used_at > wall_now - USE_NOTED_EVERY).label("is_use_noted"),
    ).select_from(_WITH_USE)


def _session(row: Any) -> BrowserSession:
    return BrowserSession(**{column.name: row._mapping[column.name] for column in browser_sessions.c})


def _shown(row: Any) -> Shown:
    return Shown(_session(row), row.used_at, row.is_over, row.is_idle, row.is_use_noted)


async def find_by_digest(connection: AsyncConnection, digest: bytes, wall_now: datetime) -> Shown | None:
    """The session of a cookie in the transaction's organization, over or not."""
    query = _shown_at(wall_now).where(browser_sessions.c.token_sha256 == digest)
    row = (await connection.execute(query)).one_or_none()
    return _shown(row) if row else None


async def get_session(connection: AsyncConnection, session_id: UUID, user_id: UUID, wall_now: datetime) -> Shown:
    """A live session of a user's own. Raises NotFound."""
    query = _live(user_id, wall_now).where(browser_sessions.c.session_id == session_id)
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise NotFound("browser_session")
    return _shown(row)


async def list_sessions(connection: AsyncConnection, user_id: UUID, wall_now: datetime) -> list[Shown]:
    """A user's live sessions, the newest first."""
    query = _live(user_id, wall_now).order_by(browser_sessions.c.session_id.desc()).limit(MOST_LISTED)
    return [_shown(row) for row in await connection.execute(query)]


def _live(user_id: UUID, wall_now: datetime) -> Select[Any]:
    return _shown_at(wall_now).where(
        browser_sessions.c.user_id == user_id,
        browser_sessions.c.ended_at.is_(None),
        browser_sessions.c.expires_at > wall_now,
        _used_at > wall_now - IDLE,
    )


async def insert_session(connection: AsyncConnection, session: BrowserSession) -> None:
    """Insert a session."""
    await connection.execute(insert(browser_sessions).values(**asdict(session)))


async def end_sessions(
    connection: AsyncConnection,
    user_id: UUID,
    wall_now: datetime,
    *,
    session_id: UUID | None = None,
    login_id: str | None = None,
) -> Sequence[BrowserSession]:
    """End a user's sessions that aren't ended: all, the one of an id, or those of a sign-in; returns them."""
    ending = update(browser_sessions).where(
        browser_sessions.c.user_id == user_id, browser_sessions.c.ended_at.is_(None)
    )
    if session_id is not None:
        ending = ending.where(browser_sessions.c.session_id == session_id)
    if login_id is not None:
        ending = ending.where(browser_sessions.c.login_id == login_id)
    rows = await connection.execute(ending.values(ended_at=wall_now).returning(browser_sessions))
    return [_session(row) for row in rows]


async def put_use(connection: AsyncConnection, session: BrowserSession, wall_now: datetime) -> None:
    """Note that a session is used; never an earlier moment than before."""
    noted = upsert(browser_session_uses).values(
        organization_id=session.organization_id, session_id=session.session_id, used_at=wall_now
    )
    await connection.execute(
        noted.on_conflict_do_update(
            index_elements=["organization_id", "session_id"],
            set_={"used_at": noted.excluded.used_at},
            where=browser_session_uses.c.used_at < noted.excluded.used_at,
        )
    )
