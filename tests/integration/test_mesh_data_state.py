"""Whoever goes past the triggers is seen: rows that decide who may do what, held against what their events left."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest

from services._mesh import state_watch
from services._mesh.clock import Clock
from services._mesh.context import entered
from services._mesh.metrics import Metrics
from services._mesh.state_watch import StateWatch
from services._mesh.uow import Store, UnitOfWork
from services.identity.model.membership import Member, Role
from services.identity.model.roles import is_fresh
from services.identity.usecases import members, organizations
from services.identity.usecases.organizations import NewOrganization
from tests.support.erasing import ADA, BOB, EVE, vault
from tests.support.postgres import TestDatabase, drop, new_database
from tests.support.things import ACME, GLOBEX, context

pytestmark = pytest.mark.services("identity", "actions", "audit")

REPLICA = "SET session_replication_role = replica"
ADMIN, CLERK = UUID(int=0x71), UUID(int=0x72)


class Watched:
    """A service with its watch."""

    def __init__(self, database: TestDatabase, schema: str) -> None:
        self.database, self.schema, self.metrics = database, schema, Metrics()
        self._roles = {name: database.role(f"{schema}_{name}", 2) for name in ("api", "relay")}
        self.store = Store(self._roles["api"], schema, Clock())
        self.watch = self.another()

    def another(self) -> StateWatch:
        """The watch as it begins in a new process."""
        return StateWatch(self._roles["relay"], self.store, Clock(), self.metrics)

    async def close(self) -> None:
        await asyncio.gather(*(role.close() for role in self._roles.values()))

    async def decide(self, decide: Any, organization: UUID = ACME) -> Any:
        """A decision as an RPC makes it."""
        call = context(organization, actor=f"user:{ADMIN}", responsible_person=ADMIN, role="ADMIN")
        with entered(call):
            async with self.store.begin(organization, call) as work:
                return await decide(work)

    async def bypass(self, *statements: str, replica: bool = True) -> None:
        """As somebody does who has the superuser's password."""
        superuser = await self.database.superuser()
        try:
            async with superuser.transaction():
                if replica:
                    await superuser.execute(REPLICA.replace("SET", "SET LOCAL"))
                for statement in statements:
                    assert not (await superuser.execute(statement)).endswith(" 0"), statement
        finally:
            await superuser.close()

    async def told(self) -> list[tuple[str, str]]:
        """What was found since the last look at it: what it is about, and how. Each is an event and counts."""
        before = await self._events()
        found = await self.watch.look()
        events = (await self._events())[len(before) :]
        assert len(found) == len(events)
        assert f'recoup_state_bypasses{{service="{self.schema}"}} {len(before) + len(events)}' in self.metrics.render()
        assert await self.watch.look() == []
        assert await self.another().look() == []
        for event in events:
            assert (event["result"], event["metadata"]["control"]) == ("FAILED", "state")
        return [(event["target"], event["metadata"]["how"]) for event in events]

    async def _events(self) -> list[dict[str, Any]]:
        superuser = await self.database.superuser()
        rows = await superuser.fetch(
            f"SELECT payload FROM {self.schema}.outbox WHERE action = '{self.schema}.control.bypass' ORDER BY event_id"
        )
        await superuser.close()
        return [json.loads(row["payload"]) for row in rows]


@pytest.fixture(autouse=True)
def unpaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_watch, "PAUSE_SECONDS", 0)


@pytest.fixture
async def identity(database: TestDatabase) -> AsyncIterator[Watched]:
    made = Watched(database, "identity")
    for organization, slug in ((ACME, "acme"), (GLOBEX, "globex")):
        people = ((ADMIN, "a@x.example", Role.ADMIN), (CLERK, "c@x.example", Role.VIEWER))
        await organizations.create_organization(
            made.store, NewOrganization(organization, slug, slug, "UTC", "USD", people)
        )
    yield made
    await made.close()


async def member(made: Watched, person: UUID) -> Member:
    async with made.store.read(ACME) as connection:
        from services.identity.store.members import find_member_of_user

        found = await find_member_of_user(connection, ACME, person)
    assert found is not None
    return found


async def test_what_is_done_by_rpc_is_no_bypass(identity: Watched) -> None:
    assert await identity.told() == []
    clerk = await member(identity, CLERK)

    async def add(work: UnitOfWork) -> Member:
        return await members.add_member(work, EVE, "e@x.example", Role.FINOPS)

    async def change_twice(work: UnitOfWork) -> None:
        after = await members.update_member(work, clerk.member_id, Role.APPROVER, clerk.etag)
        await members.update_member(work, clerk.member_id, Role.SECURITY, after.etag)

    added = await identity.decide(add)
    await identity.decide(change_twice)
    await identity.decide(lambda work: members.remove_member(work, added.member_id))
    assert await identity.told() == []
    await identity.decide(add)  # Brought back.
    assert await identity.told() == []


