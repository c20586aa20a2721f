"""SQL of how sealed credentials stand. None of it reads an envelope."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_, func, or_, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.scanner.model.rotation import OPEN
from services.scanner.model.rotation_rules import RotationRules
from services.scanner.store.rotation_rules import holds_secret
from services.scanner.tables import connections, credential_uses, credentials, rotations


def _holds_secret() -> ColumnElement[bool]:
    """Whether there is something to rotate: not where the connection that it is of holds no secret."""
    having = connections.alias()
    without = select(having.c.connection_id).where(
        having.c.credential_id == credentials.c.credential_id, ~holds_secret(having)
    )
    return ~without.correlate(credentials).exists()


async def list_oldest(connection: AsyncConnection, limit: int) -> Sequence[Any]:
    """The oldest credentials with what they are of, their last use, and when each came into use in another's place."""
    names = ("credential_id", "connection_id", "created_at", "rewrapped_at", "kek", "problem", "purpose")
    query = (
        select(
            *(credentials.c[name] for name in names),
            credential_uses.c.last_used_at,
            rotations.c.promoted_at,
            (connections.c.credential_id == credentials.c.credential_id).label("is_current"),
            _holds_secret().label("holds_secret"),
            connections.c.state.label("connection_state"),
            (rotations.c.rotation_id.is_not(None) & rotations.c.promoted_at.is_(None)).label("is_tried"),
        )
        .outerjoin(connections, connections.c.connection_id == credentials.c.connection_id)
        .outerjoin(credential_uses, credential_uses.c.credential_id == credentials.c.credential_id)
        .outerjoin(rotations, rotations.c.candidate_id == credentials.c.credential_id)
        .order_by(credentials.c.created_at, credentials.c.credential_id)
        .limit(limit)
    )
    return (await connection.execute(query)).all()


async def count_by_purpose(connection: AsyncConnection, before: datetime) -> dict[str, tuple[int, int]]:
    """How many credentials are for each purpose, and how many of them could have been rotated since a moment."""
    old = func.count().filter(credentials.c.created_at < before, _holds_secret())
    query = select(credentials.c.purpose, func.count(), old).group_by(credentials.c.purpose)
    return {purpose: (total, unrotated) for purpose, total, unrotated in await connection.execute(query)}


async def count_stuck(connection: AsyncConnection) -> int:
    """How many credentials the last rotation of KEKs couldn't move."""
    query = select(func.count()).select_from(credentials).where(credentials.c.stuck_for.is_not(None))
    return int((await connection.execute(query)).scalar_one())


async def last_uses_by_kek(connection: AsyncConnection) -> dict[str, datetime]:
    """When anything under each KEK was last fetched to be opened, by the KEK's reference."""
    query = (
        select(credentials.c.kek, func.max(credential_uses.c.last_used_at))
        .join(credential_uses, credential_uses.c.credential_id == credentials.c.credential_id)
        .group_by(credentials.c.kek)
    )
    return {bytes(kek).decode(errors="replace"): used for kek, used in await connection.execute(query)}


async def measure(connection: AsyncConnection, rules: RotationRules, remind_days: int, now: datetime) -> Any:
    """One organization in numbers: held, unrotated, too_old, stuck, oldest_at, and rotating_since."""
    created = credentials.c.created_at
    limit = now - timedelta(days=rules.rotate_within_days)
    is_enforced = bool(rules.rotate_within_days) and (rules.enforced_from is None or now >= rules.enforced_from)
    is_too_old = and_(credentials.c.connection_id.is_not(None), created <= limit) if is_enforced else text("false")
    is_open = rotations.c.state.in_([state.value for state in OPEN])
    query = select(
        func.count().label("held"),
        func.count().filter(created < now - timedelta(days=remind_days), _holds_secret()).label("unrotated"),
        func.count().filter(is_too_old, _holds_secret()).label("too_old"),
        func.count().filter(credentials.c.stuck_for.is_not(None)).label("stuck"),
        func.min(created).filter(_holds_secret()).label("oldest_at"),
        select(func.min(rotations.c.started_at)).where(is_open).scalar_subquery().label("rotating_since"),
    ).outerjoin(connections, connections.c.connection_id == credentials.c.connection_id)
    in_use = or_(connections.c.state.is_(None), connections.c.state != "DISABLED")
    return (await connection.execute(query.where(in_use))).one()


async def count_drifted(connection: AsyncConnection) -> int:
    """How many connections were accepted, aren't switched off, and have something wrong by their last check."""
    found = select(func.count()).select_from(connections)
    query = found.where(
        connections.c.verified_at.is_not(None), connections.c.state != "DISABLED", connections.c.problem != ""
    )
    return int((await connection.execute(query)).scalar_one())


async def list_organizations(connection: AsyncConnection, after: UUID | None, limit: int) -> list[UUID]:
    """Every organization that ever changed anything here, for the one role that sees them all."""
    values = {"after": after or UUID(int=0), "first": after is None, "limit": limit}
    rows = await connection.execute(text(_ORGANIZATIONS), values)
    return [row.organization_id for row in rows]


_ORGANIZATIONS = """
SELECT organization_id FROM scanner.outbox_counters WHERE organization_id > :after OR :first
ORDER BY organization_id LIMIT :limit
"""
