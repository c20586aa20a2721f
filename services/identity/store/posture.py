"""The facts of an organization's posture in the database, and when members were seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, case, func, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.identity.model.exceptions import REVIEWED_WITHIN
from services.identity.model.posture import LISTED, STALE_AFTER, StaleToken, UnusedRole, WeakMember
from services.identity.tables import members, roles
from services.identity.tables.elevations import reviews
from services.identity.tables.exceptions import exceptions
from services.identity.tables.sightings import member_sightings
from services.identity.tables.sso import sso_providers
from services.identity.tables.tokens import api_token_uses, api_tokens

_ACTIVE = members.c.state == "ACTIVE"


async def put_sightings(
    connection: AsyncConnection, organization_id: UUID, seen: Mapping[UUID, tuple[datetime, int]]
) -> None:
    """Note when users were seen last, and with which assurance level; what is newer already stays."""
    rows = [
        {"organization_id": organization_id, "user_id": user, "last_seen_at": at, "last_aal": aal}
        for user, (at, aal) in sorted(seen.items())
    ]
    added = insert(member_sightings).values(rows)
    await connection.execute(
        added.on_conflict_do_update(
            index_elements=["organization_id", "user_id"],
            set_={"last_seen_at": added.excluded.last_seen_at, "last_aal": added.excluded.last_aal},
            where=member_sightings.c.last_seen_at < added.excluded.last_seen_at,
        )
    )


async def count_members(connection: AsyncConnection) -> tuple[int, int]:
    """Members, and the Admins among them."""
    counts = select(func.count(), func.count().filter(members.c.role == "ADMIN")).where(_ACTIVE)
    row = (await connection.execute(counts)).one()
    return row[0], row[1]


async def list_weak_members(connection: AsyncConnection) -> tuple[list[WeakMember], int]:
    """Members whose latest session had no second factor, or who had none, by id; and how many they are."""
    seen = and_(
        member_sightings.c.organization_id == members.c.organization_id,
        member_sightings.c.user_id == members.c.user_id,
    )
    weak = and_(_ACTIVE, or_(member_sightings.c.last_aal.is_(None), member_sightings.c.last_aal < 2))
    query = (
        select(members.c.member_id, members.c.user_id, members.c.role, member_sightings.c.last_aal,
               member_sightings.c.last_seen_at)
        .select_from(members.outerjoin(member_sightings, seen))
        .where(weak)
    )  # fmt: skip
    rows, total = await _listed(connection, query, members.c.member_id)
    found = [WeakMember(r.member_id, r.user_id, r.role, r.last_aal or 0, r.last_seen_at) for r in rows]
    return found, total


async def list_stale_tokens(connection: AsyncConnection, wall_now: datetime) -> tuple[list[StaleToken], int]:
    """Tokens that can be used, and that nobody has used for long, by id; and how many they are."""
    used = and_(
        api_token_uses.c.organization_id == api_tokens.c.organization_id,
        api_token_uses.c.token_id == api_tokens.c.token_id,
    )
    last = func.coalesce(api_token_uses.c.last_used_at, api_tokens.c.created_at)
    query = (
        select(api_tokens.c.token_id, api_tokens.c.display_name, api_token_uses.c.last_used_at,
               api_tokens.c.created_at, api_tokens.c.expires_at)
        .select_from(api_tokens.outerjoin(api_token_uses, used))
        .where(api_tokens.c.state == "ACTIVE", api_tokens.c.expires_at > wall_now, last <= wall_now - STALE_AFTER)
    )  # fmt: skip
    rows, total = await _listed(connection, query, api_tokens.c.token_id)
    return [StaleToken(*row) for row in rows], total


async def list_unused_roles(connection: AsyncConnection) -> tuple[list[UnusedRole], int]:
    """Custom roles that no member has, by id; and how many they are."""
    holders = select(members.c.member_id).where(
        _ACTIVE, members.c.organization_id == roles.c.organization_id, members.c.custom_role_id == roles.c.role_id
    )
    query = select(roles.c.role_id, roles.c.name).where(~holders.exists())
    rows, total = await _listed(connection, query, roles.c.role_id)
    return [UnusedRole(*row) for row in rows], total


async def _listed(
    connection: AsyncConnection, query: Select[Any], order: ColumnElement[Any]
) -> tuple[Sequence[Any], int]:
    rows = (await connection.execute(query.order_by(order).limit(LISTED))).all()
    if len(rows) < LISTED:
        return rows, len(rows)
    total = await connection.execute(select(func.count()).select_from(query.subquery()))
    return rows, int(total.scalar_one())


async def count_reviews(connection: AsyncConnection, now: datetime) -> tuple[int, int]:
    """Reviews that nobody has decided, and the overdue ones among them."""
    counts = select(func.count(), func.count().filter(reviews.c.due_at <= now)).where(reviews.c.decided_at.is_(None))
    row = (await connection.execute(counts)).one()
    return row[0], row[1]


async def count_exceptions(connection: AsyncConnection, now: datetime) -> tuple[int, int, int, int]:
    """Exceptions in force, the due ones among them; expired ones that wait for their review, and those overdue."""
    over = exceptions.c.expires_at <= now
    counted = (
        ~over,
        and_(~over, exceptions.c.notice_at <= now),
        over,
        exceptions.c.expires_at <= now - REVIEWED_WITHIN,
    )
    sums = [func.coalesce(func.sum(case((each, 1), else_=0)), 0) for each in counted]
    row = (await connection.execute(select(*sums).where(exceptions.c.ended_at.is_(None)))).one()
    return row[0], row[1], row[2], row[3]


async def sso_enforcement(connection: AsyncConnection) -> str:
    """Whether people must sign in by the organization's identity provider: OFF, OPTIONAL or ENFORCED."""
    providers = select(func.bool_or(sso_providers.c.enforced)).where(sso_providers.c.state == "ACTIVE")
    enforced: bool | None = (await connection.execute(providers)).scalar_one()
    return "OFF" if enforced is None else "ENFORCED" if enforced else "OPTIONAL"
