"""Service accounts and API tokens in the database."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, func, insert, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from services._mesh.errors import NotFound
from services.identity.model.api_tokens import USE_NOTED_EVERY, ApiToken, ServiceAccount
from services.identity.tables.tokens import api_token_uses, api_tokens, service_accounts

# Never the digest: nobody needs it to be told.
_COLUMNS = [column for column in api_tokens.c if column.name != "secret_sha256"]
_WITH_USE = api_tokens.outerjoin(
    api_token_uses,
    (api_token_uses.c.organization_id == api_tokens.c.organization_id)
    & (api_token_uses.c.token_id == api_tokens.c.token_id),
)
_SUPPLIED = text("SELECT set_config('app.token_sha256', :digest, true)")


def _account(row: Any) -> ServiceAccount:
    return ServiceAccount(
        row.organization_id,
        row.service_account_id,
        row.display_name,
        row.owner_user_id,
        row.state,
        row.version,
        row.created_at,
    )


def _token(row: Any) -> ApiToken:
    return ApiToken(
        row.organization_id,
        row.token_id,
        row.service_account_id,
        row.creator_user_id,
        row.display_name,
        frozenset(row.permissions),
        frozenset(row.connection_ids),
        row.state,
        row.hint,
        row.created_at,
        row.expires_at,
        row.replaced_by,
        getattr(row, "last_used_at", None),
    )


async def insert_service_account(connection: AsyncConnection, account: ServiceAccount) -> None:
    """Insert a service account."""
    await connection.execute(
        insert(service_accounts).values({column.name: getattr(account, column.name) for column in service_accounts.c})
    )


async def get_service_account(
    connection: AsyncConnection, service_account_id: UUID, *, lock: bool = False
) -> ServiceAccount:
    """A service account of the transaction's organization. Raises NotFound."""
    query = select(service_accounts).where(service_accounts.c.service_account_id == service_account_id)
    row = (await connection.execute(query.with_for_update() if lock else query)).one_or_none()
    if row is None:
        raise NotFound("service_account")
    return _account(row)


async def list_service_accounts(connection: AsyncConnection, after: UUID | None, limit: int) -> list[ServiceAccount]:
    """Service accounts of the transaction's organization, by id, after `after`."""
    query = select(service_accounts).order_by(service_accounts.c.service_account_id).limit(limit)
    if after is not None:
        query = query.where(service_accounts.c.service_account_id > after)
    return [_account(row) for row in await connection.execute(query)]


async def count_service_accounts(connection: AsyncConnection) -> int:
    """How many service accounts are in use."""
    query = select(func.count()).select_from(service_accounts).where(service_accounts.c.state == "ACTIVE")
    return int((await connection.execute(query)).scalar_one())


async def mark_service_account(connection: AsyncConnection, service_account_id: UUID, **values: Any) -> ServiceAccount:
    """Change columns of a service account, and its version."""
    changed = (
        update(service_accounts)
        .where(service_accounts.c.service_account_id == service_account_id)
        .values(version=service_accounts.c.version + 1, **values)
        .returning(service_accounts)
    )
    return _account((await connection.execute(changed)).one())


async def find_token_by_digest(connection: AsyncConnection, digest: bytes) -> ApiToken | None:
    """The token with this digest, in whichever organization: the policy `by_secret` shows this row and no other."""
    await connection.execute(_SUPPLIED, {"digest": digest.hex()})
    row = (await connection.execute(select(*_COLUMNS).where(api_tokens.c.secret_sha256 == digest))).one_or_none()
    return _token(row) if row else None


async def get_token(connection: AsyncConnection, token_id: UUID, *, lock: bool = False) -> ApiToken:
    """A token of the transaction's organization. Raises NotFound."""
    query = select(*_COLUMNS).where(api_tokens.c.token_id == token_id)
    row = (await connection.execute(query.with_for_update() if lock else query)).one_or_none()
    if row is None:
        raise NotFound("token")
    return _token(row)


