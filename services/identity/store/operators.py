"""Operators' access to organizations, and the installation's row, in the database."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import delete, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services._mesh.errors import NotFound
from services.identity.model.membership import Role
from services.identity.model.operators import OperatorAccess
from services.identity.tables.operators import installation, operator_accesses, operator_entries


def _access(row: Any) -> OperatorAccess:
    return OperatorAccess(
        row.organization_id,
        row.access_id,
        row.operator_id,
        Role(row.role),
        row.reason,
        row.hours,
        row.state,
        row.requested_at,
        row.decided_at,
        row.decided_by,
        row.expires_at,
        row.decided_as or "",
        frozenset(row.deciders),
    )


async def insert_access(connection: AsyncConnection, access: OperatorAccess) -> bool:
    """Insert what is asked for; False where the operator's earlier request still waits."""
    values = {column.name: getattr(access, column.name) for column in operator_accesses.c}
    values |= {"role": access.role.value, "decided_as": None, "deciders": []}
    inserted = await connection.execute(
        insert(operator_accesses).values(values).on_conflict_do_nothing().returning(operator_accesses.c.access_id)
    )
    return inserted.one_or_none() is not None


async def mark_undecided_expired(connection: AsyncConnection, operator_id: UUID, now: datetime) -> None:
    """Say of an operator's request that nobody decided in time that it is over, so that another one may be made."""
    await connection.execute(
        update(operator_accesses)
        .where(
            operator_accesses.c.operator_id == operator_id,
            operator_accesses.c.state == "REQUESTED",
            operator_accesses.c.expires_at <= now,
        )
        .values(state="EXPIRED")
    )


async def get_access(connection: AsyncConnection, access_id: UUID) -> OperatorAccess:
    """An access to the transaction's organization, locked. Raises NotFound."""
    query = select(operator_accesses).where(operator_accesses.c.access_id == access_id).with_for_update()
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise NotFound("operator access")
    return _access(row)


async def find_granted(connection: AsyncConnection, operator_id: UUID, now: datetime) -> OperatorAccess | None:
    """The access that lets an operator into the transaction's organization at `now`: the one that lasts longest."""
    query = (
        select(operator_accesses)
        .where(
            operator_accesses.c.operator_id == operator_id,
            operator_accesses.c.state == "GRANTED",
            operator_accesses.c.expires_at > now,
        )
        .order_by(operator_accesses.c.expires_at.desc())
        .limit(1)
    )
    row = (await connection.execute(query)).one_or_none()
    return _access(row) if row else None


async def list_accesses(connection: AsyncConnection, before: UUID | None, limit: int) -> Sequence[OperatorAccess]:
    """Accesses to the transaction's organization, newest first: their ids rise with time."""
    query = select(operator_accesses).order_by(operator_accesses.c.access_id.desc()).limit(limit)
    if before is not None:
        query = query.where(operator_accesses.c.access_id < before)
    return [_access(row) for row in await connection.execute(query)]


async def mark_access(connection: AsyncConnection, access_id: UUID, **values: Any) -> OperatorAccess:
    """Change columns of an access."""
    changed = (
        update(operator_accesses)
        .where(operator_accesses.c.access_id == access_id)
        .values(**values)
        .returning(operator_accesses)
    )
    return _access((await connection.execute(changed)).one())


async def insert_entry(connection: AsyncConnection, access: OperatorAccess, session_id: str, now: datetime) -> bool:
    """Note that a session came in under an access; False where it did so before."""
    values = {
        "organization_id": access.organization_id,
        "access_id": access.access_id,
        "session_id": session_id,
        "entered_at": now,
    }
    entered = await connection.execute(
        insert(operator_entries).values(values).on_conflict_do_nothing().returning(operator_entries.c.access_id)
    )
    return entered.one_or_none() is not None


async def put_init_token(connection: AsyncConnection, token_sha256: bytes, expires_at: datetime) -> None:
    """Keep what is known of the newest token; the ones before it are void."""
    values = {"token_sha256": token_sha256, "token_expires_at": expires_at}
    await connection.execute(
        insert(installation)
        .values(singleton=True, **values)
        .on_conflict_do_update(index_elements=[installation.c.singleton], set_=values)
    )


async def take_init_token(connection: AsyncConnection, token_sha256: bytes, wall_now: datetime) -> bool:
    """Use up the token; False where it isn't the newest one, or is too old. Of two at once one gets it."""
    taken = await connection.execute(
        delete(installation)
        .where(installation.c.token_sha256 == token_sha256, installation.c.token_expires_at > wall_now)
        .returning(installation.c.singleton)
    )
    return taken.one_or_none() is not None
