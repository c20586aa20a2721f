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
    token, text = await made.create(made.wanted(account=found.service_account_id), SECOND)
    passport = await made.verified(await made.passport(text))
    assert (passport.actor, passport.kind) == (f"service:{found.service_account_id}", Kind.MACHINE)
    assert (passport.responsible_person, passport.rests_on) == (SECOND, (f"user:{SECOND}",))
    assert passport.session_id == str(token.token_id)
    (event,) = await made.made.events("identity.service_account.create")
    assert event["metadata"]["after"] == {"owner_user_id": str(SECOND), "state": "ACTIVE"}


async def test_only_who_answers_for_it_makes_its_tokens(made: Desk) -> None:
    """Whoever knows the text of another's could approve what they asked for themself."""
    found = await account(made, SECOND)
    wanted = made.wanted(account=found.service_account_id)
    with pytest.raises(Denied, match="Only who answers for a service account"):
        await made.create(wanted, ADMIN)
    with pytest.raises(NotFound):
        await made.create(wanted, CLERK)
    with pytest.raises(NotFound):
        await made.create(made.wanted(account=uuid4()))
    token, text = await made.create(wanted, SECOND)
    for user, refusal in ((ADMIN, Denied), (CLERK, NotFound)):
        with pytest.raises(refusal):
            await made.decide(user, lambda work: tokens.rotate_token(work, TABLE, token.token_id, 1, None, new_text()))
    new = new_text()
    await made.decide(SECOND, lambda work: tokens.rotate_token(work, TABLE, token.token_id, 1, None, new))
    assert await made.held(new) == await made.held(text) == {READ_FINDINGS}


async def test_its_token_is_narrowed_with_its_owner(made: Desk) -> None:
    await set_role(made, CLERK, Role.FINOPS)
    found = await account(made, CLERK)
    wanted = made.wanted(READ_FINDINGS, START_SCAN, account=found.service_account_id)
    _, text = await made.create(wanted, CLERK)
    before = await made.passport(text)
    assert (await made.verified(before)).permissions == {READ_FINDINGS, START_SCAN}
    await set_role(made, CLERK, Role.VIEWER)
    with pytest.raises(Unauthenticated):
        await made.verified(before)
    assert await made.held(text) == {READ_FINDINGS}


async def test_handed_over_its_old_owners_tokens_end(made: Desk) -> None:
    found = await account(made, SECOND)
    wanted = made.wanted(account=found.service_account_id)
    _, text = await made.create(wanted, SECOND)
    before = await made.passport(text)
    with pytest.raises(Conflict):
        await give(made, found, CLERK, etag="stale")
    with pytest.raises(Invalid, match="owner_user_id"):
        await give(made, found, GLOBAL_ADMIN)
    await made.verified(before)
    found = await give(made, found, CLERK)
    with pytest.raises(Unauthenticated):
        await made.verified(before)
    assert await reason(made, text) == "CREDENTIAL_REVOKED"
    (event,) = await made.made.events("identity.service_account.update")
    assert event["metadata"]["before"]["owner_user_id"] == str(SECOND)
    assert event["metadata"]["after"]["owner_user_id"] == str(CLERK)
    (ended,) = await made.made.events("identity.token.revoke")
    assert ended["metadata"]["reason"] == "handed over"
    _, text = await made.create(wanted, CLERK)
    assert (await made.verified(await made.passport(text))).responsible_person == CLERK
    # Not even a row that says otherwise lets somebody act in another's name.
    superuser = await made.made.database.superuser()
    await superuser.execute("SET session_replication_role = replica")
    await superuser.execute("UPDATE identity.api_tokens SET state = 'ACTIVE', creator_user_id = $1", SECOND)
    await superuser.close()
    assert await reason(made, text) == "CREDENTIAL_REVOKED"


async def test_its_tokens_end_with_its_owners_membership(made: Desk) -> None:
    found = await account(made, SECOND)
    wanted = made.wanted(account=found.service_account_id)
    _, text = await made.create(wanted, SECOND)
    before = await made.passport(text)
    member = await made.made.member(SECOND)
    await made.decide(ADMIN, lambda work: endings.end_membership(work, member, "left"))
    with pytest.raises(Unauthenticated):
        await made.verified(before)
    assert await reason(made, text) == "CREDENTIAL_REVOKED"
    # It is there for another one.
    await made.decide(
        ADMIN,
        lambda work: service_accounts.update_service_account(work, found.service_account_id, "", CLERK, found.etag),
    )
    _, text = await made.create(wanted, CLERK)
    assert await made.held(text) == {READ_FINDINGS}


async def test_disabled_it_is_over_with_all_its_tokens(made: Desk) -> None:
    found = await account(made, SECOND)
    texts = [(await made.create(made.wanted(account=found.service_account_id), SECOND))[1] for _ in range(2)]
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
        await made.create(made.wanted(account=found.service_account_id), SECOND)


async def test_there_are_only_so_many(made: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_accounts, "MAX_SERVICE_ACCOUNTS", 1)
    await account(made, ADMIN)
    with pytest.raises(Exhausted):
        await account(made, ADMIN)
