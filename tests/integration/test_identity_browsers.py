"""Browser sessions: as good as the sign-in that they were made of, and over with it, idle, in time, or when told so."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from recoup.identity.v1 import browser_service_pb2 as pb
from services._mesh.context import entered
from services._mesh.errors import Denied, NotFound, Problem, Unauthenticated
from services._mesh.passports import Kind, Passport
from services.identity.model.browser_sessions import IDLE, LIFETIME, PREFIX, Shown
from services.identity.model.sso import ProviderState
from services.identity.model.sso_tokens import digest, new_token
from services.identity.rpc.browsers import BrowserRpc
from services.identity.usecases import browser_sessions as subject
from services.identity.usecases import endings, sso
from services.identity.usecases.passports import issue_passport
from tests.support import signing_in
from tests.support.identity import ADMIN, CLERK, SECOND, registry
from tests.support.postgres import TestDatabase
from tests.support.things import ACME, GLOBEX, context
from tests.support.tokens import Desk, desk

pytestmark = pytest.mark.services("identity")
CREATE, END = "identity.browser_session.create", "identity.browser_session.end"


@pytest.fixture
async def made(database: TestDatabase, tmp_path: Path) -> AsyncIterator[Desk]:
    async with registry(database) as found:
        yield desk(found, tmp_path)


async def create(
    made: Desk, user: UUID = ADMIN, organization: UUID = ACME, **facts: Any
) -> tuple[str, Shown, Passport]:
    """A browser session of a new sign-in, its cookie and the passport of the sign-in."""
    passport = replace(await made.session(user, organization), **facts)
    return *await again(made, passport), passport


async def again(made: Desk, passport: Passport) -> tuple[str, Shown]:
    """Another one of the same sign-in."""
    organization = passport.organization_id or ACME
    user = UUID(passport.actor.partition(":")[2])
    return await made.made.decide(subject.create_browser_session, user, organization, CREATE, passport=passport)


async def own(made: Desk, cookie: str, organization: UUID | None = None) -> Passport:
    """What identity itself makes of the cookie."""
    with entered(context(None, peer="gateway", peer_thumbprint="gateway")):
        return (await issue_passport(made.authority, cookie, "identity", organization))[1]


async def refused(made: Desk, cookie: str, organization: UUID | None = ACME) -> str:
    with pytest.raises(Problem) as caught:
        await made.passport(cookie, organization)
    assert isinstance(caught.value, Unauthenticated | NotFound)
    return caught.value.reason_name


async def test_it_opens_what_the_sign_in_opens_and_its_text_is_nowhere(made: Desk) -> None:
    cookie, shown, login = await create(made)
    passport = await made.verified(await made.passport(cookie))
    assert (passport.actor, passport.kind, passport.aal) == (f"user:{ADMIN}", Kind.HUMAN, 2)
    assert (passport.session_id, passport.browser) == (login.session_id, shown.session.key)
    assert (await own(made, cookie)).organization_id is None  # Which one is the path's to say, call by call.
    assert await refused(made, cookie, GLOBEX) == "RESOURCE_NOT_FOUND"
    exchanged = await made.exchanged(await made.passport(cookie), "pricing")
    made.scanner._audience = "pricing"
    made.scanner._parsed.clear()
    assert made.scanner.verify(exchanged, "scanner").browser == shown.session.key
    (row,) = await made.made.rows("SELECT token_sha256, t::text AS whole FROM identity.browser_sessions t")
    assert (row["token_sha256"], cookie[4:] in row["whole"]) == (digest(cookie), False)
    (event,) = await made.made.events(CREATE)
    assert event["metadata"]["after"]["user_id"] == str(ADMIN)
    assert cookie[4:] not in str(event)
    # Made up, of another organization, or changed in one place: nobody's.
    for other in (
        new_token(PREFIX, ACME),
        new_token(PREFIX, GLOBEX),
        cookie[:-1] + ("A" if cookie[-1] != "A" else "B"),
    ):
        assert await refused(made, other) == "CREDENTIAL_INVALID"
    assert await refused(made, PREFIX + new_token(PREFIX, GLOBEX)[4:26] + cookie[26:]) == "CREDENTIAL_INVALID"


async def test_it_is_over_when_nobody_uses_it_and_after_its_time(made: Desk) -> None:
    cookie, shown, _ = await create(made)
    clock = made.made.clock
    idle, _, _ = await create(made)
    for _ in range(int(LIFETIME / timedelta(minutes=20)) - 1):
        clock.wall_ahead += timedelta(minutes=20)
        # What was used just now isn't idle; a passport of it never lasts longer than it.
        passport = await own(made, cookie)
        assert passport.expires_at <= clock.wall_seconds() + 300
    assert await refused(made, idle) == "CREDENTIAL_EXPIRED"
    clock.wall_ahead += timedelta(minutes=17)
    left = shown.session.expires_at.timestamp() - clock.wall_seconds()
    assert (await own(made, cookie)).expires_at <= clock.wall_seconds() + left < clock.wall_seconds() + 300
    clock.wall_ahead += timedelta(minutes=4)
    assert await refused(made, cookie) == "CREDENTIAL_EXPIRED"
    with entered(context(ACME, actor=f"user:{ADMIN}")):
        assert await subject.list_browser_sessions(made.made.store, clock.wall_now()) == []


async def test_an_idle_one_ends_after_half_an_hour_and_not_before(made: Desk) -> None:
    cookie, _, _ = await create(made)
    made.made.clock.wall_ahead += IDLE - timedelta(seconds=30)
    await own(made, cookie)
    made.made.clock.wall_ahead += IDLE + timedelta(seconds=1)
    assert await refused(made, cookie) == "CREDENTIAL_EXPIRED"


async def test_signing_out_ends_it_and_its_sign_in_everywhere(made: Desk) -> None:
    cookie, shown, login = await create(made)
    before = await made.passport(cookie)
    await made.verified(before)
    rpc = BrowserRpc(made.made.store, made.made.clock)
    passport = await own(made, cookie)
    call = context(None, END, actor=passport.actor, responsible_person=ADMIN, passport=passport)
    with entered(call):
        found = await rpc.GetMyBrowserSession(pb.GetMyBrowserSessionRequest(), None)
        assert found.session.session_id == str(shown.session.session_id)
        answer = await rpc.EndMyBrowserSession(pb.EndMyBrowserSessionRequest(), None)
        assert (answer.HasField("cookie"), answer.cookie.value) == (True, "")
        with pytest.raises(NotFound):
            await rpc.EndMyBrowserSession(pb.EndMyBrowserSessionRequest(), None)
    assert await made.made.revoked() == [("SESSION", shown.session.key), ("SESSION", login.session_id)]
    with pytest.raises(Unauthenticated):
        await made.verified(before)
    assert await refused(made, cookie) == "CREDENTIAL_REVOKED"
    (event,) = await made.made.events(END)
    assert (event["metadata"]["after"], cookie[4:] in str(event)) == ({"state": "ENDED"}, False)
    with entered(replace(call, passport=login)), pytest.raises(NotFound):
        await rpc.GetMyBrowserSession(pb.GetMyBrowserSessionRequest(), None)


async def test_a_passport_of_it_ends_with_it_alone(made: Desk) -> None:
    """A second factor makes a new session of the same sign-in; the one before opens nothing, nor does its passport."""
    first, old, login = await create(made, aal=1)
    before = await made.passport(first)
    second, _ = await again(made, replace(login, aal=2))
    assert first != second
    with pytest.raises(Unauthenticated):
        await made.verified(before)
    assert await refused(made, first) == "CREDENTIAL_REVOKED"
    assert (await made.verified(await made.passport(second))).aal == 2
    assert await made.made.revoked() == [("SESSION", old.session.key)]
    assert (await made.made.events(CREATE))[1]["metadata"]["after"]["replaced"] == [str(old.session.session_id)]
    # It makes no other one, and so doesn't outlive its time.
    with pytest.raises(Denied) as caught:
        await again(made, await own(made, second, ACME))
    assert caught.value.reason_name == "SIGN_IN_NEEDED"
    # Its sign-in's end is its own.
    await made.made.decide(lambda work: subject._revoke(work, [login.session_id]), action="")
    await made.learn()
    assert await refused(made, second) == "CREDENTIAL_REVOKED"


async def test_only_its_owner_sees_and_ends_it(made: Desk) -> None:
    _, shown, _ = await create(made, SECOND)
    mine, own_shown, _ = await create(made)
    passport = await own(made, mine, ACME)
    facts: dict[str, Any] = {"passport": passport, "action": END}
    with pytest.raises(NotFound):
        await made.made.decide(lambda work: subject.end_browser_session(work, shown.session.session_id), ADMIN, **facts)
    with entered(context(ACME, actor=f"user:{ADMIN}")):
        found = await subject.list_browser_sessions(made.made.store, made.made.clock.wall_now())
    assert [each.session.session_id for each in found] == [own_shown.session.session_id]
    assert await made.made.decide(
        lambda work: subject.end_browser_session(work, own_shown.session.session_id), ADMIN, **facts
    )
    for actor in (f"token:{uuid4()}", f"service:{uuid4()}", f"operator:{ADMIN}"):
        with pytest.raises(NotFound):
            await made.made.decide(subject.create_browser_session, ADMIN, action=CREATE, actor=actor, passport=passport)


async def test_it_ends_with_the_membership_that_it_was_made_under(made: Desk) -> None:
    cookie, shown, _ = await create(made, CLERK)
    before = await made.passport(cookie)
    member = await made.made.member(CLERK)
    remove = "identity.member.remove"
    await made.made.decide(lambda work: endings.end_membership(work, member, "removed"), action=remove)
    assert ("SESSION", shown.session.key) in await made.made.revoked()
    assert await refused(made, cookie, None) == "CREDENTIAL_REVOKED"
    with pytest.raises(Unauthenticated):
        await made.verified(before)


async def test_one_of_single_sign_on_is_for_its_organization_and_ends_with_its_session(made: Desk) -> None:
    async with signing_in.desk(made.made) as idp:
        token, session = await idp.session()
        with entered(context(None, peer="gateway", peer_thumbprint="gateway")):
            _, login = await issue_passport(made.authority, token, "identity", ACME)
        cookie, shown = await again(made, login)
        assert shown.session.provider_id == idp.provider.provider_id
        assert shown.session.expires_at == session.expires_at  # Eight hours, and not twelve.
        assert (await own(made, cookie)).organization_id == ACME
        assert await refused(made, cookie, GLOBEX) == "RESOURCE_NOT_FOUND"
        before = await made.passport(cookie)
        await made.made.decide(lambda work: sso.disable_identity_provider(work, idp.provider.provider_id))
        assert (await idp.now()).state is ProviderState.DISABLED
        with pytest.raises(Unauthenticated):
            await made.verified(before)
        assert await refused(made, cookie) == "CREDENTIAL_REVOKED"
