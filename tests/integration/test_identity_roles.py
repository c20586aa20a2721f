"""Custom roles, who may give which role, and fresh approvers, on a real PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, TypeVar
from uuid import UUID, uuid4

import asyncpg
import pytest

from services._mesh.context import entered
from services._mesh.errors import AlreadyExists, Conflict, Denied, Exhausted, Invalid, NotFound, Problem, WrongState
from services._mesh.ids import PLATFORM
from services._mesh.metrics import Metrics
from services._mesh.passports import Kind
from services._mesh.resource_limits import ResourceLimits
from services._mesh.state_watch import StateWatch
from services._mesh.uow import Store, UnitOfWork
from services.identity.__main__ import permission_table
from services.identity.model import roles as model
from services.identity.model.membership import CustomRole, Member, Role
from services.identity.model.permissions import OWN
from services.identity.model.roles import Standing, standing
from services.identity.store import members as members_store
from services.identity.store.admissions import find_admission
from services.identity.usecases import members, organizations, passports, roles
from services.identity.usecases.organizations import NewOrganization
from services.identity.usecases.roles import Assignment
from tests.support.postgres import TestDatabase
from tests.support.things import ACME, GLOBEX, MovableClock, context

pytestmark = pytest.mark.services("identity")

T = TypeVar("T")
TABLE = permission_table()
ADA, EVE, CLERK, BOSS = UUID(int=0x71), UUID(int=0x72), UUID(int=0x73), UUID(int=0x74)
READS = ("scanner.finding.read", "scanner.scan.read", "actions.action.read")
ALL = ResourceLimits()


@dataclass
class Office:
    """Identity at work on one database."""

    database: TestDatabase
    clock: MovableClock
    store: Store

    async def do(
        self, decide: Callable[[UnitOfWork], Awaitable[T]], person: UUID = ADA, organization: UUID = ACME
    ) -> T:
        """A decision as an RPC of that person makes it."""
        call = context(organization, actor=f"user:{person}", responsible_person=person, role="ADMIN")
        with entered(call):
            async with self.store.begin(organization, call) as work:
                return await decide(work)

    async def create(self, name: str, *permissions: str, person: UUID = ADA) -> CustomRole:
        return await self.do(lambda work: roles.create_role(work, TABLE, name, "", permissions), person)

    async def update(self, role: CustomRole, *permissions: str, person: UUID = ADA) -> CustomRole:
        changed, _ = await self.do(
            lambda work: roles.update_role(work, TABLE, role.role_id, "", permissions, role.etag), person
        )
        return changed

    async def assign(
        self, to: UUID, role: Role | CustomRole, limits: ResourceLimits = ALL, person: UUID = ADA
    ) -> Member:
        member = await self.member(to)
        custom = role if isinstance(role, CustomRole) else None
        built_in = role if isinstance(role, Role) else None
        given = Assignment(member.member_id, built_in, custom.role_id if custom else None, limits, member.etag)
        return await self.give(given, person)

    async def give(self, given: Assignment, person: UUID = ADA, organization: UUID = ACME) -> Member:
        return await self.do(lambda work: roles.assign_role(work, TABLE, given), person, organization)

    async def confirm(self, whom: UUID, person: UUID) -> Member:
        member = await self.member(whom)
        return await self.do(lambda work: roles.confirm_approver(work, member.member_id, member.etag), person)

    async def member(self, person: UUID, organization: UUID = ACME) -> Member:
        async with self.store.read(organization) as connection:
            found = await members_store.find_member_of_user(connection, organization, person)
        assert found is not None
        return found

    async def standing(self, person: UUID, audience: str) -> Standing:
        return standing(TABLE, await self.member(person), audience, self.clock.now())

    async def may_approve(self, person: UUID) -> bool:
        return "actions.action.approve" in (await self.standing(person, "actions")).permissions

    async def fetch(self, statement: str, *values: object) -> list[Any]:
        superuser = await self.database.superuser()
        try:
            return list(await superuser.fetch(statement, *values))
        finally:
            await superuser.close()

    async def events(self, action: str) -> list[dict[str, Any]]:
        rows = await self.fetch("SELECT payload FROM identity.outbox WHERE action = $1 ORDER BY event_id", action)
        return [json.loads(row["payload"]) for row in rows]

    async def voided(self) -> list[str]:
        return [r["key"] for r in await self.fetch("SELECT key FROM identity.revocations ORDER BY seq")]

    async def bypasses(self) -> list[Any]:
        relay = self.database.role("identity_relay", 2)
        try:
            return list(await StateWatch(relay, self.store, self.clock, Metrics()).look())
        finally:
            await relay.close()


@pytest.fixture
async def office(database: TestDatabase) -> AsyncIterator[Office]:
    clock, api = MovableClock(), database.role("identity_api")
    made = Office(database, clock, Store(api, "identity", clock))
    people = ((ADA, Role.ADMIN), (BOSS, Role.ADMIN), (EVE, Role.APPROVER), (CLERK, Role.VIEWER))
    for organization, slug in ((ACME, "acme"), (GLOBEX, "globex"), (PLATFORM, "platform")):
        first = tuple((person, f"{person.int}@x.example", role) for person, role in people)
        await organizations.create_organization(
            made.store, NewOrganization(organization, slug, slug, "UTC", "USD", first)
        )
    yield made
    await api.close()


async def refused(asked: Awaitable[object]) -> Problem:
    with pytest.raises(Problem) as caught:
        await asked
    return caught.value


async def test_a_custom_role_holds_what_it_says_and_nothing_else(office: Office) -> None:
    role = await office.create("night-watch", *READS)
    after = await office.assign(CLERK, role)
    assert (after.role, after.custom_role_id, after.role_name) == (Role.CUSTOM, role.role_id, "night-watch")
    assert (await office.standing(CLERK, "scanner")).permissions == {"scanner.finding.read", "scanner.scan.read"}
    assert (await office.standing(CLERK, "actions")).permissions == {"actions.action.read"}
    assert (await office.standing(CLERK, "identity")).permissions == OWN
    assert (await office.standing(CLERK, "scanner")).role == "night-watch"
    event = (await office.events("identity.role.assign"))[-1]
    assert event["metadata"]["before"]["role"] == "VIEWER"
    assert event["metadata"]["after"]["role"] == "night-watch"
    assert await office.voided() == [f"{ACME}/user:{CLERK}"]
    assert await office.bypasses() == []
    # Back to one of the seven: nothing of the custom role is left.
    back = await office.assign(CLERK, Role.VIEWER)
    assert (back.role, back.custom_role_id) == (Role.VIEWER, None)
    assert "identity.organization.read" in (await office.standing(CLERK, "identity")).permissions


async def test_an_unknown_permission_is_named(office: Office) -> None:
    for permission in ("scanner.finding.raed", "*", "audit.log.read"):  # The last one is the platform's own.
        problem = await refused(office.create("odd", "scanner.finding.read", permission))
        assert isinstance(problem, Invalid)
        assert problem.field_violations[0].field == "permissions[1]"
        assert permission in problem.message
    for name in ("admin", "custom", "system", "finops"):
        assert isinstance(await refused(office.create(name, *READS)), Invalid)


async def test_nobody_makes_or_gives_a_role_with_more_than_they_hold(office: Office) -> None:
    # An Admin doesn't release legal holds.
    problem = await refused(office.create("releaser", "audit.hold.release"))
    assert (problem.reason_name, problem.metadata) == ("PERMISSION_NOT_HELD", {"permission": "audit.hold.release"})
    keeper = await office.create("keeper", "identity.role.update", "identity.role.assign", *READS)
    await office.assign(CLERK, keeper)
    assert (await refused(office.update(keeper, "audit.hold.release"))).reason_name == "PERMISSION_NOT_HELD"
    # Who holds a custom role that gives roles gives no more than it.
    small = await office.create("small", "scanner.finding.read", person=CLERK)
    assert isinstance(await refused(office.create("big", "scanner.scan.start", person=CLERK)), Denied)
    large = await office.create("large", "scanner.scan.start")
    for role in (Role.ADMIN, Role.FINOPS, Role.VIEWER, large):
        assert (await refused(office.assign(EVE, role, person=CLERK))).reason_name == "PERMISSION_NOT_HELD"
        assert (await refused(office.assign(CLERK, role, person=CLERK))).reason_name == "PERMISSION_NOT_HELD"
    # What it had before counts as well: nobody keeps for others what they don't hold.
    assert isinstance(await refused(office.update(large, "scanner.scan.start", READS[0], person=CLERK)), Denied)
    # Nor does it take from anybody what it doesn't hold.
    eve = await office.member(EVE)
    assert (await refused(office.assign(EVE, small, person=CLERK))).reason_name == "PERMISSION_NOT_HELD"
    for others in ((eve.member_id,), ((await office.member(CLERK)).member_id, eve.member_id)):
        changing = office.do(lambda work, ids=others: roles.require_may_change(work, TABLE, *ids), CLERK)
        assert (await refused(changing)).reason_name == "PERMISSION_NOT_HELD"
    await office.assign(EVE, small)
    assert (await office.assign(EVE, small, person=CLERK)).role_name == "small"
    # An Admin gives each of the seven, whatever it holds that they don't.
    assert (await office.assign(EVE, Role.SECURITY)).role is Role.SECURITY
    # Who isn't a member, or no longer, gives nothing, whatever their passport said.
    assert isinstance(await refused(office.create("late", READS[0], person=uuid4())), Denied)


async def test_the_platforms_organization_has_no_custom_roles(office: Office) -> None:
    for name in TABLE.names:
        assert not name.startswith("identity.role.") or not any(
            name in held for held in TABLE.platform["identity"].values()
        )
    made = CustomRole(PLATFORM, uuid4(), "x", "", tuple(sorted(TABLE.names)), 1, office.clock.now())
    member = Member(PLATFORM, uuid4(), uuid4(), "", Role.CUSTOM, "ACTIVE", 1, office.clock.now(), made.role_id, made)
    for audience in TABLE.customers:
        assert standing(TABLE, member, audience, office.clock.now()).permissions == frozenset()


async def test_a_change_of_a_role_voids_what_its_holders_have(office: Office) -> None:
    role = await office.create("watch", *READS)
    await office.assign(CLERK, role)
    await office.assign(EVE, role)
    seen = len(await office.voided())
    changed = await office.update(role, READS[0])
    assert sorted((await office.voided())[seen:]) == sorted(f"{ACME}/user:{person}" for person in (EVE, CLERK))
    assert (await office.standing(CLERK, "scanner")).permissions == {READS[0]}
    event = (await office.events("identity.role.update"))[-1]["metadata"]
    assert event["before"]["permissions"] == sorted(READS)
    assert event["after"]["permissions"] == [READS[0]]
    assert isinstance(await refused(office.update(role, READS[1])), Conflict)  # Its etag is an old one.
    assert changed.etag != role.etag
    assert await office.bypasses() == []


async def test_a_role_that_somebody_holds_stays(office: Office) -> None:
    role = await office.create("watch", *READS)
    member = await office.assign(CLERK, role)
    problem = await refused(office.do(lambda work: roles.delete_role(work, role.role_id)))
    assert isinstance(problem, WrongState)
    assert problem.metadata["state"] == "HELD"
    api = await office.database.login("identity_api")
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        async with api.transaction():
            await api.execute(f"SET LOCAL app.organization_id = '{ACME}'")
            await api.execute("DELETE FROM identity.roles WHERE role_id = $1", role.role_id)
    await api.close()
    await office.do(lambda work: members.remove_member(work, member.member_id))
    await office.do(lambda work: roles.delete_role(work, role.role_id))
    assert (await office.events("identity.role.delete"))[-1]["metadata"]["before"]["name"] == "watch"
    # Whoever comes back comes with the role that they are given then.
    again = await office.do(lambda work: members.add_member(work, CLERK, "c@x.example", Role.VIEWER))
    assert (again.role, again.custom_role_id) == (Role.VIEWER, None)
    assert await office.bypasses() == []


async def test_another_organizations_role_isnt_there(office: Office) -> None:
    role = await office.create("watch", *READS)
    problem = await refused(
        office.do(lambda work: roles.update_role(work, TABLE, role.role_id, "", READS, role.etag), ADA, GLOBEX)
    )
    assert isinstance(problem, NotFound)
    other = await office.member(CLERK, GLOBEX)
    given = Assignment(other.member_id, None, role.role_id, ALL, other.etag)
    problem = await refused(office.do(lambda work: roles.assign_role(work, TABLE, given), ADA, GLOBEX))
    assert isinstance(problem, NotFound)


async def test_bad_input_about_roles(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    role = await office.create("watch", *READS)
    assert isinstance(await refused(office.create("watch", *READS)), AlreadyExists)
    member = await office.member(CLERK)
    for given in (
        Assignment(member.member_id, None, None, ALL, member.etag),
        Assignment(member.member_id, Role.VIEWER, role.role_id, ALL, member.etag),
        Assignment(member.member_id, Role.ADMIN, None, ResourceLimits((uuid4(),)), member.etag),
    ):
        assert isinstance(await refused(office.give(given)), Invalid)
    monkeypatch.setattr(roles, "MAX_ROLES", 1)
    assert isinstance(await refused(office.create("more", *READS)), Exhausted)


async def test_the_last_admin_stays_one_of_the_seven(office: Office) -> None:
    role = await office.create("watch", *READS)
    await office.assign(BOSS, role)
    for other in (role, Role.FINOPS):
        assert isinstance(await refused(office.assign(ADA, other)), WrongState)


async def test_a_fresh_approver_waits_a_day(office: Office) -> None:
    assert await office.may_approve(EVE)  # The operator answers for an organization's first members.
    await office.assign(CLERK, Role.APPROVER)
    held = await office.standing(CLERK, "actions")
    assert held.withheld == {"actions.action.approve"}
    assert "actions.action.read" in held.permissions
    office.clock.ahead = model.APPROVER_WAIT - timedelta(seconds=5)
    assert not await office.may_approve(CLERK)
    office.clock.ahead = model.APPROVER_WAIT + timedelta(seconds=5)
    assert await office.may_approve(CLERK)


async def test_another_admin_confirms_a_fresh_approver(office: Office) -> None:
    given = await office.assign(CLERK, Role.ADMIN)
    assert given.approver_by == ADA
    for person in (ADA, CLERK):
        assert (await refused(office.confirm(CLERK, person))).reason_name == "SECOND_PERSON_REQUIRED"
    await office.confirm(CLERK, BOSS)
    assert await office.may_approve(CLERK)
    event = (await office.events("identity.approver.confirm"))[-1]["metadata"]
    assert (event["before"], event["after"]) == ("FRESH", "SETTLED")
    assert isinstance(await refused(office.confirm(CLERK, BOSS)), WrongState)
    assert await office.bypasses() == []


async def test_what_no_settled_member_gave_nobody_confirms(office: Office) -> None:
    """Two people who are one and their guest: only waiting makes an approver of the guest."""
    await office.assign(CLERK, Role.ADMIN)
    # The guest gives themself the role that they need, and who invited them confirms it.
    await office.assign(CLERK, Role.FINOPS, person=CLERK)
    for person in (ADA, BOSS):
        assert (await refused(office.confirm(CLERK, person))).reason_name == "SECOND_PERSON_REQUIRED"
    # Or they give it to a third.
    await office.assign(CLERK, Role.ADMIN)
    await office.assign(EVE, Role.FINOPS, person=CLERK)
    assert (await refused(office.confirm(EVE, ADA))).reason_name == "SECOND_PERSON_REQUIRED"
    await office.confirm(CLERK, BOSS)
    await office.confirm(EVE, ADA)
    # Or who gave it has gone.
    await office.assign(EVE, Role.APPROVER, person=CLERK)
    clerk = await office.member(CLERK)
    await office.do(lambda work: members.remove_member(work, clerk.member_id))
    assert (await refused(office.confirm(EVE, ADA))).reason_name == "SECOND_PERSON_REQUIRED"
    # Or nobody gave it: they came by a sign-in of their own, with the role that everybody comes with.
    joiner = uuid4()
    joined = await office.do(lambda work: members.add_member(work, joiner, "j@x.example", Role.APPROVER), joiner)
    assert joined.approver_by is None
    assert (await refused(office.confirm(joiner, ADA))).reason_name == "SECOND_PERSON_REQUIRED"
    assert not await office.may_approve(joiner)
    office.clock.ahead = model.APPROVER_WAIT + timedelta(seconds=5)
    assert await office.may_approve(joiner)


async def test_wider_limits_make_a_fresh_approver(office: Office) -> None:
    one, other = uuid4(), uuid4()
    web, batch = ("team", "web"), ("team", "batch")
    await office.assign(EVE, Role.APPROVER, ResourceLimits((one, other), (web, batch)))
    await office.assign(EVE, Role.APPROVER, ResourceLimits((one,), (web,)))
    assert await office.may_approve(EVE)
    for wider in (ResourceLimits((other,), (web,)), ResourceLimits((one, other)), ResourceLimits((one,)), ALL):
        await office.assign(EVE, Role.APPROVER, wider)
        assert not await office.may_approve(EVE)
        await office.confirm(EVE, BOSS)
        await office.assign(EVE, Role.APPROVER, ResourceLimits((one,), (web,)))


async def test_who_confirms_is_another_in_the_data_itself(office: Office) -> None:
    await office.assign(CLERK, Role.ADMIN)
    # Another login of hers is she.
    other = await office.do(lambda work: members.add_member(work, uuid4(), f"{ADA.int}@x.example", Role.ADMIN))
    office.clock.ahead = model.APPROVER_WAIT * 2
    await office.assign(CLERK, Role.FINOPS)
    assert (await refused(office.confirm(CLERK, other.user_id))).reason_name == "SECOND_PERSON_REQUIRED"
    api = await office.database.login("identity_api")
    for person in (ADA, CLERK, other.user_id):
        with pytest.raises(asyncpg.PostgresError, match=r"confirmed_by_another|another person"):
            async with api.transaction():
                await api.execute(f"SET LOCAL app.organization_id = '{ACME}'")
                await api.execute("UPDATE identity.members SET confirmed_by = $1 WHERE user_id = $2", person, CLERK)
    await api.close()


async def test_who_gave_the_role_is_somebody_settled_in_the_data_itself(office: Office) -> None:
    """Whoever writes the rows: nobody's gift, one's own, a guest's or that of somebody gone is confirmed by nobody."""
    api = await office.database.login("identity_api")

    async def write(refusal: str, **values: Any) -> None:
        """Confirm the clerk by SQL, as `values` have it."""
        told = {"confirmed_by": BOSS, "confirmed_at": office.clock.now(), **values}
        columns = ", ".join(f"{name} = ${place}" for place, name in enumerate(told, 2))
        with pytest.raises(asyncpg.PostgresError, match=refusal):
            async with api.transaction():
                await api.execute(f"SET LOCAL app.organization_id = '{ACME}'")
                await api.execute(f"UPDATE identity.members SET {columns} WHERE user_id = $1", CLERK, *told.values())

    await office.assign(CLERK, Role.FINOPS)
    await write("without its event")  # So that each of these is refused for what it is.
    await write("at a moment", confirmed_at=None)
    await write("first members alone", confirmed_by=PLATFORM)
    await write("settled member", approver_by=None)
    await write("settled member", approver_by=CLERK)
    await office.assign(EVE, Role.ADMIN)
    await office.assign(CLERK, Role.APPROVER, person=EVE)
    await write("settled member")  # Eve is a fresh approver herself.
    later = office.clock.now() + model.APPROVER_WAIT * 2
    await write("without its event", confirmed_at=later)
    eve = await office.member(EVE)
    await office.do(lambda work: members.remove_member(work, eve.member_id))
    await write("settled member", confirmed_at=later)
    await api.close()


