"""SCIM tokens in the database."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import and_, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from services._mesh.errors import NotFound
from services.identity.model.scim.tokens import ScimToken
from services.identity.tables.scim import scim_token_uses as uses
from services.identity.tables.scim import scim_tokens as tokens

_WITH_USES = select(tokens, uses.c.used_at).outerjoin(
    uses, and_(uses.c.organization_id == tokens.c.organization_id, uses.c.token_id == tokens.c.token_id)
)


def _token(row: Any, used_at: datetime | None) -> ScimToken:
    return ScimToken(
        row.organization_id,
        row.token_id,
        row.name,
        row.created_by,
        row.created_at,
        row.expires_at,
        row.revoked_at,
        used_at,
    )


async def find_token(connection: AsyncConnection, digest: bytes) -> ScimToken | None:
    """The token with this SHA-256, whatever organization it is of: the policy `lookup` shows this row and no other."""
    await connection.execute(
        text("SELECT set_config('app.scim_token_sha256', :digest, true)"), {"digest": digest.hex()}
    )
    row = (await connection.execute(select(tokens).where(tokens.c.token_sha256 == digest))).one_or_none()
    return _token(row, None) if row else None


async def list_tokens(connection: AsyncConnection, after: UUID | None, limit: int) -> list[ScimToken]:
    """The organization's tokens, by id, after `after`."""
    query = _WITH_USES.order_by(tokens.c.token_id).limit(limit)
    if after is not None:
        query = query.where(tokens.c.token_id > after)
    return [_token(row, row.used_at) for row in await connection.execute(query)]


async def count_tokens(connection: AsyncConnection, wall_now: datetime) -> int:
    """How many tokens of the organization are good."""
    query = select(func.count()).where(tokens.c.revoked_at.is_(None), tokens.c.expires_at > wall_now)
    return int((await connection.execute(query)).scalar_one())


async def get_token(connection: AsyncConnection, token_id: UUID) -> ScimToken:
    """A token of the organization, locked. Raises NotFound."""
    query = _WITH_USES.where(tokens.c.token_id == token_id).with_for_update(of=tokens)
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise NotFound("scim_token", "No such SCIM token.")
    return _token(row, row.used_at)


async def mark_revoked_of(connection: AsyncConnection, makers: Collection[UUID], wall_now: datetime) -> list[UUID]:
    """End the tokens that somebody made and that haven't ended; their ids."""
    ended = update(tokens).where(
        tokens.c.created_by.in_(makers), tokens.c.revoked_at.is_(None), tokens.c.expires_at > wall_now
    )
    ended = ended.values(revoked_at=wall_now)
    return sorted((await connection.execute(ended.returning(tokens.c.token_id))).scalars())


async def insert_token(connection: AsyncConnection, token: ScimToken, digest: bytes) -> None:
    """Insert a token."""
    await connection.execute(
        insert(tokens).values(
            organization_id=token.organization_id,
            token_id=token.token_id,
            name=token.name,
            token_sha256=digest,
            created_by=token.created_by,
            created_at=token.created_at,
            expires_at=token.expires_at,
        )
    )


async def mark_token_revoked(connection: AsyncConnection, token_id: UUID, wall_now: datetime) -> None:
    """End a token."""
    await connection.execute(update(tokens).where(tokens.c.token_id == token_id).values(revoked_at=wall_now))


async def mark_token_used(connection: AsyncConnection, token: ScimToken, now: datetime, *, wrote: bool) -> None:
    """Remember that a token was used, and whether to change anything."""
    values = {"organization_id": token.organization_id, "token_id": token.token_id, "used_at": now}
    changed = {"used_at": now, **({"wrote_at": now} if wrote else {})}
    added = upsert(uses).values(**values, wrote_at=now if wrote else None)
    await connection.execute(added.on_conflict_do_update(index_elements=["organization_id", "token_id"], set_=changed))


async def last_uses(connection: AsyncConnection) -> tuple[datetime | None, datetime | None]:
    """When any token of the organization was last used, and when one last changed anything."""
    row = (await connection.execute(select(func.max(uses.c.used_at), func.max(uses.c.wrote_at)))).one()
    return row[0], row[1]
