"""What identity decides, one function a decision."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from services._mesh.clock import Clock
from services._mesh.context import current
from services._mesh.database import scope
from services._mesh.errors import AlreadyExists, NotFound, Reason, Unauthenticated
from services._mesh.ids import uuid7
from services._mesh.passports import Passport, PassportVerifier, sign_passport
from services._mesh.revocations import RevocationKind, Revocations
from services._mesh.tokens import SigningKey
from services._mesh.uow import Store, UnitOfWork
from services.identity import store
from services.identity.clients.jwks import SessionKeys
from services.identity.model.membership import (
    Member,
    Organization,
    Role,
    require_another_admin,
    require_etag,
    require_time_zone,
)
from services.identity.model.permissions import PermissionTable, require_platform_named
from services.identity.model.session import Session, SessionExpired, SessionInvalid, read_claims

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
    role = ""
    if organization_id is not None:
        member = await _membership(authority, organization_id, session.user_id)
        role = member.role.value
    now = int(authority.clock.wall_seconds())
    passport = Passport(
        audience=audience,
        actor=f"user:{session.user_id}",
        responsible_person=session.user_id,
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


async def _membership(authority: Authority, organization_id: UUID, user_id: UUID) -> Member:
    """The person's membership, straight from the database. Whatever is amiss, the organization isn't there for them."""
    async with authority.reader.read(organization_id) as connection:
        member = await store.find_member_of_user(connection, organization_id, user_id)
        organization = await store.find_organization(connection, organization_id)
    if member is None or member.state != "ACTIVE" or organization is None or organization.state != "ACTIVE":
        raise NotFound("organization")
    return member


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


async def check_organization(reader: Store, organization_id: UUID) -> Organization:
    """The organization, for a process that is about to grant something. Raises NotFound."""
    async with reader.read(organization_id) as connection:
        return await store.get_organization(connection, organization_id)


async def list_my_organizations(reader: Store) -> list[tuple[Organization, Role]]:
    """The caller's organizations, by slug."""
    person = current().responsible_person
    if person is None:
        return []
    found = []
    async with reader.read(UUID(int=0)) as connection:
        for member in await store.list_memberships(connection, person):
            await scope(connection, member.organization_id)
            organization = await store.find_organization(connection, member.organization_id)
            if organization is not None:
                found.append((organization, member.role))
    return sorted(found, key=lambda pair: pair[0].slug)


async def get_organization(reader: Store) -> Organization:
    """The caller's organization."""
    async with reader.read() as connection:
        return await store.get_organization(connection, current().organization())


@dataclass(frozen=True, slots=True)
class OrganizationChange:
    """What is to change; empty texts stay as they are."""

    display_name: str
    time_zone: str
    reporting_currency: str
    etag: str


async def update_organization(work: UnitOfWork, change: OrganizationChange) -> Organization:
    """Change the organization. Raises Conflict (ETAG_MISMATCH), Invalid."""
    before = await store.get_organization(work.connection, work.organization_id)
    require_etag(change.etag, before.etag)
    if change.time_zone:
        require_time_zone(change.time_zone)
    wanted = {
        "display_name": change.display_name,
        "time_zone": change.time_zone,
        "reporting_currency": change.reporting_currency,
    }
    values = {name: value for name, value in wanted.items() if value}
    after = await store.mark_organization(work.connection, before, **values)
    work.emit(
        "identity.organization.update",
        f"organizations/{work.organization_id}",
        {"before": {name: getattr(before, name) for name in values}, "after": values},
    )
    return after


async def list_members(reader: Store, after: UUID | None, limit: int) -> list[Member]:
    """Members by id; one more than `limit` shows that there are more."""
    async with reader.read() as connection:
        return await store.list_members(connection, after, limit + 1)


async def get_member(reader: Store, member_id: UUID) -> Member:
    """One member. Raises NotFound."""
    async with reader.read() as connection:
        return await store.get_member(connection, member_id)


