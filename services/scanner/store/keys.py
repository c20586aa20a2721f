"""SQL of the organization's own keys. Their envelopes lie with all others, so that a KEK's rotation moves them too."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, delete, func, insert, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services._mesh.errors import NotFound
from services.scanner.model.key import Key, KeyPurpose, KeyState, NewKey
from services.scanner.tables import credentials, organization_keys


def _key(row: Any) -> Key:
    return Key(row.key_id, KeyPurpose(row.purpose), row.name, KeyState(row.state), row.created_at, row.ends_at)


def is_live(now: datetime) -> ColumnElement[bool]:
    """Whether a row's key is good at `now`."""
    keys = organization_keys.c
    retiring = (keys.state == KeyState.RETIRING.value) & (keys.ends_at > now)
    return or_(keys.state == KeyState.ACTIVE.value, retiring)


async def lock(connection: AsyncConnection, organization_id: UUID) -> None:
    """Let one decision about an organization's own keys be made at a time."""
    key = {"key": f"scanner.organization_keys/{organization_id}"}
    await connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))"), key)


async def insert_key(connection: AsyncConnection, organization_id: UUID, made: Key, sealed: NewKey) -> None:
    """Insert a key with its envelope."""
    own = {"organization_id": organization_id, "created_at": made.created_at, "purpose": made.purpose.value}
    values = {"key_id": made.key_id, "name": made.name, "state": made.state.value}
    await connection.execute(insert(organization_keys).values(**own, **values))
    await connection.execute(
        insert(credentials).values(**own, credential_id=made.key_id, connection_id=None, envelope=sealed.envelope)
    )


async def get_key(connection: AsyncConnection, key_id: UUID) -> Key:
    """A key of the transaction's organization. Raises NotFound."""
    query = select(organization_keys).where(organization_keys.c.key_id == key_id)
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise NotFound("key")
    return _key(row)


async def find_retiring(connection: AsyncConnection, key_id: UUID) -> Key | None:
    """A key that has a successor and isn't revoked yet."""
    keys = organization_keys.c
    its = (keys.key_id == key_id) & (keys.state == KeyState.RETIRING.value)
    row = (await connection.execute(select(organization_keys).where(its))).one_or_none()
    return None if row is None else _key(row)


async def find_key(connection: AsyncConnection, purpose: KeyPurpose, name: str, state: KeyState) -> Key | None:
    """The key of a purpose and name that is active, or that is retiring."""
    keys = organization_keys.c
    same = (keys.purpose == purpose.value) & (keys.name == name) & (keys.state == state.value)
    row = (await connection.execute(select(organization_keys).where(same))).one_or_none()
    return None if row is None else _key(row)


async def count_active(connection: AsyncConnection, purpose: KeyPurpose) -> int:
    """How many keys of a purpose are active."""
    keys = organization_keys.c
    query = select(func.count()).where(keys.purpose == purpose.value, keys.state == KeyState.ACTIVE.value)
    return int((await connection.execute(query)).scalar_one())


async def list_keys(connection: AsyncConnection, after: UUID | None, limit: int) -> list[Key]:
    """Keys by id, after `after`."""
    query = select(organization_keys).order_by(organization_keys.c.key_id).limit(limit)
    if after is not None:
        query = query.where(organization_keys.c.key_id > after)
    return [_key(row) for row in await connection.execute(query)]


async def list_live(connection: AsyncConnection, purpose: KeyPurpose, name: str, now: datetime) -> Sequence[Key]:
    """The keys of a purpose and name that are good at `now`: one, or two while one takes the place of another."""
    keys = organization_keys.c
    query = select(organization_keys).where(keys.purpose == purpose.value, keys.name == name, is_live(now))
    return [_key(row) for row in await connection.execute(query.order_by(keys.created_at.desc()))]


async def mark_retiring(connection: AsyncConnection, key_id: UUID, ends_at: datetime) -> Key:
    """Let a key go on until its end."""
    return await _mark(connection, key_id, state=KeyState.RETIRING.value, ends_at=ends_at)


async def mark_revoked(connection: AsyncConnection, key_id: UUID, now: datetime) -> Key:
    """End a key, and forget its envelope."""
    await connection.execute(delete(credentials).where(credentials.c.credential_id == key_id))
    return await _mark(connection, key_id, state=KeyState.REVOKED.value, ends_at=now)


async def _mark(connection: AsyncConnection, key_id: UUID, **values: Any) -> Key:
    changed = update(organization_keys).where(organization_keys.c.key_id == key_id).values(**values)
    return _key((await connection.execute(changed.returning(organization_keys))).one())


async def get_envelope(connection: AsyncConnection, key_id: UUID) -> bytes:
    """What is sealed of a key that isn't revoked. Raises NotFound."""
    same = organization_keys.c.key_id == credentials.c.credential_id
    query = select(credentials.c.envelope).join(organization_keys, same).where(organization_keys.c.key_id == key_id)
    found = (await connection.execute(query)).scalar()
    if found is None:
        raise NotFound("key")
    return bytes(found)


async def is_live_key(connection: AsyncConnection, key_id: UUID, now: datetime) -> bool:
    """Whether an id is that of a key which is good at `now`."""
    query = select(organization_keys.c.key_id).where(organization_keys.c.key_id == key_id, is_live(now))
    return (await connection.execute(query)).first() is not None
