"""API tokens: never wider than who made them, narrowed and ended with them, shown once, found by their digest alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from recoup.identity.v1 import token_service_pb2 as pb
from services._mesh.context import entered
from services._mesh.errors import Denied, Exhausted, Invalid, NotFound, Problem, Unauthenticated, WrongState
from services._mesh.pages import PageTokens
from services._mesh.passports import Kind
from services._mesh.resource_limits import ResourceLimits
from services._mesh.times import stamp
from services.identity.model import api_tokens
from services.identity.model.api_tokens import new_text
from services.identity.model.membership import Role
from services.identity.rpc.tokens import TokenRpc
from services.identity.store import tokens as store
from services.identity.usecases import endings, members, tokens
from services.identity.usecases.roles import Assignment, assign_role
from tests.support.identity import ADMIN, CLERK, GLOBAL_ADMIN, SECOND, registry
from tests.support.postgres import TestDatabase
from tests.support.things import ACME, GLOBEX, context
from tests.support.tokens import READ_FINDINGS, READ_MEMBERS, TABLE, Desk, desk

pytestmark = pytest.mark.services("identity")
START_SCAN = "scanner.scan.start"


@pytest.fixture
async def made(database: TestDatabase, tmp_path: Path) -> AsyncIterator[Desk]:
    async with registry(database) as found:
        yield desk(found, tmp_path)


async def refused(made: Desk, text: str, organization: UUID | None = ACME) -> str:
    with pytest.raises(Problem) as caught:
        await made.passport(text, organization)
    assert isinstance(caught.value, Unauthenticated | NotFound)
    return caught.value.reason_name


async def set_role(made: Desk, user: UUID, role: Role) -> None:
    member = await made.made.member(user)
    await made.decide(
        ADMIN,
        lambda work: members.update_member(work, member.member_id, role, member.etag),
        action="identity.member.update",
    )
    # A passport of the second in which something was revoked counts as older.
    made.made.clock.wall_ahead += timedelta(seconds=1)


async def test_a_token_opens_its_one_organization_for_what_it_was_made_for(made: Desk) -> None:
    token, text = await made.create(made.wanted(READ_FINDINGS, READ_MEMBERS))
    passport = await made.verified(await made.passport(text))
    assert (passport.actor, passport.kind, passport.aal) == (f"token:{token.token_id}", Kind.MACHINE, 1)
    assert (passport.responsible_person, passport.rests_on) == (ADMIN, (f"user:{ADMIN}",))
    assert (passport.organization_id, passport.session_id) == (ACME, str(token.token_id))
    assert passport.permissions == {READ_FINDINGS}
    # Whoever names no organization gets the one that it is bound to; any other one isn't there.
    assert (await made.verified(await made.passport(text, None))).organization_id == ACME
    assert await refused(made, text, GLOBEX) == "RESOURCE_NOT_FOUND"
    (event,) = await made.made.events("identity.token.create")
    assert event["metadata"]["after"]["permissions"] == [READ_MEMBERS, READ_FINDINGS]


async def test_no_exchange_goes_beyond_what_it_was_made_for(made: Desk) -> None:
    _, narrow = await made.create(made.wanted(READ_FINDINGS))
    _, wide = await made.create(made.wanted(READ_FINDINGS, "pricing.bill.read"))
    signed = {text: await made.passport(text) for text in (narrow, wide)}
    for text, held in ((narrow, frozenset()), (wide, {"pricing.bill.read"})):
        exchanged = await made.exchanged(signed[text], "pricing")
        made.scanner._audience = "pricing"
        assert made.scanner.verify(exchanged, "scanner").permissions == held
        made.scanner._audience = "scanner"


async def test_it_keeps_to_the_connections_that_it_was_made_for(made: Desk) -> None:
    one, two, three = (UUID(int=number) for number in (1, 2, 3))
    _, text = await made.create(replace(made.wanted(), connection_ids=frozenset({one, two})), SECOND)
    assert (await made.verified(await made.passport(text))).limits == ResourceLimits((one, two))
    # Its creator is limited later: it keeps to what is left of both, also when it is exchanged for another passport.
    creator = await made.made.member(SECOND)
    given = Assignment(creator.member_id, Role.FINOPS, None, ResourceLimits((two, three)), creator.etag)
    await made.decide(ADMIN, lambda work: assign_role(work, TABLE, given), action="identity.role.assign")
    made.made.clock.wall_ahead += timedelta(seconds=1)
    signed = await made.passport(text)
    assert (await made.verified(signed)).limits == ResourceLimits((two,))
    made.scanner._audience = "pricing"
    assert made.scanner.verify(await made.exchanged(signed, "pricing"), "scanner").limits == ResourceLimits((two,))


async def test_a_token_wider_than_its_creator_is_refused(made: Desk) -> None:
    with pytest.raises(Denied) as caught:
        await made.create(made.wanted(READ_FINDINGS, START_SCAN), CLERK)
    assert caught.value.metadata == {"permission": START_SCAN}
    with pytest.raises(Invalid, match=r"there is no permission 'scanner\.everything'"):
        await made.create(made.wanted("scanner.everything"))
    # API tokens never approve, and never change who may do what.
    for for_people in ("actions.action.approve", "identity.member.update", "audit.erasure.request"):
        with pytest.raises(Invalid, match="for people alone"):
            await made.create(made.wanted(for_people))
    assert await made.made.rows("SELECT 1 FROM identity.api_tokens") == []


@pytest.mark.parametrize("days", [-1, 0, 366])
async def test_a_token_ends_within_a_year(made: Desk, days: int) -> None:
    with pytest.raises(Invalid, match="at most 365 days"):
        await made.create(made.wanted(days=days))


async def test_an_expired_token_opens_nothing(made: Desk) -> None:
    _, text = await made.create(made.wanted(days=365))
    # By the wall clock: the injected one may be years ahead.
    made.made.clock.ahead = timedelta(days=4000)
    signed = await made.passport(text)
    made.made.clock.wall_ahead = timedelta(days=365) - timedelta(seconds=60)
    late = await made.verified(await made.passport(text))
    assert late.expires_at - late.issued_at <= 61
    made.made.clock.wall_ahead = timedelta(days=365, seconds=1)
    assert await refused(made, text) == "CREDENTIAL_EXPIRED"
    with pytest.raises(Unauthenticated):
        await made.verified(signed)


async def test_it_is_narrowed_when_its_creator_is(made: Desk) -> None:
    _, text = await made.create(made.wanted(READ_FINDINGS, START_SCAN), SECOND)
    before = await made.passport(text)
    assert (await made.verified(before)).permissions == {READ_FINDINGS, START_SCAN}
    await set_role(made, SECOND, Role.VIEWER)
    with pytest.raises(Unauthenticated) as caught:
        await made.verified(before)
    assert caught.value.reason_name == "CREDENTIAL_REVOKED"
    assert await made.held(text) == {READ_FINDINGS}
    # And is as wide again as it was made, never wider, when they are.
    await set_role(made, SECOND, Role.ADMIN)
    assert await made.held(text) == {READ_FINDINGS, START_SCAN}


async def test_it_ends_with_its_creators_membership(made: Desk) -> None:
    token, text = await made.create(made.wanted(), CLERK)
    _, another = await made.create(made.wanted(), SECOND)
    before = await made.passport(text)
    clerk = await made.made.member(CLERK)
    await made.decide(ADMIN, lambda work: endings.end_membership(work, clerk, "left"), action="identity.member.remove")
    with pytest.raises(Unauthenticated):
        await made.verified(before)
    assert await refused(made, text) == "CREDENTIAL_REVOKED"
    (event,) = await made.made.events("identity.token.revoke")
    assert (event["target"], event["metadata"]["reason"]) == (f"tokens/{token.token_id}", "membership ended")
    (ended,) = await made.made.events("identity.member.remove")
    assert ended["metadata"]["ended"]["tokens"] == "1"
    # Who comes back doesn't bring it back.
    await made.decide(ADMIN, lambda work: members.add_member(work, CLERK, "cleo@acme.example", Role.ADMIN))
    assert await refused(made, text) == "CREDENTIAL_REVOKED"
    assert await made.held(another) == {READ_FINDINGS}


async def test_a_revoked_token_ends_at_once_everywhere(made: Desk) -> None:
    token, text = await made.create(made.wanted())
    before = await made.passport(text)
    for stranger in (CLERK, GLOBAL_ADMIN):
        organization = GLOBEX if stranger == GLOBAL_ADMIN else ACME
        with pytest.raises(NotFound):
            await made.decide(stranger, lambda work: tokens.revoke_token(work, token.token_id), organization)
    assert (await made.verified(before)).actor == f"token:{token.token_id}"
    # Another Admin may.
    await made.decide(SECOND, lambda work: tokens.revoke_token(work, token.token_id), action="identity.token.revoke")
    with pytest.raises(Unauthenticated) as caught:
        await made.verified(before)
    assert caught.value.reason_name == "CREDENTIAL_REVOKED"
    assert await refused(made, text) == "CREDENTIAL_REVOKED"
    with pytest.raises(WrongState, match="revoked already"):
        await made.decide(ADMIN, lambda work: tokens.revoke_token(work, token.token_id))


async def test_who_doesnt_see_others_tokens_lists_their_own(made: Desk) -> None:
    mine, _ = await made.create(made.wanted(), CLERK)
    other, _ = await made.create(made.wanted(), ADMIN)
    for user, seen in ((CLERK, [mine]), (ADMIN, [mine, other])):
        passport = await made.session(user)
        with entered(context(ACME, actor=f"user:{user}", passport=passport)):
            found = await tokens.list_tokens(made.made.store, None, 10, None)
        assert [each.token_id for each in found] == [each.token_id for each in seen]


async def test_a_successor_takes_over_while_the_old_one_goes_on(made: Desk) -> None:
    token, text = await made.create(made.wanted(days=100))

    async def rotate(hours: int, user: UUID, token_id: UUID = token.token_id) -> str:
        new = new_text()
        await made.decide(
            user,
            lambda work: tokens.rotate_token(work, TABLE, token_id, hours, None, new),
            action="identity.token.rotate",
        )
        return new

    # Not even an Admin makes a token in somebody else's name.
    with pytest.raises(Denied, match="rotated by whoever made it"):
        await rotate(24, SECOND)
    successor = await rotate(24, ADMIN)
    assert await made.held(text) == await made.held(successor) == {READ_FINDINGS}
    with pytest.raises(WrongState, match="replaced"):
        await rotate(24, ADMIN)
    made.made.clock.wall_ahead = timedelta(hours=24, seconds=1)
    assert await refused(made, text) == "CREDENTIAL_EXPIRED"
    assert await made.held(successor) == {READ_FINDINGS}
    # Without an overlap the old one ends at once, with the passports that were given for it.
    async with made.made.store.read(ACME) as connection:
        found = await store.find_token_by_digest(connection, api_tokens.digest(successor))
    assert found is not None
    assert abs(found.expires_at - token.expires_at) < timedelta(minutes=5)
    before = await made.passport(successor)
    await rotate(0, ADMIN, found.token_id)
    with pytest.raises(Unauthenticated):
        await made.verified(before)
    assert await refused(made, successor) == "CREDENTIAL_REVOKED"


async def test_there_are_only_so_many(made: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_tokens, "MAX_TOKENS_OF_A_USER", 2)
    await made.create(made.wanted(days=1))
    await made.create(made.wanted())
    with pytest.raises(Exhausted):
        await made.create(made.wanted())
    await made.create(made.wanted(), CLERK)
    made.made.clock.wall_ahead = timedelta(days=1)
    await made.create(made.wanted())


async def test_its_last_use_is_noted_once_a_minute_and_is_no_state(made: Desk) -> None:
    token, text = await made.create(made.wanted())

    async def used() -> list[object]:
        rows = await made.made.rows("SELECT last_used_at FROM identity.api_token_uses")
        return [row["last_used_at"] for row in rows]

    assert await used() == []
    await made.passport(text)
    first = await used()
    # A second use doesn't even touch the row; of two at once, both of which would, one writes.
    versions = await made.made.rows("SELECT xmin::text, xmax::text FROM identity.api_token_uses")
    await made.passport(text, audience="pricing")
    assert await made.made.rows("SELECT xmin::text, xmax::text FROM identity.api_token_uses") == versions
    async with made.made.store.begin(ACME) as work:
        await store.put_use(work.connection, token, work.wall_now)
    assert await used() == first
    events = await made.made.rows("SELECT count(*) AS n FROM identity.outbox")
    made.made.clock.wall_ahead = timedelta(seconds=61)
    await made.passport(text)
    assert await used() > first
    assert await made.made.rows("SELECT count(*) AS n FROM identity.outbox") == events
    async with made.made.store.read(ACME) as connection:
        (listed,) = await store.list_tokens(connection, None, 10)
    assert (listed.token_id, listed.last_used_at) == (token.token_id, (await used())[0])


async def test_only_whoever_supplies_its_digest_sees_a_row(made: Desk) -> None:
    token, text = await made.create(made.wanted(), GLOBAL_ADMIN, GLOBEX)
    await made.create(made.wanted())
    nobody = UUID(int=9)
    async with made.made.store.read(nobody) as connection:
        assert await store.find_token_by_digest(connection, api_tokens.digest(new_text())) is None
        assert await store.list_tokens(connection, None, 10) == []
        found = await store.find_token_by_digest(connection, api_tokens.digest(text))
        assert found is not None
        assert found.token_id == token.token_id
        # With the digest supplied still nothing else shows.
        assert [each.token_id for each in await store.list_tokens(connection, None, 10)] == [token.token_id]
    async with made.made.store.read(nobody) as connection:  # The next transaction knows nothing of it.
        assert await store.list_tokens(connection, None, 10) == []


async def test_its_text_is_shown_once_and_is_nowhere_else(
    made: Desk, caplog: pytest.LogCaptureFixture, database: TestDatabase
) -> None:
    caplog.set_level(0)
    rpc = TokenRpc(made.made.store, made.made.clock, PageTokens(b"x" * 32), TABLE)
    wanted = made.wanted()
    request = pb.CreateTokenRequest(
        organization_id=str(ACME), display_name="ci", permissions=sorted(wanted.permissions),
        expires_at=stamp(wanted.expires_at), request_id=str(uuid4()),
    )  # fmt: skip
    call = context(
        ACME, "identity.token.create", request_id=request.request_id, actor=f"user:{ADMIN}", responsible_person=ADMIN,
        passport=await made.session(ADMIN),
    )  # fmt: skip
    with entered(call):
        first = await rpc.CreateToken(request, None)
        again = await rpc.CreateToken(request, None)
    assert (again.token, again.secret) == (first.token, "")
    assert await made.held(first.secret) == {READ_FINDINGS}
    with pytest.raises(Unauthenticated) as caught:
        await made.passport(first.secret[:-1] + ("0" if first.secret[-1] != "0" else "1"))
    body = first.secret.removeprefix("rcp_")[8:]
    assert body not in f"{caught.value!r} {caught.value.__context__!r} {caught.value.metadata} {caplog.text}"
    tables = await made.made.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'identity'")
    for table in tables:
        rows = await made.made.rows(f"SELECT t::text AS t FROM identity.{table['tablename']} AS t")
        for row in rows:
            assert body not in row["t"]
            assert body.encode().hex() not in row["t"]


async def test_made_up_tokens_are_refused_alike(made: Desk) -> None:
    for text in (new_text(), "rcp_", "rcp_" + "0" * 49, "rcp_" + "é" * 49, new_text() + "0"):
        assert await refused(made, text) == "CREDENTIAL_INVALID"
