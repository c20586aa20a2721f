"""Credentials into principals: one branch for each kind of credential, told by its prefix."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from services._mesh.clock import Clock
from services._mesh.errors import Reason, Unauthenticated
from services._mesh.passport_verifier import PassportVerifier
from services._mesh.passports import Kind
from services._mesh.revocations import RevocationKind, Revocations
from services._mesh.tokens import SigningKey
from services._mesh.uow import Store
from services.identity.clients.jwks import SessionKeys
from services.identity.model import browser_sessions
from services.identity.model.api_tokens import PREFIX
from services.identity.model.elevations import Reach
from services.identity.model.permissions import PermissionTable
from services.identity.model.principal import Principal
from services.identity.model.session import SessionExpired, SessionInvalid, read_claims
from services.identity.model.sso_tokens import SESSION_PREFIX
from services.identity.usecases.browser_principals import browser_principal
from services.identity.usecases.posture import Sightings
from services.identity.usecases.sso_sessions import find_sso_principal
from services.identity.usecases.token_principals import token_principal


@dataclass(frozen=True)
class Authority:
    """What identity signs passports with and checks credentials against."""

    reader: Store
    sessions: SessionKeys
    issuer: str
    audience: str
    key: SigningKey
    verifier: PassportVerifier
    revocations: Revocations
    permissions: PermissionTable
    reach: Reach
    clock: Clock
    seconds: int
    confirms_email: bool = False
    sightings: Sightings = field(default_factory=Sightings)


Resolver = Callable[[Authority, str], Awaitable[Principal]]


async def resolve(authority: Authority, credential: str) -> Principal:
    """Who a bearer credential stands for, and that it wasn't revoked. Raises Unauthenticated, Unavailable."""
    principal = await _resolver(credential)(authority, credential)
    if principal.kind is Kind.HUMAN:  # A machine's credential has a row of its own, which says it.
        _refuse_revoked(authority, principal)
    return principal


def _resolver(credential: str) -> Resolver:
    """A kind of credential is told by its prefix; what has none of these is a session token of the issuer's."""
    return next((each for prefix, each in _BY_PREFIX.items() if credential.startswith(prefix)), _session)


async def _session(authority: Authority, token: str) -> Principal:
    try:
        claims = await authority.sessions.claims(token)
        session = read_claims(claims, authority.issuer, authority.audience, authority.clock.wall_seconds())
    except SessionExpired as error:
        raise Unauthenticated(
            Reason.ERROR_REASON_CREDENTIAL_EXPIRED, "The session has expired. Sign in again."
        ) from error
    except SessionInvalid as error:
        raise Unauthenticated(
            Reason.ERROR_REASON_CREDENTIAL_INVALID, "The session can't be accepted. Sign in again."
        ) from error
    return Principal(
        actor=f"user:{session.user_id}",
        user_id=session.user_id,
        session_id=session.session_id,
        kind=Kind.HUMAN,
        aal=session.aal,
        auth_time=session.auth_time,
        ends_at=session.expires_at,
        organization_hint=session.organization_hint,
        email=session.email if authority.confirms_email or claims.get("email_verified") is True else "",
    )


def _refuse_revoked(authority: Authority, principal: Principal) -> None:
    """By the feed. What a credential's own row says is its resolver's matter."""
    revoked, since = authority.revocations.is_revoked, principal.auth_time
    if revoked(RevocationKind.SESSION, principal.session_id, since) or revoked(
        RevocationKind.ACTOR, principal.actor, since
    ):
        raise ended()


def ended() -> Unauthenticated:
    """The refusal of a credential that was revoked."""
    return Unauthenticated(Reason.ERROR_REASON_CREDENTIAL_REVOKED, "The session was ended. Sign in again.")


async def _sso_session(authority: Authority, token: str) -> Principal:
    return await find_sso_principal(authority.reader, token, authority.clock.wall_seconds())


# JWTs begin with "eyJ": no prefix here may.
_BY_PREFIX: Mapping[str, Resolver] = {
    PREFIX: token_principal,
    SESSION_PREFIX: _sso_session,
    browser_sessions.PREFIX: browser_principal,
}
