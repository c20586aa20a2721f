"""Credentials into passports, and passports into narrower ones."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from services._mesh.context import current
from services._mesh.errors import NotFound
from services._mesh.ids import uuid7
from services._mesh.passports import Kind, Passport, sign_passport
from services.identity.model.elevations import over
from services.identity.model.membership import Member
from services.identity.model.roles import NOBODY, Standing, standing
from services.identity.store.members import find_member_of_user
from services.identity.store.organizations import find_organization
from services.identity.usecases import elevations
from services.identity.usecases.persons import responsible_person
from services.identity.usecases.principals import Authority, resolve

PERMISSIONS_VERSION = 1


async def issue_passport(
    authority: Authority,
    credential: str,
    audience: str,
    organization_id: UUID | None,
    elevation_id: UUID | None = None,
) -> tuple[str, int]:
    """Exchange a credential for a passport that is bound to the caller's certificate; returns it and its `exp`.

    Raises Unauthenticated for a bad credential, NotFound for an organization that the responsible person isn't a
    member of, or that isn't the one that the credential is bound to, WrongState (ELEVATION_OVER) for break-glass access
    that isn't in force in this session.
    """
    principal = await resolve(authority, credential)
    organization_id = _bound(principal.organization_id, organization_id)
    held, person = NOBODY, principal.user_id
    if organization_id is not None:
        held, person = await _standing(authority, organization_id, principal.user_id, audience)
    now = int(authority.clock.wall_seconds())
    passport = Passport(
        audience=audience,
        actor=principal.actor,
        responsible_person=person,
        organization_id=organization_id,
        role=held.role,
        permissions=_within(principal.ceiling, held.permissions),
        withheld=held.withheld,
        limits=held.limits,
        permissions_version=PERMISSIONS_VERSION,
        session_id=principal.session_id,
        aal=principal.aal,
        auth_time=principal.auth_time,
        act=(),
        presenter=current().peer_thumbprint,
        jti=str(uuid7()),
        issued_at=now,
        expires_at=min(now + authority.seconds, principal.ends_at),
        kind=principal.kind,
        rests_on=tuple(f"user:{user_id}" for user_id in (principal.user_id, *principal.others)),
        ceiling=principal.ceiling,
    )
    if elevation_id is not None:
        passport = await _elevated(authority, passport, elevation_id)
    return sign_passport(authority.key, passport), passport.expires_at


def _bound(only: UUID | None, asked: UUID | None) -> UUID | None:
    """The organization that the passport is for: a bound credential's own, whether it is asked for or none is."""
    if only is not None and asked not in (None, only):
        raise NotFound("organization")
    return only or asked


async def _elevated(authority: Authority, passport: Passport, elevation_id: UUID) -> Passport:
    """The passport under break-glass access: it ends no later than that. Raises WrongState (ELEVATION_OVER)."""
    organization_id, now = passport.organization_id, authority.clock.now()
    if organization_id is None or passport.kind is not Kind.HUMAN:
        raise over(elevation_id)
    bearer = elevations.Bearer(organization_id, passport.actor, passport.session_id, passport.aal)
    found = await elevations.elevation_for(
        authority.reader, authority.reach, bearer, elevation_id, passport.audience, now
    )
    left = found.expires_at - int(now.timestamp())
    return replace(passport, elevation=found, expires_at=min(passport.expires_at, passport.issued_at + left))


def _within(ceiling: frozenset[str] | None, held: frozenset[str]) -> frozenset[str]:
    return held if ceiling is None else held & ceiling


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


async def _standing(authority: Authority, organization_id: UUID, user_id: UUID, audience: str) -> tuple[Standing, UUID]:
    """What a user's membership amounts to, and who they are as a person. Raises NotFound."""
    member, person = await _membership(authority, organization_id, user_id)
    return standing(authority.permissions, member, audience, authority.clock.now()), person


async def exchange_passport(authority: Authority, token: str, audience: str) -> tuple[str, int]:
    """Exchange the passport that the calling service received for one that it may present to another service.

    The new one has only the target's permissions, the caller in its act chain, and never a later end. Raises
    Unauthenticated, and WrongState (ELEVATION_OVER) where it was under break-glass access that isn't in force any more.
    """
    caller = current().peer
    received = authority.verifier.verify_subject(token, caller)
    held = NOBODY
    if received.organization_id is not None:
        user_id = UUID(received.rests_on[0].removeprefix("user:"))
        held, _ = await _standing(authority, received.organization_id, user_id, audience)
    now = int(authority.clock.wall_seconds())
    passport = replace(
        received,
        audience=audience,
        role=held.role,
        permissions=_within(received.ceiling, held.permissions),
        withheld=held.withheld,
        limits=held.limits,
        act=(caller, *received.act),
        presenter=current().peer_thumbprint,
        jti=str(uuid7()),
        issued_at=now,
        expires_at=min(now + authority.seconds, received.expires_at),
    )
    if received.elevation is not None:
        passport = await _elevated(authority, passport, received.elevation.elevation_id)
    return sign_passport(authority.key, passport), passport.expires_at
