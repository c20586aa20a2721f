"""Users that a directory provisions, in the database. Whoever was deleted is invisible here."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any
from uuid import UUID

from scim2_models import ScimFilter
from sqlalchemy import BindParameter, ColumnElement, Select, any_, false, func, insert, literal, or_, select, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import UUID as PgUuid
from sqlalchemy.ext.asyncio import AsyncConnection

from services.identity.model.scim.resources import ProvisionedUser
from services.identity.model.scim.users import ScimUser
from services.identity.store.scim_filters import condition_of, order_of
from services.identity.tables.scim import scim_users as users

_THERE = users.c.deleted_at.is_(None)


def among(column: Any, ids: Collection[UUID]) -> ColumnElement[bool]:
    """Whether a column is one of the ids: one bound array, however many they are."""
    found: ColumnElement[bool] = column == any_(literal(list(ids), ARRAY(PgUuid(as_uuid=True))))
    return found


def _user(row: Any) -> ScimUser:
    return ScimUser(
        row.organization_id,
        row.scim_id,
        row.document,
        row.user_id,
        row.version,
        row.created_at,
        row.modified_at,
    )


async def find_user(connection: AsyncConnection, scim_id: UUID, *, lock: bool = False) -> ScimUser | None:
    """A user of the transaction's organization."""
    return await _one(connection, select(users).where(users.c.scim_id == scim_id), lock)


async def find_user_of_person(connection: AsyncConnection, user_id: UUID, *, lock: bool = False) -> ScimUser | None:
    """The user that a person has signed in as."""
    return await _one(connection, select(users).where(users.c.user_id == user_id), lock)


async def _one(connection: AsyncConnection, query: Select[Any], lock: bool) -> ScimUser | None:
    query = query.where(_THERE)
    row = (await connection.execute(query.with_for_update() if lock else query)).one_or_none()
    return _user(row) if row else None


async def list_users(
    connection: AsyncConnection, given: ScimFilter[Any] | None, sort_by: str, descending: bool, skip: int, limit: int
) -> list[ScimUser]:
    """A page of the users that a filter lets through."""
    query = select(users).where(_THERE, condition_of(given))
    query = query.order_by(*order_of(ProvisionedUser, sort_by, descending)).offset(skip).limit(limit)
    return [_user(row) for row in await connection.execute(query)]


async def count_users(connection: AsyncConnection, given: ScimFilter[Any] | None) -> int:
    """How many users a filter lets through."""
    query = select(func.count()).select_from(users).where(_THERE, condition_of(given))
    return int((await connection.execute(query)).scalar_one())


async def count_by_state(connection: AsyncConnection) -> tuple[int, int, int]:
    """How many users there are, how many are active, and how many are linked to a person."""
    query = select(
        func.count(), func.count().filter(users.c.active), func.count().filter(users.c.user_id.is_not(None))
    ).where(_THERE)
    row = (await connection.execute(query)).one()
    return row[0], row[1], row[2]


async def is_name_taken(connection: AsyncConnection, key: str, besides: UUID | None = None) -> bool:
    """Whether another user of the organization has this name."""
    query = select(users.c.scim_id).where(users.c.user_name_key == key, _THERE)
    if besides is not None:
        query = query.where(users.c.scim_id != besides)
    return (await connection.execute(query.limit(1))).one_or_none() is not None


async def list_there(connection: AsyncConnection, scim_ids: Collection[UUID]) -> frozenset[UUID]:
    """Those of the ids that are users'."""
    query = select(users.c.scim_id).where(among(users.c.scim_id, scim_ids), _THERE)
    return frozenset((await connection.execute(query)).scalars())


async def list_by_ids(connection: AsyncConnection, scim_ids: Collection[UUID]) -> list[ScimUser]:
    """Users by their ids, locked in the order of their ids."""
    query = select(users).where(among(users.c.scim_id, scim_ids), _THERE).order_by(users.c.scim_id)
    return [_user(row) for row in await connection.execute(query.with_for_update())]


async def list_linked(connection: AsyncConnection) -> list[ScimUser]:
    """All active users that are linked to a person, locked in the order of their ids."""
    query = select(users).where(users.c.user_id.is_not(None), users.c.active, _THERE).order_by(users.c.scim_id)
    return [_user(row) for row in await connection.execute(query.with_for_update())]


def _same(email_key: str, name_key: str, external_id: str) -> ColumnElement[bool]:
    """Whether a user has one of these; what is empty is nobody's."""
    given = ((users.c.email_key, email_key), (users.c.user_name_key, name_key), (users.c.external_id, external_id))
    return or_(false(), *(column == key for column, key in given if key))


async def list_unlinked(
    connection: AsyncConnection, email_key: str, name_key: str = "", external_id: str = "", *, lock: bool = True
) -> list[ScimUser]:
    """Active users that nobody has signed in as, with this address, name or id of the directory's; two show that it is
    unclear.
    """
    same = _same(email_key, name_key, external_id)
    query = select(users).where(same, users.c.user_id.is_(None), users.c.active, _THERE)
    query = query.order_by(users.c.scim_id).limit(2)
    return [_user(row) for row in await connection.execute(query.with_for_update() if lock else query)]


def is_awaited(organization_id: BindParameter[UUID], email_key: BindParameter[str]) -> ColumnElement[bool]:
    """An expression: whether the directory has one active user with an address that nobody has signed in as."""
    query = select(func.count()).where(
        users.c.organization_id == organization_id,
        users.c.email_key == email_key,
        users.c.user_id.is_(None),
        users.c.active,
        _THERE,
    )
    return query.scalar_subquery() == 1


async def is_inactive(connection: AsyncConnection, email_key: str, name_key: str, external_id: str) -> bool:
    """Whether the directory has users with this address, name or id of its own, and none of them is active."""
    same = _same(email_key, name_key, external_id)
    active = (await connection.execute(select(users.c.active).where(same, _THERE).distinct())).scalars().all()
    return list(active) == [False]


async def insert_user(connection: AsyncConnection, user: ScimUser) -> None:
    """Insert a user."""
    await connection.execute(
        insert(users).values(
            organization_id=user.organization_id,
            scim_id=user.scim_id,
            user_id=user.user_id,
            version=user.version,
            created_at=user.created_at,
            modified_at=user.modified_at,
            **user.columns(),
        )
    )


async def mark_user(connection: AsyncConnection, user: ScimUser) -> None:
    """Write a user's next version."""
    values = {**user.columns(), "version": user.version, "modified_at": user.modified_at}
    await connection.execute(update(users).where(users.c.scim_id == user.scim_id).values(**values))


async def mark_user_linked(connection: AsyncConnection, scim_id: UUID, user_id: UUID) -> None:
    """Say which person a user is."""
    await connection.execute(update(users).where(users.c.scim_id == scim_id).values(user_id=user_id))


async def mark_user_deleted(connection: AsyncConnection, user: ScimUser, now: datetime) -> None:
    """Delete a user: the row stays for the log's sake, and holds nothing personal any more."""
    gone = {"user_name": "", "user_name_key": "", "external_id": "", "display_name_key": "", "email_key": ""}
    values = {**gone, "document": {}, "active": False, "version": user.version + 1, "deleted_at": now}
    await connection.execute(update(users).where(users.c.scim_id == user.scim_id).values(**values))
