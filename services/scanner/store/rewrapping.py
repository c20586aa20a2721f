"""SQL of sealed credentials by the KEKs that they are under."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services._mesh.kms.interface import Kek
from services.scanner.model.rewrapping import BATCH, MAX_UNTOLD, Moved, Sealed
from services.scanner.tables import credentials


async def count_by_kek(connection: AsyncConnection) -> dict[str, int]:
    """How many credentials are under each KEK, by its reference."""
    query = select(credentials.c.kek, func.count()).group_by(credentials.c.kek)
    return {bytes(kek).decode(errors="replace"): count for kek, count in await connection.execute(query)}


async def list_under(connection: AsyncConnection, kek: Kek, limit: int) -> list[tuple[str, str]]:
    """What credentials under a KEK are of, each with why it couldn't be moved, if that was tried."""
    query = select(credentials.c.credential_id, credentials.c.connection_id, credentials.c.problem).where(
        credentials.c.kek == kek.reference.encode()
    )
    rows = await connection.execute(query.order_by(credentials.c.credential_id).limit(limit))
    return [
        (f"connection {row.connection_id}" if row.connection_id else f"key {row.credential_id}", row.problem)
        for row in rows
    ]


async def list_to_move(connection: AsyncConnection, kek: Kek, kek_id: UUID) -> list[Sealed]:
    """The next credentials under other KEKs, without those that are stuck."""
    query = (
        select(credentials.c.credential_id, credentials.c.envelope, credentials.c.purpose)
        .where(credentials.c.kek != kek.reference.encode(), credentials.c.stuck_for.is_distinct_from(kek_id))
        .order_by(credentials.c.credential_id)
        .limit(BATCH)
    )
    return [Sealed(row.credential_id, bytes(row.envelope), row.purpose) for row in await connection.execute(query)]


async def count_stuck(connection: AsyncConnection, kek_id: UUID) -> int:
    """How many credentials couldn't be moved to a KEK."""
    query = select(func.count()).where(credentials.c.stuck_for == kek_id)
    return int((await connection.execute(query)).scalar_one())


async def list_untold(connection: AsyncConnection) -> list[UUID]:
    """Credentials in new envelopes of which the revocation feed isn't told yet."""
    query = select(credentials.c.credential_id).where(credentials.c.untold).order_by(credentials.c.credential_id)
    return list((await connection.execute(query.limit(MAX_UNTOLD))).scalars())


async def find_envelopes(connection: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, bytes]:
    """The envelopes of credentials, locked."""
    query = select(credentials.c.credential_id, credentials.c.envelope).where(credentials.c.credential_id.in_(ids))
    rows = await connection.execute(query.order_by(credentials.c.credential_id).with_for_update())
    return {row.credential_id: bytes(row.envelope) for row in rows}


async def mark_rewrapped(connection: AsyncConnection, moved: Sequence[Moved], now: datetime) -> int:
    """Compare and swap: each envelope stands in the place of the one that it was made from. Returns how many do."""
    given = {
        "ids": [each.credential_id for each in moved],
        "digests": [each.from_digest for each in moved],
        "envelopes": [each.envelope for each in moved],
        "now": now,
    }
    return int((await connection.execute(text(_SWAP), given)).rowcount)


async def mark_stuck(connection: AsyncConnection, stuck: Sequence[Moved], kek_id: UUID) -> None:
    """Note why credentials can't be moved to a KEK."""
    given = {
        "ids": [each.credential_id for each in stuck],
        "digests": [each.from_digest for each in stuck],
        "problems": [each.problem for each in stuck],
        "kek_id": kek_id,
    }
    await connection.execute(text(_STICK), given)


async def clear_stuck(connection: AsyncConnection) -> None:
    """Let all be tried again."""
    stuck = update(credentials).where(credentials.c.stuck_for.is_not(None))
    await connection.execute(stuck.values(stuck_for=None, problem=""))


async def mark_told(connection: AsyncConnection, ids: Sequence[UUID]) -> None:
    """The revocation feed knows."""
    await connection.execute(update(credentials).where(credentials.c.credential_id.in_(ids)).values(untold=False))


_SWAP = """
UPDATE scanner.credentials AS c
SET envelope = v.envelope, rewrapped_at = :now, untold = true, stuck_for = NULL, problem = ''
FROM unnest(CAST(:ids AS uuid[]), CAST(:digests AS bytea[]), CAST(:envelopes AS bytea[])) AS v(id, digest, envelope)
WHERE c.credential_id = v.id AND sha256(c.envelope) = v.digest
"""
_STICK = """
UPDATE scanner.credentials AS c SET stuck_for = :kek_id, problem = v.problem
FROM unnest(CAST(:ids AS uuid[]), CAST(:digests AS bytea[]), CAST(:problems AS text[])) AS v(id, digest, problem)
WHERE c.credential_id = v.id AND sha256(c.envelope) = v.digest
"""
