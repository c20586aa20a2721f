"""SQL of the keys that organizations bring."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services._mesh.kms.interface import Kek, KeyService
from services.scanner.model.kek import KekState, NamedKek, RegisteredKek
from services.scanner.tables import keks


def _kek(row: Any) -> RegisteredKek:
    named = NamedKek(KeyService[row.provider], row.key_id, row.region, row.key_version)
    return RegisteredKek(row.kek_id, row.version, named, KekState(row.state), row.created_at)


async def lock(connection: AsyncConnection, organization_id: UUID) -> None:
    """Let one decision about an organization's keys be made at a time."""
    key = {"key": f"scanner.keks/{organization_id}"}
    await connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))"), key)


async def find_active(connection: AsyncConnection) -> RegisteredKek | None:
    """The key that the transaction's organization seals under, if it named one."""
    row = (await connection.execute(select(keks).where(keks.c.state == KekState.ACTIVE.value))).one_or_none()
    return None if row is None else _kek(row)


async def find_named(connection: AsyncConnection, named: NamedKek) -> RegisteredKek | None:
    """The key of these names, if it was named before."""
    same = select(keks).where(
        keks.c.provider == named.service.name, keks.c.key_id == named.key_id, keks.c.key_version == named.key_version
    )
    row = (await connection.execute(same)).one_or_none()
    return None if row is None else _kek(row)


async def find_kek(connection: AsyncConnection, kek_id: UUID) -> RegisteredKek | None:
    """A key by its id."""
    row = (await connection.execute(select(keks).where(keks.c.kek_id == kek_id))).one_or_none()
    return None if row is None else _kek(row)


async def find_version(connection: AsyncConnection, version: int) -> RegisteredKek | None:
    """A key by its number."""
    row = (await connection.execute(select(keks).where(keks.c.version == version))).one_or_none()
    return None if row is None else _kek(row)


async def is_retired(connection: AsyncConnection, kek: Kek) -> bool:
    """Whether a key that envelopes name is retired."""
    rows = await connection.execute(select(keks).where(keks.c.state == KekState.RETIRED.value))
    return any(_kek(row).named.kek() == kek for row in rows)


async def mark_kek(connection: AsyncConnection, kek_id: UUID, state: KekState) -> RegisteredKek:
    """Change where a key stands."""
    changed = update(keks).where(keks.c.kek_id == kek_id).values(state=state.value).returning(keks)
    return _kek((await connection.execute(changed)).one())


async def list_keks(connection: AsyncConnection, before: int | None, limit: int) -> list[RegisteredKek]:
    """Keys by number, the newest first, before number `before`."""
    query = select(keks).order_by(keks.c.version.desc()).limit(limit)
    if before is not None:
        query = query.where(keks.c.version < before)
    return [_kek(row) for row in await connection.execute(query)]


async def insert_kek(connection: AsyncConnection, organization_id: UUID, made: RegisteredKek) -> None:
    """Insert a key, and supersede the one before it."""
    await connection.execute(
        update(keks).where(keks.c.state == KekState.ACTIVE.value).values(state=KekState.SUPERSEDED.value)
    )
    await connection.execute(
        insert(keks).values(
            organization_id=organization_id,
            kek_id=made.kek_id,
            version=made.version,
            provider=made.named.service.name,
            key_id=made.named.key_id,
            region=made.named.region,
            key_version=made.named.key_version,
            state=made.state.value,
            created_at=made.created_at,
        )
    )