async def add_member(work: UnitOfWork, user_id: UUID, email: str, role: Role) -> Member:
    """Make a person a member. Raises AlreadyExists."""
    member = Member(work.organization_id, uuid7(), user_id, email, role, "ACTIVE", 1, work.now)
    if not await store.insert_member(work.connection, member):
        raise AlreadyExists(
            Reason.ERROR_REASON_RESOURCE_EXISTS, "This person is a member already.", {"resource": "member"}
        )
    found = await store.find_member_of_user(work.connection, work.organization_id, user_id)
    assert found is not None
    work.emit("identity.member.add", f"members/{found.member_id}", {"role": role.value, "user_id": str(user_id)})
    return found


async def update_member(work: UnitOfWork, member_id: UUID, role: Role, etag: str) -> Member:
    """Give a member another role; what they hold is void at once. Raises NotFound, Conflict, WrongState."""
    before = await _active(work, member_id)
    require_etag(etag, before.etag)
    if role is not Role.ADMIN:
        require_another_admin(before, await store.count_admins(work.connection))
    after = await store.mark_member(work.connection, member_id, role=role.value)
    await _revoke_member(work, before)
    work.emit("identity.member.update", f"members/{member_id}", {"before": before.role.value, "after": role.value})
    return after


async def remove_member(work: UnitOfWork, member_id: UUID) -> None:
    """End a membership and all that rests on it. Raises NotFound, WrongState."""
    member = await _active(work, member_id)
    require_another_admin(member, await store.count_admins(work.connection))
    await store.mark_member(work.connection, member_id, state="REMOVED")
    await _revoke_member(work, member)
    work.emit("identity.member.remove", f"members/{member_id}", {"role": member.role.value})


async def revoke_member_sessions(work: UnitOfWork, member_id: UUID) -> int:
    """End what a member holds in this organization; returns the place in the feed. Raises NotFound."""
    member = await _active(work, member_id)
    seq = await _revoke_member(work, member)
    work.emit("identity.session.revoke", f"members/{member_id}", {"seq": str(seq)})
    return seq


async def _active(work: UnitOfWork, member_id: UUID) -> Member:
    member = await store.get_member(work.connection, member_id, lock=True)
    if member.state != "ACTIVE":
        raise NotFound("member")
    return member


async def _revoke_member(work: UnitOfWork, member: Member) -> int:
    key = f"{work.organization_id}/{member.actor}"
    return await store.insert_revocation(work.connection, RevocationKind.MEMBER.name, key, work.wall_now)


@dataclass(frozen=True, slots=True)
class FeedPiece:
    """New entries of the feed, and the newest one's place."""

    entries: tuple[Any, ...]
    latest_seq: int


FEED_BATCH = 1000
FEED_PERIOD = timedelta(seconds=600)


async def read_revocations(reader: Store, after: int, wall_now: datetime) -> FeedPiece:
    """The entries after a place that can still matter; older ones outlived every token."""
    async with reader.read(UUID(int=0)) as connection:
        entries = await store.list_revocations(connection, after, wall_now - FEED_PERIOD, FEED_BATCH)
        latest = await store.latest_seq(connection)
    return FeedPiece(tuple(entries), latest)


@dataclass(frozen=True, slots=True)
class NewOrganization:
    """An organization as the installation's operator creates it, with its first members."""

    organization_id: UUID
    slug: str
    display_name: str
    time_zone: str
    reporting_currency: str
    members: tuple[tuple[UUID, str, Role], ...]


async def create_organization(writer: Store, given: NewOrganization) -> bool:
    """Create an organization with its first members, once; False when it is there already.

    Raises ValueError when no first member is an Admin: nobody could let anybody in.
    """
    require_platform_named(given.organization_id, given.slug)
    if not any(role is Role.ADMIN for _, _, role in given.members):
        raise ValueError(f"organization {given.slug} needs an Admin among its first members")
    async with writer.begin(given.organization_id) as work:
        if await store.find_organization(work.connection, given.organization_id) is not None:
            return False
        await store.insert_organization(
            work.connection,
            Organization(
                given.organization_id,
                given.slug,
                given.display_name,
                given.time_zone,
                given.reporting_currency,
                "ACTIVE",
                1,
                work.now,
            ),
        )
        work.emit("identity.organization.create", f"organizations/{given.organization_id}", {"slug": given.slug})
        for user_id, email, role in given.members:
            await add_member(work, user_id, email, role)
    return True