async def test_each_change_past_the_triggers_is_one_event(identity: Watched) -> None:
    clerk, admin = await member(identity, CLERK), await member(identity, ADMIN)
    row = f"members/{clerk.member_id}"
    await identity.bypass(f"UPDATE identity.members SET role = 'ADMIN' WHERE member_id = '{clerk.member_id}'")
    assert await identity.told() == [(row, "changed: role")]
    await identity.bypass(
        f"UPDATE identity.members SET role = 'VIEWER', user_id = '{EVE}' WHERE member_id = '{clerk.member_id}'"
    )
    assert await identity.told() == [(row, "changed: role, user_id")]
    await identity.bypass(f"DELETE FROM identity.members WHERE member_id = '{clerk.member_id}'")
    assert await identity.told() == [(row, "deleted")]
    again = (
        "INSERT INTO identity.members (organization_id, member_id, user_id, email, role, state, created_at) VALUES"
        f" ('{ACME}', '{{}}', '{{}}', 'x', 'ADMIN', 'ACTIVE', now())"
    )
    await identity.bypass(again.format(clerk.member_id, CLERK))
    assert await identity.told() == [(row, "inserted")]
    stranger = uuid4()
    await identity.bypass(again.format(stranger, stranger))
    assert await identity.told() == [(f"members/{stranger}", "inserted")]
    await identity.bypass(f"UPDATE identity.organizations SET state = 'SUSPENDED' WHERE organization_id = '{GLOBEX}'")
    assert await identity.told() == [(f"organizations/{GLOBEX}", "changed: state")]
    # Set back without an event is a change without an event.
    await identity.bypass(f"UPDATE identity.organizations SET state = 'ACTIVE' WHERE organization_id = '{GLOBEX}'")
    assert await identity.told() == [(f"organizations/{GLOBEX}", "changed: state")]
    # And what isn't watched is nobody's business here.
    await identity.bypass(f"UPDATE identity.members SET email = 'z' WHERE member_id = '{admin.member_id}'")
    assert await identity.told() == []


async def test_a_later_change_by_rpc_hides_nothing(identity: Watched) -> None:
    clerk = await member(identity, CLERK)
    await identity.bypass(f"UPDATE identity.members SET role = 'ADMIN' WHERE member_id = '{clerk.member_id}'")
    await identity.decide(lambda work: members.update_member(work, clerk.member_id, Role.APPROVER, clerk.etag))
    stranger = uuid4()
    await identity.bypass(
        "INSERT INTO identity.members (organization_id, member_id, user_id, email, role, state, created_at) VALUES"
        f" ('{ACME}', '{stranger}', '{stranger}', 'x', 'VIEWER', 'ACTIVE', now())"
    )
    added = await member(identity, stranger)
    await identity.decide(lambda work: members.update_member(work, stranger, Role.APPROVER, added.etag))
    assert await identity.told() == [
        (f"members/{clerk.member_id}", "changed: approver_by, approver_for, approver_since, confirmed_by, role"),
        (f"members/{stranger}", "inserted"),
    ]
    # What was reported is the state from here on, and ordinary changes of it are sealed again.
    now = await member(identity, CLERK)
    await identity.decide(lambda work: members.update_member(work, clerk.member_id, Role.VIEWER, now.etag))
    assert await identity.told() == []


@pytest.mark.parametrize("trigger", ["owes_event", "seals_state", "ALL"])
async def test_a_disabled_trigger_leaves_the_seal_as_it_was(identity: Watched, trigger: str) -> None:
    clerk = await member(identity, CLERK)
    for statement in (
        f"ALTER TABLE identity.members DISABLE TRIGGER {trigger}",
        "WITH event AS (INSERT INTO identity.outbox (organization_id, event_id, counter, action, payload, occurred_at)"
        f" SELECT '{ACME}', gen_random_uuid(), 99, 'identity.x', '', now() WHERE '{trigger}' = 'seals_state')"
        f" UPDATE identity.members SET role = 'ADMIN' WHERE member_id = '{clerk.member_id}'",
        f"ALTER TABLE identity.members ENABLE TRIGGER {trigger}",
    ):
        await identity.bypass(statement, replica=False)
    assert await identity.told() == [(f"members/{clerk.member_id}", "changed: role")]


async def test_pages_are_gone_through_to_the_end(identity: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_watch, "PAGE", 2)
    monkeypatch.setattr(state_watch, "TOLD_AT_ONCE", 2)

    async def many(work: UnitOfWork) -> None:
        for number in range(7):
            await members.add_member(work, UUID(int=0x100 + number), "m@x.example", Role.VIEWER)

    await identity.decide(many)
    assert await identity.told() == []
    await identity.bypass(
        f"UPDATE identity.members SET role = 'ADMIN' WHERE role = 'VIEWER' AND organization_id = '{ACME}'",
        "INSERT INTO identity.members (organization_id, member_id, user_id, email, role, state, created_at)"
        f" SELECT '{ACME}', gen_random_uuid(), gen_random_uuid(), 'x', 'ADMIN', 'ACTIVE', now()"
        " FROM generate_series(1, 5)",
    )
    told = [how for _, how in await identity.told()]
    assert sorted(told) == ["changed: role"] * 8 + ["inserted"] * 5


