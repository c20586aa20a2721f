"""Sign-ins on their way, in the database. What may be used once is taken by the statement that deletes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Table, delete, func, insert, or_, select, update
from sqlalchemy.dialects.postgresql import insert as insert_unless
from sqlalchemy.ext.asyncio import AsyncConnection

from services._mesh.errors import NotFound
from services.identity.model.sso_logins import LoginCode, LoginRequest, SsoSession, TestLogin
from services.identity.tables import members
from services.identity.tables.sso import sso_assertions, sso_codes, sso_requests, sso_sessions, sso_tests


async def insert_request(connection: AsyncConnection, request: LoginRequest) -> None:
    """Remember a request."""
    await connection.execute(insert(sso_requests).values(**asdict(request)))


async def count_requests(connection: AsyncConnection, provider_id: UUID) -> int:
    """How many sign-ins are on their way to a provider."""
    query = select(func.count()).where(sso_requests.c.provider_id == provider_id)
    return int((await connection.execute(query)).scalar_one())


async def delete_oldest_requests(connection: AsyncConnection, provider_id: UUID, count: int) -> int:
    """Forget the sign-ins that began first, up to so many, and never a test; returns how many."""
    oldest = (
        select(sso_requests.c.request_id)
        .where(sso_requests.c.provider_id == provider_id, sso_requests.c.test_id.is_(None))
        .order_by(sso_requests.c.expires_at)
        .limit(count)
    )
    # Two at once may choose the same rows: whoever comes next deletes what is too many.
    chosen = list((await connection.execute(oldest)).scalars())
    if chosen:
        await connection.execute(delete(sso_requests).where(sso_requests.c.request_id.in_(chosen)))
    return len(chosen)


async def find_request(connection: AsyncConnection, provider_id: UUID, request_id: str) -> LoginRequest | None:
    """A request that was sent to this very provider, used or over or not."""
    query = select(sso_requests).where(
        sso_requests.c.provider_id == provider_id, sso_requests.c.request_id == request_id
    )
    row = (await connection.execute(query)).one_or_none()
    return LoginRequest(**row._mapping) if row else None


async def take_request(
    connection: AsyncConnection,
    provider_id: UUID,
    request_id: str,
    relay_sha256: bytes,
    browser_sha256: bytes,
    wall_now: datetime,
) -> LoginRequest | None:
    """The request that this provider was sent with this relay state by this browser: it is used with that.

    None where there is none. A test signs nobody in, whichever browser it comes back with.
    """
    taken = (
        delete(sso_requests)
        .where(
            sso_requests.c.provider_id == provider_id,
            sso_requests.c.request_id == request_id,
            sso_requests.c.relay_sha256 == relay_sha256,
            or_(sso_requests.c.test_id.is_not(None), sso_requests.c.browser_sha256 == browser_sha256),
            sso_requests.c.expires_at > wall_now,
        )
        .returning(*sso_requests.c)
    )
    row = (await connection.execute(taken)).one_or_none()
    return LoginRequest(**row._mapping) if row else None


async def insert_assertion(
    connection: AsyncConnection, organization_id: UUID, provider_id: UUID, assertion_sha256: bytes, until: datetime
) -> bool:
    """Remember an assertion for as long as it can be shown; False where it was shown before."""
    added = insert_unless(sso_assertions).values(
        organization_id=organization_id,
        provider_id=provider_id,
        assertion_sha256=assertion_sha256,
        expires_at=until,
    )
    kept = added.on_conflict_do_nothing().returning(sso_assertions.c.provider_id)
    return (await connection.execute(kept)).one_or_none() is not None


async def clear_ended(connection: AsyncConnection, wall_now: datetime) -> None:
    """Delete what ended by itself, in the transaction's organization."""
    for table in (sso_requests, sso_assertions, sso_tests, sso_codes):
        await _clear(connection, table, wall_now)


async def _clear(connection: AsyncConnection, table: Table, wall_now: datetime) -> None:
    await connection.execute(delete(table).where(table.c.expires_at <= wall_now))


async def delete_pending(connection: AsyncConnection, provider_id: UUID) -> None:
    """Delete the requests and codes of a provider: nothing comes of them any more."""
    for table in (sso_requests, sso_codes):
        await connection.execute(delete(table).where(table.c.provider_id == provider_id))


