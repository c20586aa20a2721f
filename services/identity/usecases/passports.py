"""Credentials into passports, and passports into narrower ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from uuid import UUID

from services._mesh.context import current
from services._mesh.errors import NotFound
from services._mesh.ids import uuid7
from services._mesh.passports import ISSUER, Kind, Passport, sign_passport
from services._mesh.resource_limits import narrowed
from services.identity.model.admission import Admission
from services.identity.model.elevations import over
from services.identity.model.membership import Role
from services.identity.model.operators import OPERATOR_AAL, OperatorAccess, is_operator
from services.identity.model.principal import Principal
from services.identity.model.roles import NOBODY, Standing, standing
from services.identity.store.admissions import find_admission, has_ended
from services.identity.usecases import elevations
from services.identity.usecases.choosing import choose_organization
from services.identity.usecases.enforcement import require_no_provider
from services.identity.usecases.operators import enter
from services.identity.usecases.principals import Authority, ended, resolve
from services.identity.usecases.scim.joining import join_provisioned

PERMISSIONS_VERSION = 1


async def issue_passport(
    authority: Authority,
    credential: str,
    audience: str,
    organization_id: UUID | None,
    elevation_id: UUID | None = None,
    *,
    choose: bool = False,
) -> tuple[str, Passport]:
    """Exchange a credential for a passport that is bound to the caller's certificate; returns it, signed and as it is.

    With `choose`, it is for the organization that the person is in who names none (see `choose_organization`). Raises
    Unauthenticated for a bad or ended credential, NotFound for an organization that the responsible person isn't a
    member of, or that isn't the one that the credential is bound to, WrongState (ELEVATION_OVER) for break-glass access
    that isn't in force in this session.
    """
    now, jti = int(authority.clock.wall_seconds()), str(uuid7())
    principal = await resolve(authority, credential)
    organization_id = _bound(principal.organization_id, organization_id)
    if organization_id is None and choose:
        organization_id = await choose_organization(authority.reader, principal.user_id, principal.organization_hint)
    holder = _holder(principal)
    place = _Place(principal.actor, principal.user_id, NOBODY, principal.ends_at)
    if organization_id is None:
        await _refuse_ended(authority, holder)
    else:
        place = await _place(authority, principal, organization_id, audience, jti)
    passport = Passport(
        audience=audience,
        actor=place.actor,
        responsible_person=place.person,
        organization_id=organization_id,
        role=place.held.role,
        permissions=_within(authority, principal.kind, principal.ceiling, place.held),
        withheld=place.held.withheld,
        awaits_provider=place.held.awaits_provider,
        limits=narrowed(place.held.limits, principal.limits),
        linked=place.held.linked,
        permissions_version=PERMISSIONS_VERSION,
        session_id=principal.session_id,
        aal=principal.aal,
        auth_time=principal.auth_time,
        act=(),
        presenter=current().peer_thumbprint,
        jti=jti,
        issued_at=now,
        expires_at=min(now + authority.seconds, place.ends_at),
        kind=principal.kind,
        rests_on=_rests_on(principal, place.actor),
        ceiling=principal.ceiling,
        email=principal.email if organization_id is None and audience == ISSUER else "",
        revocations_seen=place.revocations_seen,
        browser=principal.browser,
    )
    if elevation_id is not None:
        passport = await _elevated(authority, passport, elevation_id)
    if organization_id is not None and principal.kind is Kind.HUMAN and not is_operator(place.actor):
        authority.sightings.note(organization_id, principal.user_id, principal.aal, authority.clock.wall_now())
    return sign_passport(authority.key, passport), passport


def _rests_on(principal: Principal, actor: str) -> tuple[str, ...]:
    """Whose revocation ends the passport: the user's whom it is for, first of all, and an operator's own."""
    user = f"user:{principal.user_id}"
    return (user, actor) if is_operator(actor) else (user,)


def _user_of(passport: Passport) -> UUID:
    """The user whose membership it rests on."""
    return UUID(passport.rests_on[0].removeprefix("user:"))


def _bound(only: UUID | None, asked: UUID | None) -> UUID | None:
    """The organization that the passport is for: a bound credential's own, whether it is asked for or none is."""
    if only is not None and asked not in (None, only):
        raise NotFound("organization")
    return only or asked


