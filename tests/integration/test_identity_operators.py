"""Operators in a customer's organization, and the way to a new installation's first Admin."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy import text

from services._mesh.clock import Clock
from services._mesh.context import entered
from services._mesh.errors import AlreadyExists, Conflict, Denied, NotFound, Problem, Unauthenticated, WrongState
from services._mesh.ids import PLATFORM
from services._mesh.uow import Store
from services.identity.model.membership import Member, Role
from services.identity.model.operators import OperatorAccess, state_at
from services.identity.store.members import find_member_of_user
from services.identity.usecases import installation, members, operators, organizations, ownership
from services.identity.usecases.organizations import NewOrganization
from tests.support.postgres import TestDatabase
from tests.support.things import ACME, GLOBEX, context, linked_passport

pytestmark = pytest.mark.services("identity")

ADMIN, OPERATOR, CLERK = UUID(int=0x71), UUID(int=0x81), UUID(int=0x72)
REASON = "the scan of account 1111 stands still"


class MovedClock(Clock):
    """A clock that tests move."""

    ahead = timedelta()

    def now(self) -> Any:
        return super().now() + self.ahead

    def wall_now(self) -> Any:
        return super().wall_now() + self.ahead


class Mesh:
    """Identity's store under its own role, and who asks."""

    def __init__(self, database: TestDatabase) -> None:
        self.database, self.clock = database, MovedClock()
        self._role = database.role("identity_api", 4)
        self.store = Store(self._role, "identity", self.clock)

    async def close(self) -> None:
        await self._role.close()

    async def by(self, person: UUID, decide: Any, organization: UUID = ACME) -> Any:
        """A decision as an RPC makes it."""
        call = context(organization, actor=f"user:{person}", responsible_person=person, role="ADMIN")
        with entered(call):
            async with self.store.begin(organization, call) as work:
                return await decide(work)

    async def request(self, hours: int = 4, organization: UUID = ACME) -> OperatorAccess:
        asked: OperatorAccess = await self.by(
            OPERATOR, lambda w: operators.request_operator_access(w, Role.VIEWER, REASON, hours), organization
        )
        return asked

    async def grant(self, access: OperatorAccess, by: UUID = ADMIN, hours: int = 0) -> OperatorAccess:
        granted: OperatorAccess = await self.by(
            by, lambda w: operators.grant_operator_access(w, access.access_id, hours)
        )
        return granted

    async def enter(self, organization: UUID = ACME, session: str = "s1") -> OperatorAccess | None:
        call = replace(context(ACME, actor="spiffe"), organization_id=None)
        with entered(call):
            return await operators.enter(self.store, organization, OPERATOR, session, "p1")

    async def events(self, prefix: str, organization: UUID = ACME) -> list[dict[str, Any]]:
        superuser = await self.database.superuser()
        rows = await superuser.fetch(
            "SELECT payload FROM identity.outbox WHERE organization_id = $1 AND action LIKE $2 ORDER BY counter",
            organization, prefix + "%",
        )  # fmt: skip
        await superuser.close()
        return [json.loads(row["payload"]) for row in rows]


@pytest.fixture
async def bare(database: TestDatabase) -> AsyncIterator[Mesh]:
    made = Mesh(database)
    yield made
    await made.close()


@pytest.fixture
async def mesh(bare: Mesh) -> Mesh:
    for organization, slug, admin in (
        (PLATFORM, "platform", OPERATOR),
        (ACME, "acme", ADMIN),
        (GLOBEX, "globex", ADMIN),
    ):
        people = ((admin, "a@x.example", Role.ADMIN),)
        await organizations.create_organization(
            bare.store, NewOrganization(organization, slug, slug, "UTC", "USD", people)
        )
    return bare


