"""Sessions made from assertions: by a one-time code, for one organization, ended at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from services._mesh.context import current
from services._mesh.errors import Reason, Unauthenticated
from services._mesh.ids import uuid7
from services._mesh.passports import Kind
from services._mesh.revocations import RevocationKind
from services._mesh.uow import Store, UnitOfWork
from services.identity.model.membership import Member
from services.identity.model.principal import Principal
from services.identity.model.sso import Provider, ProviderState
from services.identity.model.sso_logins import CODE_SECONDS, LoginCode, LoginFacts, SsoSession
from services.identity.model.sso_tokens import (
    CODE_PREFIX,
    SESSION_PREFIX,
    answers,
    digest,
    new_token,
    organization_of,
)
from services.identity.store import members as members_store
from services.identity.store import sso as store
from services.identity.store import sso_logins as logins
from services.identity.store.revocations import insert_revocations


async def make_code(work: UnitOfWork, provider: Provider, member: Member, facts: LoginFacts) -> str:
    """A code that is good once, for a minute, and for whoever began the sign-in."""
    code = new_token(CODE_PREFIX, work.organization_id)
    limit = work.wall_now + timedelta(minutes=provider.session_minutes)
    await logins.insert_code(
        work.connection,
        LoginCode(
            work.organization_id,
            digest(code),
            provider.provider_id,
            member.user_id,
            facts.aal,
            facts.authenticated_at,
            min(limit, facts.session_ends_at or limit),
            facts.challenge,
            work.wall_now + timedelta(seconds=CODE_SECONDS),
        ),
    )
    return code


async def create_sso_session(writer: Store, code: str, verifier: str) -> tuple[str, SsoSession]:
    """The session that a code stands for, and its token, which is shown this once. Raises Unauthenticated."""
    organization_id = organization_of(CODE_PREFIX, code)
    if organization_id is None:
        raise _bad_code()
    async with writer.read(organization_id) as connection:
        held = await logins.find_code(connection, digest(code))
    if held is None or not answers(verifier, held.challenge):
        raise _bad_code()
    actor = replace(current(), actor=f"user:{held.user_id}", responsible_person=held.user_id)
    async with writer.begin(organization_id, actor) as work:
        return await _create(work, digest(code))


async def _create(work: UnitOfWork, code_sha256: bytes) -> tuple[str, SsoSession]:
    taken = await logins.take_code(work.connection, code_sha256, work.wall_now)
    provider = await store.find_provider(work.connection, taken.provider_id, lock=True) if taken else None
    member = (
        await members_store.find_member_of_user(work.connection, work.organization_id, taken.user_id) if taken else None
    )
    if taken is None or provider is None or provider.state is not ProviderState.ACTIVE:
        raise _bad_code()
    if member is None or member.state != "ACTIVE":
        raise _bad_code()
    token = new_token(SESSION_PREFIX, work.organization_id)
    session = SsoSession(
        work.organization_id,
        uuid7(),
        digest(token),
        taken.provider_id,
        taken.user_id,
        taken.aal,
        taken.authenticated_at,
        taken.session_ends_at,
        None,
    )
    await logins.insert_session(work.connection, session)
    facts = {"provider_id": str(taken.provider_id), "user_id": str(taken.user_id), "aal": str(taken.aal)}
    after = {**facts, "expires_at": session.expires_at.isoformat()}
    work.emit("identity.session.create", f"sessions/{session.session_id}", {"before": {}, "after": after})
    return token, session


def _bad_code() -> Unauthenticated:
    return Unauthenticated(
        Reason.ERROR_REASON_LOGIN_CODE_INVALID, "The sign-in's code isn't good (any more). Sign in again."
    )


async def find_sso_principal(reader: Store, token: str, wall_seconds: float) -> Principal:
    """Who a session token stands for, from its row. Raises Unauthenticated."""
    organization_id = organization_of(SESSION_PREFIX, token)
    if organization_id is None:
        raise _refused(Reason.ERROR_REASON_CREDENTIAL_INVALID, "The session can't be accepted. Sign in again.")
    async with reader.read(organization_id) as connection:
        session = await logins.find_session(connection, digest(token))
        provider = await store.find_provider(connection, session.provider_id) if session else None
    if session is None or provider is None:
        raise _refused(Reason.ERROR_REASON_CREDENTIAL_INVALID, "The session can't be accepted. Sign in again.")
    if session.ended_at is not None or provider.state is not ProviderState.ACTIVE:
        raise _refused(Reason.ERROR_REASON_CREDENTIAL_REVOKED, "The session was ended. Sign in again.")
    if session.expires_at.timestamp() <= wall_seconds:
        raise _refused(Reason.ERROR_REASON_CREDENTIAL_EXPIRED, "The session has expired. Sign in again.")
    return Principal(
        actor=f"user:{session.user_id}",
        user_id=session.user_id,
        session_id=str(session.session_id),
        kind=Kind.HUMAN,
        aal=session.aal,
        auth_time=int(session.authenticated_at.timestamp()),
        ends_at=int(session.expires_at.timestamp()),
        organization_id=organization_id,
        provider_id=session.provider_id,
    )


def _refused(reason: Reason.ValueType, message: str) -> Unauthenticated:
    return Unauthenticated(reason, message)


async def end_sso_sessions(work: UnitOfWork, member: Member) -> int:
    """An ending: a member's sessions are over for good, and no code becomes another one."""
    return await _end_sessions_of(work, [member.user_id])


async def end_domain_sessions(work: UnitOfWork, name: str) -> int:
    """The same for all members whose address is in a domain."""
    return await _end_sessions_of(work, await logins.users_of_domain(work.connection, name))


async def _end_sessions_of(work: UnitOfWork, user_ids: Sequence[UUID]) -> int:
    await logins.delete_codes(work.connection, user_ids)
    ended = await logins.end_sessions(work.connection, work.wall_now, user_ids=user_ids)
    await revoke_sessions(work, ended)
    return len(ended)


async def revoke_sessions(work: UnitOfWork, session_ids: Sequence[UUID]) -> None:
    """Void every passport of these sessions, in every process."""
    keys = [str(session_id) for session_id in session_ids]
    await insert_revocations(work.connection, RevocationKind.SESSION.name, keys, work.wall_now)
