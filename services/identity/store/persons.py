"""Persons and their logins in the database."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.identity.model.persons import LinkedIdentity, Login, LoginKind
from services.identity.tables.persons import linked_identities, persons


async def person_of_user(connection: AsyncConnection, organization_id: UUID, user_id: UUID) -> UUID:
    """The person that a user is in the organization; who is linked to nobody is a person of their own."""
    query = select(persons.c.person_id).where(
        persons.c.organization_id == organization_id, persons.c.user_id == user_id
    )
    found: UUID | None = (await connection.execute(query)).scalar_one_or_none()
    return found or user_id


async def users_of_person(connection: AsyncConnection, organization_id: UUID, person_id: UUID) -> frozenset[UUID]:
    """All users that are the person; the id of the person itself is always one of them."""
    query = select(persons.c.user_id).where(
        persons.c.organization_id == organization_id, persons.c.person_id == person_id
    )
    return frozenset((await connection.execute(query)).scalars()) | {person_id}


async def mark_persons(
    connection: AsyncConnection, organization_id: UUID, users: Collection[UUID], person_id: UUID, now: datetime
) -> None:
    """Say of each of these users that they are the person."""
    rows = [
        {"organization_id": organization_id, "user_id": user, "person_id": person_id, "linked_at": now}
        for user in sorted(users)
    ]
    added = insert(persons).values(rows)
    await connection.execute(
        added.on_conflict_do_update(
            index_elements=["organization_id", "user_id"],
            set_={"person_id": added.excluded.person_id, "linked_at": added.excluded.linked_at},
        )
    )


def _linked(row: Any) -> LinkedIdentity:
    return LinkedIdentity(
        row.organization_id,
        row.identity_id,
        Login(LoginKind(row.kind), row.issuer, row.subject),
        row.user_id,
        row.state,
        row.created_at,
    )


async def find_linked_identity(
    connection: AsyncConnection, organization_id: UUID, login: Login
) -> LinkedIdentity | None:
    """The login, removed or not, in the transaction's organization."""
    query = select(linked_identities).where(
        linked_identities.c.organization_id == organization_id,
        linked_identities.c.kind == login.kind.value,
        linked_identities.c.issuer == login.issuer,
        linked_identities.c.subject == login.subject,
    )
    row = (await connection.execute(query)).one_or_none()
    return _linked(row) if row else None


async def list_linked_identities(connection: AsyncConnection, after: UUID | None, limit: int) -> list[LinkedIdentity]:
    """Active logins of the transaction's organization, by id, after `after`."""
    query = (
        select(linked_identities)
        .where(linked_identities.c.state == "ACTIVE")
        .order_by(linked_identities.c.identity_id)
        .limit(limit)
    )
    if after is not None:
        query = query.where(linked_identities.c.identity_id > after)
    return [_linked(row) for row in await connection.execute(query)]


async def insert_linked_identity(connection: AsyncConnection, identity: LinkedIdentity) -> None:
    """Insert a login."""
    await connection.execute(
        insert(linked_identities).values(
            organization_id=identity.organization_id,
            identity_id=identity.identity_id,
            kind=identity.login.kind.value,
            issuer=identity.login.issuer,
            subject=identity.login.subject,
            user_id=identity.user_id,
            state=identity.state,
            created_at=identity.created_at,
        )
    )


async def mark_linked_identity(connection: AsyncConnection, identity_id: UUID, **values: Any) -> LinkedIdentity:
    """Change columns of a login."""
    changed = (
        update(linked_identities)
        .where(linked_identities.c.identity_id == identity_id)
        .values(**values)
        .returning(linked_identities)
    )
    return _linked((await connection.execute(changed)).one())