async def test_an_operator_is_let_in_by_the_customer_for_a_time_in_the_customers_log(mesh: Mesh) -> None:
    asked = await mesh.request(hours=4)
    assert (asked.state, await mesh.enter()) == ("REQUESTED", None)
    granted = await mesh.grant(asked, hours=2)
    assert granted.decided_at is not None
    assert granted.expires_at == granted.decided_at + timedelta(hours=2)
    entered_as = await mesh.enter()
    assert entered_as is not None
    assert (entered_as.role, entered_as.actor) == (Role.VIEWER, f"operator:{OPERATOR}")
    await mesh.enter()  # The same session again says nothing new.
    await mesh.enter(session="s2")
    assert await mesh.enter(GLOBEX) is None
    mesh.clock.ahead = timedelta(hours=2, seconds=1)
    assert await mesh.enter(session="s3") is None
    assert state_at(granted, mesh.clock.now()) == "EXPIRED"
    told = await mesh.events("identity.operatoraccess.")
    assert [e["action"].rpartition(".")[2] for e in told] == ["request", "grant", "enter", "enter"]
    assert [(e["actor"], e["authority"]) for e in told[2:]] == [(f"operator:{OPERATOR}", "passport:p1")] * 2
    assert told[0]["metadata"]["reason"] == REASON
    assert await mesh.events("identity.operatoraccess.", GLOBEX) == []
    assert await mesh.events("identity.operatoraccess.", PLATFORM) == []


async def test_revoked_access_ends_at_once_and_for_every_process(mesh: Mesh) -> None:
    granted = await mesh.grant(await mesh.request())
    assert await mesh.enter() is not None
    await mesh.by(ADMIN, lambda w: operators.revoke_operator_access(w, granted.access_id))
    assert await mesh.enter(session="s2") is None
    superuser = await mesh.database.superuser()
    found = await superuser.fetchval("SELECT key FROM identity.revocations WHERE kind = 'MEMBER'")
    await superuser.close()
    assert found == f"{ACME}/operator:{OPERATOR}"
    with pytest.raises(WrongState):
        await mesh.grant(granted)


async def test_who_left_the_platform_has_no_access_whatever_was_granted(mesh: Mesh) -> None:
    await mesh.grant(await mesh.request())

    async def leave(work: Any) -> None:
        heir = await members.add_member(work, ADMIN, "b@x.example", Role.ADMIN)
        await ownership.reassign_ownership(work, heir.member_id, "the owner goes")
        gone: Member | None = await find_member_of_user(work.connection, PLATFORM, OPERATOR)
        assert gone is not None
        await members.remove_member(work, gone.member_id)

    assert await mesh.enter() is not None
    await mesh.by(ADMIN, leave, PLATFORM)
    assert await mesh.enter(session="s2") is None
    superuser = await mesh.database.superuser()
    found = await superuser.fetchval("SELECT key FROM identity.revocations WHERE kind = 'ACTOR'")
    await superuser.close()
    assert found == f"operator:{OPERATOR}"


async def test_an_operator_asks_and_decides_by_whichever_login_they_have(mesh: Mesh) -> None:
    """Who asks is the login that comes in later; and none of the person's logins lets it in."""

    async def grant(**facts: Any) -> Any:
        call = context(ACME, **{"actor": f"user:{CLERK}", "responsible_person": CLERK, "role": "ADMIN", **facts})
        with entered(call):
            async with mesh.store.begin(ACME, call) as work:
                return await operators.grant_operator_access(work, asked.access_id, 0)

    call = context(ACME, actor=f"user:{OPERATOR}", responsible_person=ADMIN, role="ADMIN")
    with entered(call):
        async with mesh.store.begin(ACME, call) as work:
            asked = await operators.request_operator_access(work, Role.VIEWER, REASON, 1)
    assert asked.operator_id == OPERATOR
    for own in ({"passport": linked_passport(CLERK, OPERATOR)}, {"actor": f"user:{OPERATOR}"}):
        with pytest.raises(Denied, match="let themselves in"):
            await grant(**own)
    let_in = await grant(passport=linked_passport(CLERK, ADMIN), actor=f"user:{ADMIN}")
    assert (let_in.state, let_in.decided_by, let_in.decided_as) == ("GRANTED", CLERK, f"user:{ADMIN}")
    assert let_in.deciders == {CLERK, ADMIN}