async def _elevated(authority: Authority, passport: Passport, elevation_id: UUID) -> Passport:
    """The passport under break-glass access: it ends no later than that. Raises WrongState (ELEVATION_OVER)."""
    organization_id, now = passport.organization_id, authority.clock.now()
    if organization_id is None or passport.kind is not Kind.HUMAN or passport.role != Role.ADMIN.value:
        raise over(elevation_id)
    bearer = elevations.Bearer(organization_id, passport.actor, passport.session_id, passport.aal)
    found = await elevations.elevation_for(
        authority.reader, authority.reach, bearer, elevation_id, passport.audience, now
    )
    left = found.expires_at - int(now.timestamp())
    return replace(passport, elevation=found, expires_at=min(passport.expires_at, passport.issued_at + left))


def _within(authority: Authority, kind: Kind, ceiling: frozenset[str] | None, held: Standing) -> frozenset[str]:
    """What is left of a role within a credential's ceiling. No machine approves, whatever its ceiling says."""
    most = held.permissions if kind is Kind.HUMAN else held.permissions - authority.permissions.approvals
    return most if ceiling is None else most & ceiling


@dataclass(frozen=True, slots=True)
class _Place:
    """What a principal is in an organization: under which actor, who is responsible, with what, until when."""

    actor: str
    person: UUID
    held: Standing
    ends_at: int
    revocations_seen: int | None = None


async def _place(authority: Authority, principal: Principal, organization_id: UUID, audience: str, jti: str) -> _Place:
    """As a member; or as an operator whom the organization lets in for now. Raises NotFound."""
    own = principal.kind is Kind.HUMAN and principal.organization_id is None
    try:
        found = await _membership(authority, organization_id, _holder(principal), principal)
        # Whom the directory provisioned after they had come is its user from now on: what it ends ends here.
        if own and found.is_awaited and await _joins(authority, principal, organization_id, jti):
            found = await _membership(authority, organization_id, _holder(principal), principal)
        return _as_member(authority, principal, found, audience)
    except NotFound:
        if own and await _joins(authority, principal, organization_id, jti):
            found = await _membership(authority, organization_id, _holder(principal), principal)
            return _as_member(authority, principal, found, audience)
        # An operator comes in person, and with a second factor; no token of theirs does.
        if principal.kind is not Kind.HUMAN or principal.aal < OPERATOR_AAL:
            raise
    await _refuse_ended(authority, _holder(principal))
    access = await enter(authority.reader, organization_id, principal.user_id, principal.session_id, jti)
    if access is None:
        raise NotFound("organization")
    left = int((access.expires_at - authority.clock.now()).total_seconds())
    ends_at = min(principal.ends_at, int(authority.clock.wall_seconds()) + left)
    return _Place(access.actor, principal.user_id, _operating(authority, access, audience), ends_at)


def _as_member(authority: Authority, principal: Principal, found: Admission, audience: str) -> _Place:
    held = _held(authority, found, audience)
    return _Place(principal.actor, found.person_id, held, principal.ends_at, found.revocations_seen)


async def _joins(authority: Authority, principal: Principal, organization_id: UUID, jti: str) -> bool:
    """Whether somebody becomes the directory's user by coming, and a member with that."""
    if not principal.email:
        return False
    await _refuse_ended(authority, _holder(principal))
    return await join_provisioned(
        authority.reader,
        organization_id,
        principal.user_id,
        principal.email,
        jti,
        aal=principal.aal,
        now=authority.clock.now(),
    )


def _operating(authority: Authority, access: OperatorAccess, audience: str) -> Standing:
    role = access.role.value
    held = authority.permissions.held(access.organization_id, role, audience) - authority.permissions.approvals
    return Standing(role, held, frozenset(), None)