async def list_tokens(
    connection: AsyncConnection,
    after: UUID | None,
    limit: int,
    *,
    of_user: UUID | None = None,
    of_service_account: UUID | None = None,
) -> list[ApiToken]:
    """Tokens by id, with their last use: everybody's, or those a user made or whose service account they own."""
    query = select(*_COLUMNS, api_token_uses.c.last_used_at).select_from(_WITH_USE)
    query = query.order_by(api_tokens.c.token_id).limit(limit)
    if after is not None:
        query = query.where(api_tokens.c.token_id > after)
    if of_user is not None:
        query = query.where(_of_user(of_user))
    if of_service_account is not None:
        query = query.where(api_tokens.c.service_account_id == of_service_account)
    return [_token(row) for row in await connection.execute(query)]


async def list_live_tokens(connection: AsyncConnection, user_id: UUID) -> list[ApiToken]:
    """Tokens not revoked that a user made, or whose service account they own; locked."""
    query = select(*_COLUMNS).where(api_tokens.c.state == "ACTIVE", _of_user(user_id)).with_for_update()
    return [_token(row) for row in await connection.execute(query)]


async def list_live_tokens_of_account(connection: AsyncConnection, service_account_id: UUID) -> list[ApiToken]:
    """Tokens of a service account's that aren't revoked; locked."""
    query = select(*_COLUMNS).where(
        api_tokens.c.state == "ACTIVE", api_tokens.c.service_account_id == service_account_id
    )
    return [_token(row) for row in await connection.execute(query.with_for_update())]


def _of_user(user_id: UUID) -> ColumnElement[bool]:
    owned = select(service_accounts.c.service_account_id).where(service_accounts.c.owner_user_id == user_id)
    return or_(api_tokens.c.creator_user_id == user_id, api_tokens.c.service_account_id.in_(owned))


async def count_live_tokens(
    connection: AsyncConnection, user_id: UUID, service_account_id: UUID | None, wall_now: datetime
) -> int:
    """How many tokens that can be used a service account has; a user for themself, where none is named."""
    whose = (
        (api_tokens.c.creator_user_id == user_id) & api_tokens.c.service_account_id.is_(None)
        if service_account_id is None
        else api_tokens.c.service_account_id == service_account_id
    )
    query = (
        select(func.count())
        .select_from(api_tokens)
        .where(whose, api_tokens.c.state == "ACTIVE", api_tokens.c.expires_at > wall_now)
    )
    return int((await connection.execute(query)).scalar_one())


async def insert_token(connection: AsyncConnection, token: ApiToken, digest: bytes) -> None:
    """Insert a token by the digest of its text."""
    values = {column.name: getattr(token, column.name) for column in _COLUMNS}
    values |= {"permissions": sorted(token.permissions), "connection_ids": sorted(token.connection_ids)}
    await connection.execute(insert(api_tokens).values(secret_sha256=digest, **values))


async def mark_token(connection: AsyncConnection, token_id: UUID, **values: Any) -> ApiToken:
    """Change columns of a token."""
    changed = update(api_tokens).where(api_tokens.c.token_id == token_id).values(**values).returning(*_COLUMNS)
    return _token((await connection.execute(changed)).one())


async def is_use_noted(connection: AsyncConnection, token: ApiToken, wall_now: datetime) -> bool:
    """Whether a use of the token was noted just now."""
    query = select(api_token_uses.c.token_id).where(
        api_token_uses.c.token_id == token.token_id, api_token_uses.c.last_used_at > wall_now - USE_NOTED_EVERY
    )
    return (await connection.execute(query)).first() is not None


async def put_use(connection: AsyncConnection, token: ApiToken, wall_now: datetime) -> None:
    """Note that a token is used; two who do so at once write once."""
    noted = upsert(api_token_uses).values(
        organization_id=token.organization_id, token_id=token.token_id, last_used_at=wall_now
    )
    await connection.execute(
        noted.on_conflict_do_update(
            index_elements=["organization_id", "token_id"],
            set_={"last_used_at": noted.excluded.last_used_at},
            where=api_token_uses.c.last_used_at <= wall_now - USE_NOTED_EVERY,
        )
    )
