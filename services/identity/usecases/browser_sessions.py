"""Browser sessions: made of a sign-in, ended with it, by their owner, or with the membership."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from services._mesh.context import current
from services._mesh.errors import Denied, NotFound, Reason
from services._mesh.ids import uuid7
from services._mesh.passports import Passport
from services._mesh.revocations import RevocationKind
from services._mesh.uow import Store, UnitOfWork
from services.identity.model.browser_sessions import LIFETIME, PREFIX, BrowserSession, Shown, read_key
from services.identity.model.membership import Member, own_user_id
from services.identity.model.sso_logins import SsoSession
from services.identity.model.sso_tokens import digest, new_token
from services.identity.store import browser_sessions as store
from services.identity.store import members as members_store
from services.identity.store import sso_logins as logins
from services.identity.store.revocations import insert_revocations


async def create_browser_session(work: UnitOfWork) -> tuple[str, Shown]:
    """A session of the sign-in that the call shows, and its cookie's text, which is nowhere else.

    Raises Denied (SIGN_IN_NEEDED) where the call shows a browser session: none outlives its time by making another.
    """
    passport, user_id = _passport(), own_user_id(current().actor)
    if passport.browser:
        raise Denied(
            Reason.ERROR_REASON_SIGN_IN_NEEDED,
            "A browser session is made of a sign-in, and not of another browser session. Sign in, and show that token.",
        )
    member = await members_store.find_member_of_user(work.connection, work.organization_id, user_id)
    if member is None or member.state != "ACTIVE":
        raise NotFound("member")
    replaced = await store.end_sessions(work.connection, user_id, work.wall_now, login_id=passport.session_id)
    await _revoke(work, [each.key for each in replaced])
    made, token = await _make(work, passport, user_id)
    about = {
        "user_id": str(user_id),
        "aal": str(made.aal),
        "expires_at": made.expires_at.isoformat(),
        "replaced": [str(each.session_id) for each in replaced],
    }
    work.emit("identity.browser_session.create", _target(made.session_id), {"before": {}, "after": about})
    return token, Shown(made, made.created_at, False, False, True)


async def _make(work: UnitOfWork, passport: Passport, user_id: UUID) -> tuple[BrowserSession, str]:
    token = new_token(PREFIX, work.organization_id)
    made_here = await _sso_session(work, passport.session_id)
    latest = work.wall_now + LIFETIME
    made = BrowserSession(
        work.organization_id,
        uuid7(),
        digest(token),
        user_id,
        passport.session_id,
        made_here.provider_id if made_here else None,
        passport.aal,
        datetime.fromtimestamp(passport.auth_time, UTC),
        work.wall_now,
        min(latest, made_here.expires_at) if made_here else latest,
    )
    await store.insert_session(work.connection, made)
    return made, token


async def _sso_session(work: UnitOfWork, session_id: str) -> SsoSession | None:
    """The session of ours by single sign-on, if the sign-in is one; another issuer's isn't among them."""
    try:
        return await logins.find_session_by_id(work.connection, UUID(session_id))
    except ValueError:
        return None


async def list_browser_sessions(reader: Store, wall_now: datetime) -> list[Shown]:
    """The caller's own that were made in the organization and are alive, the newest first."""
    async with reader.read() as connection:
        return await store.list_sessions(connection, own_user_id(current().actor), wall_now)


async def get_my_browser_session(reader: Store, wall_now: datetime) -> Shown:
    """The one that the call shows. Raises NotFound where it shows another credential."""
    organization_id, session_id = shown_session()
    async with reader.read(organization_id) as connection:
        return await store.get_session(connection, session_id, own_user_id(current().actor), wall_now)


async def end_browser_session(work: UnitOfWork, session_id: UUID) -> bool:
    """End one of the caller's own, with its sign-in; whether the call showed it. Raises NotFound."""
    user_id = own_user_id(current().actor)
    ended = await store.end_sessions(work.connection, user_id, work.wall_now, session_id=session_id)
    if not ended:
        raise NotFound("browser_session")
    await _revoke(work, [*(each.key for each in ended), *(each.login_id for each in ended)])
    about = {"before": {"state": "ACTIVE"}, "after": {"state": "ENDED"}, "user_id": str(user_id)}
    work.emit("identity.browser_session.end", _target(session_id), about)
    return _passport().browser == ended[0].key


async def end_browser_sessions(work: UnitOfWork, member: Member) -> int:
    """An ending (see `endings`): what the member made here is over, for every organization."""
    ended = await store.end_sessions(work.connection, member.user_id, work.wall_now)
    await _revoke(work, [each.key for each in ended])
    return len(ended)


def shown_session() -> tuple[UUID, UUID]:
    """Organization and id of the browser session that the call shows. Raises NotFound where it shows none."""
    try:
        return read_key(_passport().browser)
    except ValueError:
        raise NotFound("browser_session") from None


def _passport() -> Passport:
    found = current().passport
    if found is None:
        raise NotFound("browser_session")
    return found


async def _revoke(work: UnitOfWork, keys: Sequence[str]) -> None:
    """Void every passport of these, in every process."""
    await insert_revocations(work.connection, RevocationKind.SESSION.name, keys, work.wall_now)


def _target(session_id: UUID) -> str:
    return f"browserSessions/{session_id}"
