"""Service accounts: machines that a member answers for; their tokens hold what both creator and owner do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from services._mesh.errors import Conflict, Denied, Exhausted, Invalid, NotFound, Problem, Unauthenticated, WrongState
from services._mesh.passports import Kind
from services.identity.model.api_tokens import ServiceAccount, new_text
from services.identity.model.membership import Role
from services.identity.usecases import endings, members, service_accounts, tokens
from tests.support.identity import ADMIN, CLERK, GLOBAL_ADMIN, SECOND, registry
from tests.support.postgres import TestDatabase
from tests.support.tokens import READ_FINDINGS, TABLE, Desk, desk

pytestmark = pytest.mark.services("identity")
START_SCAN = "scanner.scan.start"


@pytest.fixture
async def made(database: TestDatabase, tmp_path: Path) -> AsyncIterator[Desk]:
    async with registry(database) as found:
        yield desk(found, tmp_path)


async def account(made: Desk, owner: UUID) -> ServiceAccount:
    return await made.decide(
        ADMIN,
        lambda work: service_accounts.create_service_account(work, "nightly", owner),
        action="identity.service_account.create",
    )


async def give(made: Desk, found: ServiceAccount, owner: UUID, etag: str = "") -> ServiceAccount:
    changed = await made.decide(
        SECOND,
        lambda work: service_accounts.update_service_account(
            work, found.service_account_id, "", owner, etag or found.etag
        ),
        action="identity.service_account.update",
    )
    made.made.clock.wall_ahead += timedelta(seconds=1)
    return changed


async def set_role(made: Desk, user: UUID, role: Role) -> None:
    member = await made.made.member(user)
    await made.decide(SECOND, lambda work: members.update_member(work, member.member_id, role, member.etag))
    made.made.clock.wall_ahead += timedelta(seconds=1)


async def reason(made: Desk, text: str) -> str:
    with pytest.raises(Problem) as caught:
        await made.passport(text)
    return caught.value.reason_name


async def test_it_acts_as_a_machine_that_its_owner_answers_for(made: Desk) -> None:
    found = await account(made, SECOND)
    token, text = await made.create(made.wanted(account=found.service_account_id))
    passport = await made.verified(await made.passport(text))
    assert (passport.actor, passport.kind) == (f"service:{found.service_account_id}", Kind.MACHINE)
    assert passport.responsible_person == SECOND
    assert passport.rests_on == (f"user:{SECOND}", f"user:{ADMIN}", passport.actor)
    assert passport.session_id == str(token.token_id)
    (event,) = await made.made.events("identity.service_account.create")
    assert event["metadata"]["after"] == {"owner_user_id": str(SECOND), "state": "ACTIVE"}


async def test_its_token_holds_what_both_its_creator_and_its_owner_do(made: Desk) -> None:
    await set_role(made, CLERK, Role.FINOPS)
    found = await account(made, CLERK)
    with pytest.raises(Denied) as caught:
        await made.create(made.wanted("identity.member.read", account=found.service_account_id))
    assert caught.value.metadata == {"permission": "identity.member.read", "holder": "owner"}
    _, text = await made.create(made.wanted(READ_FINDINGS, START_SCAN, account=found.service_account_id))
    assert await made.held(text) == {READ_FINDINGS, START_SCAN}
    # Each of the two who is narrowed narrows it, and voids what was given before.
    for user, back in ((CLERK, Role.FINOPS), (ADMIN, Role.ADMIN)):
        before = await made.passport(text)
        await made.verified(before)
        await set_role(made, user, Role.VIEWER)
        with pytest.raises(Unauthenticated):
            await made.verified(before)
        assert await made.held(text) == {READ_FINDINGS}
        await set_role(made, user, back)
    assert await made.held(text) == {READ_FINDINGS, START_SCAN}


async def test_a_new_owner_answers_for_it_at_once(made: Desk) -> None:
    found = await account(made, SECOND)
    _, text = await made.create(made.wanted(READ_FINDINGS, START_SCAN, account=found.service_account_id))
    before = await made.passport(text)
    with pytest.raises(Conflict):
        await give(made, found, CLERK, etag="stale")
    with pytest.raises(Invalid, match="owner_user_id"):
        await give(made, found, GLOBAL_ADMIN)
    await give(made, found, CLERK)
    with pytest.raises(Unauthenticated):
        await made.verified(before)
    after = await made.verified(await made.passport(text))
    assert (after.responsible_person, after.permissions) == (CLERK, {READ_FINDINGS})
    (event,) = await made.made.events("identity.service_account.update")
    assert event["metadata"]["before"]["owner_user_id"] == str(SECOND)
    assert event["metadata"]["after"]["owner_user_id"] == str(CLERK)


@pytest.mark.parametrize("leaving", [SECOND, ADMIN], ids=["owner", "creator"])
async def test_its_tokens_end_with_the_membership_of_either(made: Desk, leaving: UUID) -> None:
    await set_role(made, CLERK, Role.ADMIN)
    found = await account(made, SECOND)
    _, text = await made.create(made.wanted(account=found.service_account_id))
    before = await made.passport(text)
    member = await made.made.member(leaving)
    await made.decide(CLERK, lambda work: endings.end_membership(work, member, "left"))
    with pytest.raises(Unauthenticated):
        await made.verified(before)
    assert await reason(made, text) == "CREDENTIAL_REVOKED"
    if leaving == SECOND:
        with pytest.raises(Invalid, match="owner_user_id"):
            await made.create(made.wanted(account=found.service_account_id))
    another = await made.decide(
        CLERK,
        lambda work: service_accounts.update_service_account(work, found.service_account_id, "", CLERK, found.etag),
    )
    made.made.clock.wall_ahead += timedelta(seconds=1)
    _, text = await made.create(made.wanted(account=another.service_account_id), CLERK)
    assert await made.held(text) == {READ_FINDINGS}


async def test_disabled_it_is_over_with_all_its_tokens(made: Desk) -> None:
    found = await account(made, SECOND)
    texts = [(await made.create(made.wanted(account=found.service_account_id)))[1] for _ in range(2)]
    before = [await made.passport(text) for text in texts]
    await made.decide(
        ADMIN,
        lambda work: service_accounts.disable_service_account(work, found.service_account_id),
        action="identity.service_account.disable",
    )
    for signed, text in zip(before, texts, strict=True):
        with pytest.raises(Unauthenticated):
            await made.verified(signed)
        assert await reason(made, text) == "CREDENTIAL_REVOKED"
    assert len(await made.made.events("identity.token.revoke")) == 2
    with pytest.raises(WrongState):
        await made.create(made.wanted(account=found.service_account_id))


async def test_its_owner_makes_and_rotates_its_tokens_and_nobody_else_without_the_right(made: Desk) -> None:
    found = await account(made, CLERK)
    token, text = await made.create(made.wanted(account=found.service_account_id), CLERK)
    new = new_text()
    await made.decide(CLERK, lambda work: tokens.rotate_token(work, TABLE, token.token_id, 1, None, new))
    assert await made.held(new) == await made.held(text) == {READ_FINDINGS}
    # An Admin may too; the successor is theirs.
    _, admins = await made.create(made.wanted(account=found.service_account_id), SECOND)
    assert (await made.verified(await made.passport(admins))).rests_on[:2] == (f"user:{CLERK}", f"user:{SECOND}")
    others = await account(made, SECOND)
    with pytest.raises(NotFound):
        await made.create(made.wanted(account=others.service_account_id), CLERK)
    with pytest.raises(NotFound):
        await made.create(made.wanted(account=uuid4()))
    foreign, _ = await made.create(made.wanted(account=others.service_account_id), SECOND)
    for decide in (
        lambda work: tokens.rotate_token(work, TABLE, foreign.token_id, 1, None, new_text()),
        lambda work: tokens.revoke_token(work, foreign.token_id),
    ):
        with pytest.raises(NotFound):
            await made.decide(CLERK, decide)


async def test_there_are_only_so_many(made: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_accounts, "MAX_SERVICE_ACCOUNTS", 1)
    await account(made, ADMIN)
    with pytest.raises(Exhausted):
        await account(made, ADMIN)