async def test_two_watches_at_once_tell_it_once(identity: Watched) -> None:
    await identity.bypass(f"UPDATE identity.members SET role = 'SECURITY' WHERE user_id = '{CLERK}'")
    found = await asyncio.gather(*(identity.another().look() for _ in range(4)))
    assert sum(len(each) for each in found) == 2  # In two organizations.


async def test_an_installation_from_before_is_taken_as_it_is() -> None:
    database = await new_database()
    await database.migrate("identity", version="0003")
    made = Watched(database, "identity")
    for organization, slug in ((ACME, "acme"), (GLOBEX, "globex")):
        await made.bypass(
            "INSERT INTO identity.organizations VALUES"
            f" ('{organization}', '{slug}', '', 'UTC', 'USD', 'ACTIVE', 1, now())",
            f"INSERT INTO identity.outbox_counters (organization_id, value) VALUES ('{organization}', 0)",
            "INSERT INTO identity.members (organization_id, member_id, user_id, email, role, state, created_at) VALUES"
            f" ('{organization}', gen_random_uuid(), '{ADMIN}', 'a@x.example', 'ADMIN', 'ACTIVE', now()),"
            f" ('{organization}', gen_random_uuid(), '{CLERK}', 'c@x.example', 'VIEWER', 'ACTIVE', now())",
        )
    assert await made.watch.look() == []  # Nothing is watched yet.
    await database.migrate("identity")
    assert await made.told() == []
    clerk = await member(made, CLERK)
    # Who was there could approve, and still can.
    assert not is_fresh(clerk, clerk.created_at)
    await made.decide(lambda work: members.update_member(work, clerk.member_id, Role.APPROVER, clerk.etag))
    assert await made.told() == []
    await made.bypass(f"UPDATE identity.members SET role = 'ADMIN' WHERE member_id = '{clerk.member_id}'")
    assert await made.told() == [(f"members/{clerk.member_id}", "changed: role")]
    await made.close()
    await drop(database)


async def test_holds_and_erasures_are_watched(database: TestDatabase) -> None:
    made = Watched(database, "audit")
    async with vault(database) as log:
        await log.act(EVE)
        hold = await log.hold(ADA, EVE)
        asked = await log.request(ADA, EVE)
        assert await made.told() == []
        await made.bypass(
            "UPDATE audit.legal_holds SET released_at = now(), releaser_hash = placer_hash, release_reason = 'x'"
        )
        assert await made.told() == [(f"legal_holds/{hold.hold_id}", "changed: releaser_hash")]
        await log.approve(BOB, asked, EVE)
        assert await log.eraser.round() == 1
        assert await made.told() == []
        await made.bypass("UPDATE audit.erasures SET state = 'APPROVED', done_at = NULL")
        assert await made.told() == [(f"erasures/{asked.erasure_id}", "changed: state")]
    await made.close()


APPROVAL = (
    "INSERT INTO actions.approvals VALUES"
    f" ('{ACME}', '{{a}}', '{{p}}', '{ADA}', 'user:x', 'APPROVER', 'APPROVED', 'h', '', now(), '{{p}}')"
)


async def test_approvals_are_watched(database: TestDatabase) -> None:
    made = Watched(database, "actions")
    action, other = uuid4(), uuid4()

    async def approve(work: UnitOfWork) -> None:
        from sqlalchemy import text

        for each in (action, other):
            await work.execute(
                text(
                    "INSERT INTO actions.actions VALUES"
                    " (:o, :a, :a, :a, :a, 't', 'p', 'p', :n, 'r', 't', 'i', 'APPROVED', 1,"
                    " 'h', '', '', 0, 'USD', 'v', 'user:r', :r, 'FINOPS', :now, :a, :now)"
                ),
                {"o": ACME, "a": each, "n": str(each), "r": ADA, "now": work.now},
            )
        await work.execute(text(APPROVAL.format(a=action, p=BOB)))
        work.emit("actions.action.approve", f"actions/{action}")

    await made.decide(approve)
    assert await made.told() == []
    await made.bypass(APPROVAL.format(a=other, p=EVE))
    assert await made.told() == [(f"approvals/{other}/{EVE}", "inserted")]
    await made.bypass("UPDATE actions.approvals SET decision = 'REJECTED' WHERE plan_hash = 'h'")
    assert sorted(await made.told()) == sorted(
        [(f"approvals/{action}/{BOB}", "changed: decision"), (f"approvals/{other}/{EVE}", "changed: decision")]
    )
    await made.bypass(
        f"UPDATE actions.actions SET plan_hash = 'g', requester_person = '{EVE}' WHERE action_id = '{other}'"
    )
    assert await made.told() == [(f"actions/{other}", "changed: plan_hash, requester_person")]
    await made.close()


async def test_the_task_looks_by_itself(identity: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_watch, "EVERY_SECONDS", 0.01)
    task = asyncio.create_task(identity.watch.run())
    await identity.bypass(f"UPDATE identity.members SET role = 'SECURITY' WHERE user_id = '{CLERK}'")
    async with asyncio.timeout(20):
        while 'recoup_state_bypasses{service="identity"} 2' not in identity.metrics.render():
            await asyncio.sleep(0.01)
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