async def test_what_can_t_be_asked_or_decided(mesh: Mesh) -> None:
    asked = await mesh.request(hours=3)
    with pytest.raises(AlreadyExists, match="asked already"):
        await mesh.request()
    with pytest.raises(Denied, match="let themselves in"):
        await mesh.grant(asked, by=OPERATOR)
    with pytest.raises(WrongState, match="3 hours"):
        await mesh.grant(asked, hours=4)
    with pytest.raises(NotFound):
        await mesh.by(ADMIN, lambda w: operators.grant_operator_access(w, asked.access_id, 0), GLOBEX)
    with pytest.raises(NotFound):
        await mesh.request(organization=uuid4())
    with pytest.raises(AlreadyExists, match="member"):
        await mesh.by(ADMIN, lambda w: operators.request_operator_access(w, Role.VIEWER, REASON, 1))
    refused = await mesh.by(ADMIN, lambda w: operators.refuse_operator_access(w, asked.access_id))
    assert (refused.state, await mesh.enter()) == ("REFUSED", None)
    later = await mesh.request()
    mesh.clock.ahead = timedelta(hours=72, seconds=1)
    with pytest.raises(WrongState, match="expired"):
        await mesh.grant(later)
    assert (await mesh.request()).state == "REQUESTED"


@pytest.mark.parametrize(
    "change",
    [
        "decided_by = operator_id, decided_at = requested_at, state = 'GRANTED',"
        " expires_at = requested_at + interval '1 hour'",
        "decided_by = NULL, decided_at = requested_at, state = 'GRANTED',"
        " expires_at = requested_at + interval '1 hour'",
        "decided_by = gen_random_uuid(), decided_at = requested_at, state = 'GRANTED',"
        " expires_at = requested_at + interval '25 hours'",
        "role = 'ADMIN'",
        "decided_by = gen_random_uuid(), deciders = ARRAY[operator_id], decided_at = requested_at, state = 'GRANTED',"
        " expires_at = requested_at + interval '1 hour'",
    ],
    ids=["by the operator", "by nobody", "for longer", "as an Admin", "by a login of theirs"],
)
async def test_the_data_itself_refuses(mesh: Mesh, change: str) -> None:
    asked = await mesh.request()

    async def write(work: Any) -> None:
        statement = f"UPDATE identity.operator_accesses SET {change} WHERE access_id = :access"
        await work.execute(text(statement), {"access": asked.access_id})

    with pytest.raises(Exception, match="check constraint") as raised:
        await mesh.by(ADMIN, write)
    assert isinstance(raised.value.__cause__.__cause__, asyncpg.CheckViolationError)  # type: ignore[union-attr]


async def test_a_new_installation_is_claimed_once_by_its_newest_token(bare: Mesh) -> None:
    first, token = await installation.begin_installation(bare.store), await installation.begin_installation(bare.store)

    def claim(given: str, by: UUID = ADMIN) -> Any:
        return bare.by(by, lambda w: installation.claim_installation(w, given, "a@x.example"), PLATFORM)

    for wrong in (first, token + "x", "", "\udcff"):
        with pytest.raises(Unauthenticated):
            await claim(wrong)
    both = await asyncio.gather(claim(token), claim(token, CLERK), return_exceptions=True)
    assert sorted(type(each).__name__ for each in both)[0] == "Organization"
    assert sum(isinstance(each, Problem) for each in both) == 1
    for again in (claim(token), installation.begin_installation(bare.store)):
        with pytest.raises(Conflict, match="first Admin already"):
            await again
    told = await bare.events("identity.", PLATFORM)
    actions = [e["action"] for e in told]
    assert actions == [
        *["identity.installation.begin"] * 2,
        *("identity.organization.create", "identity.member.add", "identity.ownership.transfer"),
        "identity.installation.claim",
    ]
    assert token not in json.dumps(told)
    superuser = await bare.database.superuser()
    assert await superuser.fetchval("SELECT count(*) FROM identity.installation") == 0
    await superuser.close()


async def test_an_installation_s_token_holds_for_fifteen_minutes(bare: Mesh) -> None:
    token = await installation.begin_installation(bare.store)
    bare.clock.ahead = timedelta(minutes=15, seconds=1)
    with pytest.raises(Unauthenticated, match="15 minutes"):
        await bare.by(ADMIN, lambda w: installation.claim_installation(w, token, "a@x.example"), PLATFORM)