@dataclass(frozen=True, slots=True)
class _Holder:
    """Of a credential or passport: the user whose membership it has, and what may have been ended."""

    user_id: UUID
    session_id: str
    actor: str
    auth_time: int
    address: str = ""


def _holder(principal: Principal) -> _Holder:
    return _Holder(principal.user_id, principal.session_id, principal.actor, principal.auth_time, principal.email)


async def _membership(authority: Authority, organization_id: UUID, holder: _Holder, by: Principal | None) -> Admission:
    """The user's membership and who they are as a person, straight from the database.

    Whatever is amiss with it, the organization isn't there for them; but whose session (`by`) isn't of the identity
    provider that is demanded is told so. Raises NotFound, Unauthenticated, Denied (SSO_REQUIRED).
    """
    async with authority.reader.read(organization_id) as connection:
        this = (holder.user_id, holder.session_id, holder.actor, holder.address)
        found = await find_admission(connection, organization_id, *this)
    if found is None or not found.is_open:
        raise NotFound("organization")
    if found.has_ended(holder.auth_time):
        raise ended()
    if by is not None and by.kind is Kind.HUMAN:
        require_no_provider(found.demanded_provider, by.provider_id)
    return found


async def _refuse_ended(authority: Authority, holder: _Holder) -> None:
    """The feed forgets what every passport has outlived; a session lives longer, and is looked up."""
    async with authority.reader.read(UUID(int=0)) as connection:
        if await has_ended(connection, holder.session_id, holder.actor, holder.auth_time):
            raise ended()


def _held(authority: Authority, found: Admission, audience: str) -> Standing:
    """What a user's membership amounts to now."""
    now = authority.clock.now()
    return standing(authority.permissions, found.member, audience, now, found.linked, found.provider_changed_at)


async def exchange_passport(authority: Authority, token: str, audience: str) -> tuple[str, int]:
    """Exchange the passport that the calling service received for one that it may present to another service.

    The new one has only the target's permissions, the caller in its act chain, and never a later end. Raises
    Unauthenticated, and WrongState (ELEVATION_OVER) where it was under break-glass access that isn't in force any more.
    """
    caller = current().peer
    received = authority.verifier.verify_subject(token, caller)
    now, jti = int(authority.clock.wall_seconds()), str(uuid7())
    held, person, seen = NOBODY, received.responsible_person, received.revocations_seen
    if received.organization_id is not None:
        held, person, seen = await _still(authority, received, received.organization_id, audience, jti)
    passport = replace(
        received,
        audience=audience,
        responsible_person=person,
        role=held.role,
        permissions=_within(authority, received.kind, received.ceiling, held),
        withheld=held.withheld,
        awaits_provider=held.awaits_provider,
        limits=narrowed(held.limits, received.limits),
        linked=held.linked,
        act=(caller, *received.act),
        presenter=current().peer_thumbprint,
        jti=jti,
        issued_at=now,
        expires_at=min(now + authority.seconds, received.expires_at),
        revocations_seen=seen,
    )
    if received.elevation is not None:
        passport = await _elevated(authority, passport, received.elevation.elevation_id)
    return sign_passport(authority.key, passport), passport.expires_at


async def _still(
    authority: Authority, received: Passport, organization_id: UUID, audience: str, jti: str
) -> tuple[Standing, UUID, int | None]:
    """What whoever the passport is for holds now, and who they are as a person; and which revocations that knows of.

    Raises NotFound where they left.
    """
    user_id = _user_of(received)
    if not is_operator(received.actor):
        holder = _Holder(user_id, received.session_id, received.actor, received.auth_time)
        found = await _membership(authority, organization_id, holder, None)
        return _held(authority, found, audience), found.person_id, found.revocations_seen
    access = await enter(authority.reader, organization_id, user_id, received.session_id, jti)
    if access is None:
        raise NotFound("organization")
    return _operating(authority, access, audience), user_id, None
