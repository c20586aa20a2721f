"""Operators in a customer's organization: asked for, decided by that organization, for a time, in its own log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

from services._mesh.context import current
from services._mesh.errors import AlreadyExists, Reason
from services._mesh.ids import PLATFORM, uuid7
from services._mesh.revocations import RevocationKind
from services._mesh.uow import Store, UnitOfWork
from services.identity.model.membership import Member, Role, own_user_id
from services.identity.model.operators import (
    UNDECIDED_HOURS,
    OperatorAccess,
    granted_hours,
    operator_actor,
    require_granted,
    require_somebody_else,
    require_undecided,
)
from services.identity.store import operators as store
from services.identity.store.members import find_member_of_user
from services.identity.store.organizations import find_organization, get_organization
from services.identity.store.revocations import insert_revocation


async def request_operator_access(work: UnitOfWork, role: Role, reason: str, hours: int) -> OperatorAccess:
    """Ask the organization of the unit of work. Raises NotFound, AlreadyExists."""
    await get_organization(work.connection, work.organization_id)
    # The login, as it comes in later: who it is as a person is said by each organization for itself.
    operator = own_user_id(current().actor)
    member = await find_member_of_user(work.connection, work.organization_id, operator)
    if work.organization_id == PLATFORM or (member is not None and member.state == "ACTIVE"):
        raise AlreadyExists(
            Reason.ERROR_REASON_RESOURCE_EXISTS, "You're a member there, with a role.", {"resource": "member"}
        )
    await store.mark_undecided_expired(work.connection, operator, work.now)
    undecided_until = work.now + timedelta(hours=UNDECIDED_HOURS)
    access = OperatorAccess(
        work.organization_id, uuid7(), operator, role, reason, hours, "REQUESTED", work.now, None, None, undecided_until
    )
    if not await store.insert_access(work.connection, access):
        raise AlreadyExists(
            Reason.ERROR_REASON_RESOURCE_EXISTS,
            "You asked already. The organization has to decide first.",
            {"resource": "operator access"},
        )
    _emit(work, "request", access, {"role": role.value, "hours": str(hours), "reason": reason})
    return access


async def list_operator_accesses(reader: Store, before: UUID | None, limit: int) -> Sequence[OperatorAccess]:
    """Accesses, newest first; one more than `limit` shows that there are more."""
    async with reader.read() as connection:
        return await store.list_accesses(connection, before, limit + 1)


async def grant_operator_access(work: UnitOfWork, access_id: UUID, hours: int) -> OperatorAccess:
    """Let the operator in from now on. Raises NotFound, WrongState, Denied (REQUESTER_IS_APPROVER)."""
    access = await store.get_access(work.connection, access_id)
    require_undecided(access, work.now)
    require_somebody_else(access.operator_id, current().persons() | {own_user_id(current().actor)})
    until = work.now + timedelta(hours=granted_hours(access.hours, hours))
    granted = await _decide(work, access, "GRANTED", until)
    _emit(work, "grant", granted, {"role": granted.role.value, "expires_at": until.isoformat()})
    return granted


async def refuse_operator_access(work: UnitOfWork, access_id: UUID) -> OperatorAccess:
    """Refuse. Raises NotFound, WrongState."""
    access = await store.get_access(work.connection, access_id)
    require_undecided(access, work.now)
    refused = await _decide(work, access, "REFUSED", access.expires_at)
    _emit(work, "refuse", refused, {})
    return refused


async def revoke_operator_access(work: UnitOfWork, access_id: UUID) -> OperatorAccess:
    """End it at once, everywhere. Raises NotFound, WrongState."""
    access = await store.get_access(work.connection, access_id)
    require_granted(access, work.now)
    revoked = await _decide(work, access, "REVOKED", work.now)
    key = f"{work.organization_id}/{access.actor}"
    await insert_revocation(work.connection, RevocationKind.MEMBER.name, key, work.wall_now)
    _emit(work, "revoke", revoked, {"expires_at": access.expires_at.isoformat()})
    return revoked


async def _decide(work: UnitOfWork, access: OperatorAccess, state: str, expires_at: datetime) -> OperatorAccess:
    return await store.mark_access(
        work.connection,
        access.access_id,
        state=state,
        decided_at=work.now,
        decided_by=current().responsible_person,
        decided_as=current().actor,
        deciders=sorted(current().persons()),
        expires_at=expires_at,
    )


def _emit(work: UnitOfWork, verb: str, access: OperatorAccess, said: dict[str, str]) -> None:
    metadata = {"operator": access.actor, "state": access.state, **said}
    work.emit(f"identity.operatoraccess.{verb}", f"operatorAccesses/{access.access_id}", metadata)


async def enter(store_: Store, organization_id: UUID, person: UUID, session_id: str, jti: str) -> OperatorAccess | None:
    """The access under which an operator may be in the organization now, or None; `jti` is the passport's to come.

    A session that comes in under it for the first time is an event in the organization's log. Whoever isn't a member of
    the platform any more has no access, whatever was granted.
    """
    async with store_.read(PLATFORM) as connection:
        member = await find_member_of_user(connection, PLATFORM, person)
    if member is None or member.state != "ACTIVE":
        return None
    call = replace(
        current(),
        actor=operator_actor(person),
        responsible_person=person,
        session_id=session_id,
        authority=f"passport:{jti}",
    )
    async with store_.begin(organization_id, call) as work:
        organization = await find_organization(work.connection, organization_id)
        if organization is None or organization.state != "ACTIVE":
            return None
        access = await store.find_granted(work.connection, person, work.now)
        if access is not None and await store.insert_entry(work.connection, access, session_id, work.now):
            _emit(work, "enter", access, {"role": access.role.value, "expires_at": access.expires_at.isoformat()})
    return access


async def end_operator_access(work: UnitOfWork, member: Member) -> int:
    """An ending: who leaves the platform is out of every customer's organization at once (see `enter` for later)."""
    if work.organization_id != PLATFORM:
        return 0
    key = operator_actor(member.user_id)
    await insert_revocation(work.connection, RevocationKind.ACTOR.name, key, work.wall_now)
    return 1