async def delete_codes(connection: AsyncConnection, user_ids: Sequence[UUID]) -> None:
    """The same for the codes of people."""
    await connection.execute(delete(sso_codes).where(sso_codes.c.user_id.in_(user_ids)))


async def users_of_domain(connection: AsyncConnection, name: str) -> list[UUID]:
    """The members of the transaction's organization whose address is in a domain."""
    of_domain = func.lower(func.split_part(members.c.email, "@", -1)) == name
    return list((await connection.execute(select(members.c.user_id).where(of_domain))).scalars())


async def insert_test(connection: AsyncConnection, test: TestLogin) -> None:
    """Remember a test."""
    await connection.execute(
        insert(sso_tests).values(**{**asdict(test), "attribute_names": list(test.attribute_names)})
    )


def _test(row: Any) -> TestLogin:
    return TestLogin(**{**row._mapping, "attribute_names": tuple(row.attribute_names)})


async def get_test(connection: AsyncConnection, test_id: UUID, wall_now: datetime) -> TestLogin:
    """A test of the transaction's organization. Raises NotFound."""
    query = select(sso_tests).where(sso_tests.c.test_id == test_id, sso_tests.c.expires_at > wall_now)
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise NotFound("test_login")
    return _test(row)


async def mark_test(connection: AsyncConnection, test_id: UUID, **values: Any) -> None:
    """Say what came of a test; once."""
    await connection.execute(
        update(sso_tests).where(sso_tests.c.test_id == test_id, sso_tests.c.state == "PENDING").values(**values)
    )


async def insert_code(connection: AsyncConnection, code: LoginCode) -> None:
    """Remember a code."""
    await connection.execute(insert(sso_codes).values(**asdict(code)))


async def find_code(connection: AsyncConnection, code_sha256: bytes) -> LoginCode | None:
    """What a code stands for, without using it."""
    row = (await connection.execute(select(sso_codes).where(sso_codes.c.code_sha256 == code_sha256))).one_or_none()
    return LoginCode(**row._mapping) if row else None


async def take_code(connection: AsyncConnection, code_sha256: bytes, wall_now: datetime) -> LoginCode | None:
    """What a code stands for; it is used with that."""
    taken = delete(sso_codes).where(sso_codes.c.code_sha256 == code_sha256, sso_codes.c.expires_at > wall_now)
    row = (await connection.execute(taken.returning(*sso_codes.c))).one_or_none()
    return LoginCode(**row._mapping) if row else None


async def insert_session(connection: AsyncConnection, session: SsoSession) -> None:
    """Insert a session."""
    await connection.execute(insert(sso_sessions).values(**asdict(session)))


async def find_session(connection: AsyncConnection, token_hash: bytes) -> SsoSession | None:
    """The session of a token, ended or not, in the transaction's organization."""
    query = select(sso_sessions).where(sso_sessions.c.token_hash == token_hash)
    row = (await connection.execute(query)).one_or_none()
    return SsoSession(**row._mapping) if row else None


async def find_session_by_id(connection: AsyncConnection, session_id: UUID) -> SsoSession | None:
    """A session of the transaction's organization, ended or not."""
    query = select(sso_sessions).where(sso_sessions.c.session_id == session_id)
    row = (await connection.execute(query)).one_or_none()
    return SsoSession(**row._mapping) if row else None


async def end_sessions(
    connection: AsyncConnection,
    wall_now: datetime,
    *,
    user_ids: Sequence[UUID] | None = None,
    provider_id: UUID | None = None,
) -> list[UUID]:
    """End the live sessions of people or of a provider; returns their ids."""
    live = update(sso_sessions).where(sso_sessions.c.ended_at.is_(None), sso_sessions.c.expires_at > wall_now)
    if user_ids is not None:
        live = live.where(sso_sessions.c.user_id.in_(user_ids))
    if provider_id is not None:
        live = live.where(sso_sessions.c.provider_id == provider_id)
    ended = live.values(ended_at=wall_now).returning(sso_sessions.c.session_id)
    return list((await connection.execute(ended)).scalars())
