"""An API token's text into a principal: never more than what it was made for, of what its creator holds then.

The token's row decides, not the revocation feed: identity reads it in its database.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from services._mesh.database import scope
from services._mesh.errors import Reason, Unauthenticated
from services._mesh.passports import Kind
from services._mesh.resource_limits import ResourceLimits
from services.identity.model.api_tokens import TOKEN_AAL, ApiToken, ServiceAccount, TokenTextInvalid, digest
from services.identity.model.membership import Member
from services.identity.model.principal import Principal
from services.identity.store import members as members_store
from services.identity.store import tokens as store

if TYPE_CHECKING:
    from services.identity.usecases.principals import Authority


async def token_principal(authority: Authority, text: str) -> Principal:
    """Who an API token stands for, and how far. Raises Unauthenticated."""
    token, account, creator, is_noted = await _read(authority, text)
    _require_good(token, account, creator, authority.clock.wall_now())
    if not is_noted:
        async with authority.reader.begin(token.organization_id) as work:
            await store.put_use(work.connection, token, work.wall_now)
    return Principal(
        actor=token.actor if account is None else account.actor,
        user_id=token.creator_user_id,
        session_id=str(token.token_id),
        kind=Kind.MACHINE,
        aal=TOKEN_AAL,
        auth_time=int(token.created_at.timestamp()),
        ends_at=int(token.expires_at.timestamp()),
        organization_id=token.organization_id,
        ceiling=token.permissions,
        limits=ResourceLimits(tuple(sorted(token.connection_ids))) or None,
    )


async def _read(authority: Authority, text: str) -> tuple[ApiToken, ServiceAccount | None, Member | None, bool]:
    """The token, its machine and its creator's membership, straight from the database; whether its use was noted."""
    try:
        supplied = digest(text)
    except TokenTextInvalid:
        raise _invalid() from None
    async with authority.reader.read(UUID(int=0)) as connection:
        token = await store.find_token_by_digest(connection, supplied)
        if token is None:
            raise _invalid()
        await scope(connection, token.organization_id)
        account = None
        if token.service_account_id is not None:
            account = await store.get_service_account(connection, token.service_account_id)
        creator = await members_store.find_member_of_user(connection, token.organization_id, token.creator_user_id)
        is_noted = await store.is_use_noted(connection, token, authority.clock.wall_now())
    return token, account, creator, is_noted


def _require_good(token: ApiToken, account: ServiceAccount | None, creator: Member | None, wall_now: datetime) -> None:
    standing = token.standing(wall_now)
    if standing == "EXPIRED":
        raise Unauthenticated(
            Reason.ERROR_REASON_CREDENTIAL_EXPIRED, "The API token has expired. Create another one, or rotate in time."
        )
    # Who made a service account's token answers for it, or it opens nothing.
    is_owned = account is None or (account.state == "ACTIVE" and account.owner_user_id == token.creator_user_id)
    if standing != "ACTIVE" or not is_owned or creator is None or creator.state != "ACTIVE":
        raise Unauthenticated(
            Reason.ERROR_REASON_CREDENTIAL_REVOKED,
            "The API token is revoked, or who made it may no longer. Create another one.",
        )


def _invalid() -> Unauthenticated:
    return Unauthenticated(
        Reason.ERROR_REASON_CREDENTIAL_INVALID, "The API token isn't one of ours. Look for a part that is missing."
    )
