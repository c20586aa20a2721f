"""A browser session's cookie into a principal: whoever signed in, for as long as both their sign-in and this last.

The session's row decides, each time that identity is asked; the passport that is given for it ends with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from services._mesh.errors import Reason, Unauthenticated
from services._mesh.passports import Kind
from services.identity.model.browser_sessions import IDLE, PREFIX, Shown
from services.identity.model.principal import Principal
from services.identity.model.sso_tokens import digest, organization_of
from services.identity.store import browser_sessions as store

if TYPE_CHECKING:
    from services.identity.usecases.principals import Authority


async def browser_principal(authority: Authority, token: str) -> Principal:
    """Who a browser session stands for. Raises Unauthenticated."""
    shown = await _read(authority, token)
    session, wall_now, used_at = shown.session, authority.clock.wall_now(), shown.used_at
    if not shown.is_use_noted:
        used_at = wall_now
        async with authority.reader.begin(session.organization_id) as work:
            await store.put_use(work.connection, session, used_at)
    return Principal(
        actor=f"user:{session.user_id}",
        user_id=session.user_id,
        session_id=session.login_id,
        kind=Kind.HUMAN,
        aal=session.aal,
        auth_time=int(session.authenticated_at.timestamp()),
        ends_at=int(min(used_at + IDLE, session.expires_at).timestamp()),
        # A sign-in by an identity provider is for its organization alone.
        organization_id=session.organization_id if session.provider_id is not None else None,
        provider_id=session.provider_id,
        browser=session.key,
    )


async def _read(authority: Authority, token: str) -> Shown:
    organization_id = organization_of(PREFIX, token)
    if organization_id is None:
        raise _refused(Reason.ERROR_REASON_CREDENTIAL_INVALID, "The session can't be accepted. Sign in again.")
    async with authority.reader.read(organization_id) as connection:
        shown = await store.find_by_digest(connection, digest(token), authority.clock.wall_now())
    if shown is None:
        raise _refused(Reason.ERROR_REASON_CREDENTIAL_INVALID, "The session can't be accepted. Sign in again.")
    if shown.session.ended_at is not None:
        raise _refused(Reason.ERROR_REASON_CREDENTIAL_REVOKED, "The session was ended. Sign in again.")
    if shown.is_over or shown.is_idle:
        raise _refused(Reason.ERROR_REASON_CREDENTIAL_EXPIRED, "The session has expired. Sign in again.")
    return shown


def _refused(reason: Reason.ValueType, message: str) -> Unauthenticated:
    return Unauthenticated(reason, message)