@pytest.mark.parametrize("how", ["added", "updated", "widened", "brought back"])
async def test_every_way_to_a_role_that_may_approve_makes_a_fresh_approver(office: Office, how: str) -> None:
    newcomer = uuid4()
    if how == "added":
        await office.do(lambda work: members.add_member(work, newcomer, "n@x.example", Role.APPROVER))
    elif how == "updated":
        newcomer, clerk = CLERK, await office.member(CLERK)
        await office.do(lambda work: members.update_member(work, clerk.member_id, Role.FINOPS, clerk.etag))
    elif how == "widened":
        newcomer, role = CLERK, await office.create("watch", *READS)
        await office.assign(CLERK, role)
        office.clock.ahead = model.APPROVER_WAIT * 2
        await office.update(role, *READS, "actions.action.approve")
    else:
        newcomer, eve = EVE, await office.member(EVE)
        await office.do(lambda work: members.remove_member(work, eve.member_id))
        await office.do(lambda work: members.add_member(work, EVE, "e@x.example", Role.APPROVER))
    assert (await office.standing(newcomer, "actions")).withheld == {"actions.action.approve"}
    office.clock.ahead += model.APPROVER_WAIT + timedelta(seconds=5)
    assert await office.may_approve(newcomer)


async def test_a_role_that_is_given_past_the_usecases_approves_nothing(office: Office) -> None:
    """By the service's own login, beside an event: what the row says about approving is about another role."""
    api = await office.database.login("identity_api")
    async with api.transaction():
        await api.execute(f"SET LOCAL app.organization_id = '{ACME}'")
        await api.execute("UPDATE identity.members SET role = 'ADMIN' WHERE user_id = $1", CLERK)
        await api.execute("SET CONSTRAINTS ALL DEFERRED")
        await api.execute(
            "INSERT INTO identity.outbox (organization_id, event_id, counter, action, payload, occurred_at)"
            " VALUES ($1, $2, 99, 'x', '', now())",
            ACME, uuid4(),
        )  # fmt: skip
    await api.close()
    office.clock.ahead = model.APPROVER_WAIT * 3
    assert not await office.may_approve(CLERK)
    await office.confirm(CLERK, BOSS)
    assert await office.may_approve(CLERK)


