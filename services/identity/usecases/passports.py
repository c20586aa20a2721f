"""Sessions into passports, and passports into narrower ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from uuid import UUID

from services._mesh.clock import Clock
from services._mesh.context import current
from services._mesh.errors import NotFound, Reason, Unauthenticated
from services._mesh.ids import uuid7
from services._mesh.passports import Passport, PassportVerifier, sign_passport
from services._mesh.revocations import RevocationKind, Revocations
from services._mesh.tokens import SigningKey
from services._mesh.uow import Store
from services.identity.clients.jwks import SessionKeys
from services.identity.model.membership import Member
from services.identity.model.permissions import PermissionTable
from services.identity.model.session import Session, SessionExpired, SessionInvalid, read_claims
from services.identity.store.members import find_member_of_user
from services.identity.store.organizations import find_organization
from services.identity.usecases.persons import responsible_person

PERMISSIONS_VERSION = 1


@dataclass(frozen=True)
class Authority:
    """What identity signs passports with and checks sessions against."""

    reader: Store
    sessions: SessionKeys
    issuer: str
    audience: str
    key: SigningKey
    verifier: PassportVerifier
    revocations: Revocations
    permissions: PermissionTable
    clock: Clock
    seconds: int


async def issue_passport(
    authority: Authority, session_token: str, audience: str, organization_id: UUID | None
) -> tuple[str, int]:
    """Exchange a session for a passport that is bound to the caller's certificate; returns it and its `exp`.

    Raises Unauthenticated for a bad session, NotFound for an organization that the person isn't a member of.
    """
    session = await _session(authority, session_token)
    _refuse_revoked(authority, session)
    role, person = "", session.user_id
    if organization_id is not None:
        member, person = await _membership(authority, organization_id, session.user_id)
        role = member.role.value
    now = int(authority.clock.wall_seconds())
    passport = Passport(
        audience=audience,
        actor=f"user:{session.user_id}",
        responsible_person=person,
        organization_id=organization_id,
        role=role,
        permissions=authority.permissions.held(organization_id, role, audience),
        permissions_version=PERMISSIONS_VERSION,
        session_id=session.session_id,
        aal=session.aal,
        auth_time=session.auth_time,
        act=(),
        presenter=current().peer_thumbprint,
        jti=str(uuid7()),
        issued_at=now,
        expires_at=min(now + authority.seconds, session.expires_at),
    )
    return sign_passport(authority.key, passport), passport.expires_at


async def _session(authority: Authority, token: str) -> Session:
    try:
        claims = await authority.sessions.claims(token)
        return read_claims(claims, authority.issuer, authority.audience, authority.clock.wall_seconds())
    except SessionExpired as error:
        raise Unauthenticated(
            Reason.ERROR_REASON_CREDENTIAL_EXPIRED, "The session has expired. Sign in again."
        ) from error
    except SessionInvalid as error:
        raise Unauthenticated(
            Reason.ERROR_REASON_CREDENTIAL_INVALID, "The session can't be accepted. Sign in again."
        ) from error


def _refuse_revoked(authority: Authority, session: Session) -> None:
    revoked = authority.revocations.is_revoked
    actor = f"user:{session.user_id}"
    if revoked(RevocationKind.SESSION, session.session_id, session.auth_time) or revoked(
        RevocationKind.ACTOR, actor, session.auth_time
    ):
        raise Unauthenticated(Reason.ERROR_REASON_CREDENTIAL_REVOKED, "The session was ended. Sign in again.")


async def _membership(authority: Authority, organization_id: UUID, user_id: UUID) -> tuple[Member, UUID]:
    """The user's membership and who they are as a person, straight from the database.

    Whatever is amiss, the organization isn't there for them.
    """
    async with authority.reader.read(organization_id) as connection:
        member = await find_member_of_user(connection, organization_id, user_id)
        organization = await find_organization(connection, organization_id)
        person = await responsible_person(connection, organization_id, user_id)
    if member is None or member.state != "ACTIVE" or organization is None or organization.state != "ACTIVE":
        raise NotFound("organization")
    return member, person


def exchange_passport(authority: Authority, token: str, audience: str) -> tuple[str, int]:
    """Exchange the passport that the calling service received for one that it may present to another service.

    The new one has only the target's permissions, the caller in its act chain, and never a later end.
    """
    caller = current().peer
    received = authority.verifier.verify_subject(token, caller)
    now = int(authority.clock.wall_seconds())
    passport = replace(
        received,
        audience=audience,
        permissions=authority.permissions.held(received.organization_id, received.role, audience),
        act=(caller, *received.act),
        presenter=current().peer_thumbprint,
        jti=str(uuid7()),
        issued_at=now,
        expires_at=min(now + authority.seconds, received.expires_at),
    )
    return sign_passport(authority.key, passport), passport.expires_at