async def test_what_isnt_new_in_a_changed_role_makes_nobody_wait(office: Office) -> None:
    role = await office.create("decider", "actions.action.approve", *READS)
    await office.assign(CLERK, role)
    await office.confirm(CLERK, BOSS)
    changed = await office.update(role, "actions.action.approve", READS[0])
    assert await office.may_approve(CLERK)
    await office.update(changed, "actions.action.approve", "audit.erasure.approve")
    assert not await office.may_approve(CLERK)
    # Limits alone aren't another role.
    eve = await office.assign(EVE, Role.APPROVER, ResourceLimits((uuid4(),), (("team", "web"),)))
    assert await office.may_approve(EVE)
    assert eve.limits.tags == (("team", "web"),)
    assert await office.bypasses() == []


async def test_no_machine_holds_an_approval_whatever_its_ceiling_says(office: Office) -> None:
    held = await office.standing(EVE, "actions")
    authority: Any = SimpleNamespace(permissions=TABLE)
    ceiling = held.permissions
    assert "actions.action.approve" in passports._within(authority, Kind.HUMAN, ceiling, held)
    for most in (None, ceiling):
        left = passports._within(authority, Kind.MACHINE, most, held)
        assert left == held.permissions - {"actions.action.approve"}


async def test_who_is_too_many_users_to_tell_approves_nothing(office: Office) -> None:
    member, now = await office.member(EVE), office.clock.now()
    for many, may in ((model.MAX_LINKED, True), (model.MAX_LINKED + 1, False)):
        held = standing(TABLE, member, "actions", now, frozenset(uuid4() for _ in range(many)))
        assert ("actions.action.approve" in held.permissions) is may
        assert len(held.linked) == (many if may else 0)


async def test_a_passport_names_all_users_that_the_person_is(office: Office) -> None:
    other = await office.do(lambda work: members.add_member(work, uuid4(), f"{EVE.int}@x.example", Role.VIEWER))
    person = {EVE, other.user_id}
    for user in person:
        async with office.store.read(ACME) as connection:
            found = await find_admission(connection, ACME, user, "s", f"user:{user}")
        assert found is not None
        assert found.linked | {found.person_id} == person
    async with office.store.read(ACME) as connection:
        alone = await find_admission(connection, ACME, CLERK, "s", f"user:{CLERK}")
    assert alone is not None
    assert (alone.linked, alone.person_id) == (frozenset(), CLERK)
