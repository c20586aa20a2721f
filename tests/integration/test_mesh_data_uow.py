"""The unit of work on a real PostgreSQL: tenancy, the owed event, gapless counters, repeated requests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from recoup.identity.v1.identity_service_pb2 import AddMemberRequest, AddMemberResponse
from services._mesh.clock import Clock
from services._mesh.context import entered
from services._mesh.errors import AlreadyExists, Conflict, Unavailable
from services._mesh.uow import EventOwed, Store, UnitOfWork
from tests.support.postgres import TestDatabase
from tests.support.things import ACME, GLOBEX, add_thing, context, install


@pytest.fixture
async def things(database: TestDatabase) -> TestDatabase:
    await install(database)
    return database


@pytest.fixture
async def store(things: TestDatabase) -> AsyncIterator[Store]:
    role = things.role("pricing_api", pool_size=12)
    yield Store(role, "pricing", Clock())
    await role.close()


async def count(store: Store, organization: UUID = ACME) -> int:
    async with store.read(organization) as connection:
        return int((await connection.execute(text("SELECT count(*) FROM pricing.things"))).scalar_one())


async def add_with_event(store: Store, name: str = "x", organization: UUID = ACME) -> None:
    async with store.begin(organization, context(organization)) as work:
        await add_thing(work, name)
        work.emit("pricing.thing.add", "things/1")


async def test_rows_of_another_organization_are_not_there(store: Store) -> None:
    await add_with_event(store)
    assert (await count(store, GLOBEX), await count(store, ACME)) == (0, 1)


async def test_writing_for_another_organization_is_refused(store: Store) -> None:
    with pytest.raises(DBAPIError, match="row-level security"):
        async with store.begin(ACME, context()) as work:
            await work.execute(text("INSERT INTO pricing.things VALUES (:o, :t, 'x')"), {"o": GLOBEX, "t": uuid4()})


async def test_a_failed_statement_does_not_tell_what_it_was_about(store: Store) -> None:
    """Errors of statements reach our own log; their parameters are tenants' data, which may not."""
    with pytest.raises(DBAPIError) as failed:
        async with store.begin(ACME, context()) as work:
            await work.execute(text("SELECT CAST(:value AS text) FROM pricing.no_such_table"), {"value": "canary-7f3a"})
    assert "canary-7f3a" not in str(failed.value)
    assert "no_such_table" in str(failed.value)


async def test_a_pooled_connection_forgets_its_organization(things: TestDatabase) -> None:
    role = things.role("pricing_api", pool_size=1)
    store = Store(role, "pricing", Clock())
    await add_with_event(store)
    with pytest.raises(ZeroDivisionError):
        async with store.begin(ACME, context()):
            raise ZeroDivisionError
    # The same connection, without an organization: the setting is '' after a commit, and matches nothing.
    async with role.unscoped() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM pricing.things"))).scalar() == 0
        setting = await connection.execute(text("SELECT current_setting('app.organization_id', true)"))
        assert setting.scalar() == ""
    await role.close()


async def test_a_cancelled_call_leaves_nothing_behind_in_the_pool(things: TestDatabase) -> None:
    role = things.role("pricing_api", pool_size=1)
    store = Store(role, "pricing", Clock())
    begun = asyncio.Event()

    async def slow() -> None:
        async with store.begin(ACME, context()) as work:
            await add_thing(work, "never")
            begun.set()
            await work.execute(text("SELECT pg_sleep(30)"))

    task = asyncio.create_task(slow())
    await begun.wait()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with role.unscoped() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM pricing.things"))).scalar() == 0
    assert await count(store) == 0
    await role.close()


async def test_a_connection_still_in_a_transaction_does_not_go_back_to_the_pool(things: TestDatabase) -> None:
    role = things.role("pricing_api", pool_size=1)
    connection = await role._engine.connect()
    driver = (await connection.get_raw_connection()).driver_connection
    assert driver is not None
    await driver.execute(f"BEGIN; SELECT set_config('app.organization_id', '{ACME}', true)")
    await connection.close()
    async with role.unscoped() as fresh:
        setting = await fresh.execute(text("SELECT current_setting('app.organization_id', true)"))
        assert setting.scalar() in (None, "")
    await role.close()


async def test_reading_may_not_write(store: Store) -> None:
    with pytest.raises(DBAPIError, match="read-only"):
        async with store.read(ACME) as connection:
            await connection.execute(text("DELETE FROM pricing.things"))


async def test_connections_that_died_in_the_pool_are_replaced(things: TestDatabase, store: Store) -> None:
    await asyncio.gather(*(add_with_event(store) for _ in range(5)))
    superuser = await things.superuser()
    await superuser.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'pricing_api'")
    await superuser.close()
    await asyncio.gather(*(add_with_event(store) for _ in range(5)))
    assert await count(store) == 10


async def test_one_call_gets_past_a_whole_pool_of_dead_connections(things: TestDatabase, store: Store) -> None:
    await asyncio.gather(*(add_with_event(store) for _ in range(5)))
    superuser = await things.superuser()
    await superuser.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'pricing_api'")
    await superuser.close()
    await add_with_event(store)
    assert await count(store) == 6


async def test_a_connection_that_dies_in_mid_flight_is_a_dependency_that_is_down(
    things: TestDatabase, store: Store
) -> None:
    superuser = await things.superuser()
    with pytest.raises(Unavailable) as raised:
        async with store.begin(ACME, context()) as work:
            await add_thing(work, "lost")
            work.emit("pricing.thing.add", "things/1")
            await superuser.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename='pricing_api'"
            )
    assert raised.value.metadata == {"dependency": "database"}
    await superuser.close()
    assert await count(store) == 0


async def test_a_state_change_without_its_event_does_not_commit(store: Store) -> None:
    with pytest.raises(EventOwed, match="without its event"):
        async with store.begin(ACME, context()) as work:
            await add_thing(work, "silent")
    assert await count(store) == 0


@pytest.mark.parametrize(
    "change", ["UPDATE pricing.things SET name = 'other'", "DELETE FROM pricing.things"], ids=["update", "delete"]
)
async def test_every_kind_of_change_owes_an_event(store: Store, change: str) -> None:
    await add_with_event(store)
    with pytest.raises(EventOwed):
        async with store.begin(ACME, context()) as work:
            await work.execute(text(change))


async def test_an_event_of_an_earlier_transaction_pays_for_nothing(things: TestDatabase) -> None:
    """Around our own code: straight on a connection, as a bug or an intruder would."""
    connection = await things.login("pricing_api")
    await connection.execute(f"SELECT set_config('app.organization_id', '{ACME}', false)")
    event = "INSERT INTO pricing.outbox (organization_id, event_id, counter, action, payload, occurred_at)"
    await connection.execute(f"{event} VALUES ('{ACME}', '{uuid4()}', 1, 'a', '', '2026-01-01Z')")
    with pytest.raises(asyncpg.PostgresError, match="without its event"):
        await connection.execute(f"INSERT INTO pricing.things VALUES ('{ACME}', '{uuid4()}', 'x')")
    await connection.close()


async def test_the_rules_own_event_is_owed(store: Store) -> None:
    async def decide(work: UnitOfWork) -> AddMemberResponse:
        await add_thing(work, "x")
        work.emit("pricing.thing.other", "things/1")
        return AddMemberResponse()

    with entered(context(action="pricing.thing.add")):
        with pytest.raises(EventOwed):
            await store.write(AddMemberRequest(), AddMemberResponse, decide)
        with pytest.raises(EventOwed):
            async with store.begin() as work:
                await decide(work)
        async with store.begin(interim=True) as work:
            await decide(work)
    assert await count(store) == 1


async def test_counters_are_gapless_under_concurrency_and_rollback(store: Store, things: TestDatabase) -> None:
    async def one(number: int) -> None:
        try:
            async with store.begin(ACME, context()) as work:
                await add_thing(work, str(number))
                work.emit("pricing.thing.add", "things/1")
                work.emit("pricing.thing.name", "things/1")
                if number % 3 == 0:
                    await work.flush_events()
                    raise ZeroDivisionError
        except ZeroDivisionError:
            pass

    await asyncio.gather(*(one(number) for number in range(60)))
    superuser = await things.superuser()
    rows = await superuser.fetch("SELECT counter, action FROM pricing.outbox ORDER BY counter")
    await superuser.close()
    assert [row["counter"] for row in rows] == list(range(1, 81))
    assert [row["action"] for row in rows] == ["pricing.thing.add", "pricing.thing.name"] * 40


async def test_an_event_says_who_did_it_from_the_calls_context(store: Store, things: TestDatabase) -> None:
    person = uuid4()
    call = context(actor="user:7", responsible_person=person, role="FINOPS", authority="passport:j", request_id="q")
    with entered(call):
        async with store.begin() as work:
            await add_thing(work, "x")
            work.emit("pricing.thing.add", "things/1", {"name": "x"})
    async with store.begin(GLOBEX) as work:
        work.emit("pricing.thing.expire", "things/2")
    superuser = await things.superuser()
    rows = await superuser.fetch("SELECT payload FROM pricing.outbox ORDER BY organization_id")
    await superuser.close()
    ours, theirs = (json.loads(row["payload"]) for row in rows)
    who = {key: ours[key] for key in ("actor", "responsible_person", "role", "authority", "request_id", "metadata")}
    assert who == {
        "actor": "user:7",
        "responsible_person": str(person),
        "role": "FINOPS",
        "authority": "passport:j",
        "request_id": "q",
        "metadata": {"name": "x"},
    }
    assert (theirs["actor"], theirs["role"], theirs["authority"]) == ("process:pricing", "SYSTEM", "system")


async def test_a_repeated_request_gets_the_first_answer(store: Store) -> None:
    calls = 0

    async def decide(work: UnitOfWork) -> AddMemberResponse:
        nonlocal calls
        calls += 1
        thing = await add_thing(work, "x")
        work.emit("pricing.thing.add", f"things/{thing}")
        answer = AddMemberResponse()
        answer.member.member_id = str(thing)
        return answer

    request = AddMemberRequest(request_id=str(uuid4()), email="a@example.com")
    with entered(context(action="pricing.thing.add")):
        assert await store.replayed(request, AddMemberResponse) is None
        first = await store.write(request, AddMemberResponse, decide)
        again = await store.write(request, AddMemberResponse, decide)
        assert (first, calls) == (again, 1)
        assert await store.replayed(request, AddMemberResponse) == first
        other = AddMemberRequest(request_id=request.request_id, email="b@example.com")
        with pytest.raises(AlreadyExists):
            await store.write(other, AddMemberResponse, decide)
    with entered(context(GLOBEX, "pricing.thing.add")):
        elsewhere = await store.write(request, AddMemberResponse, decide)
    with entered(context(action="pricing.thing.add", actor="user:2")):
        somebody_else = await store.write(request, AddMemberResponse, decide)
    assert len({each.member.member_id for each in (first, elsewhere, somebody_else)}) == 3


async def test_a_request_that_is_being_worked_on_is_not_worked_on_twice(store: Store) -> None:
    entered_it, go_on = asyncio.Event(), asyncio.Event()

    async def decide(work: UnitOfWork) -> AddMemberResponse:
        entered_it.set()
        await go_on.wait()
        await add_thing(work, "x")
        work.emit("pricing.thing.add", "things/1")
        return AddMemberResponse()

    request = AddMemberRequest(request_id=str(uuid4()))
    with entered(context(action="pricing.thing.add")):
        first = asyncio.create_task(store.write(request, AddMemberResponse, decide))
        await entered_it.wait()
        with pytest.raises(Conflict):
            await store.write(request, AddMemberResponse, decide)
        go_on.set()
        await first
        await store.write(request, AddMemberResponse, decide)
    assert await count(store) == 1


async def test_a_refused_request_may_be_made_again(store: Store) -> None:
    async def refuse(work: UnitOfWork) -> AddMemberResponse:
        await add_thing(work, "x")
        raise ZeroDivisionError

    async def accept(work: UnitOfWork) -> AddMemberResponse:
        await add_thing(work, "x")
        work.emit("pricing.thing.add", "things/1")
        return AddMemberResponse()

    request = AddMemberRequest(request_id=str(uuid4()))
    with entered(context(action="pricing.thing.add")):
        with pytest.raises(ZeroDivisionError):
            await store.write(request, AddMemberResponse, refuse)
        await store.write(request, AddMemberResponse, accept)
    assert await count(store) == 1


async def test_tasks_are_woken_by_a_commit_and_by_nothing_else(store: Store) -> None:
    woken: list[str] = []
    store.on_events = lambda: woken.append("events")
    store.on_jobs = lambda: woken.append("jobs")
    with pytest.raises(ZeroDivisionError):
        async with store.begin(ACME, context()) as work:
            work.emit("pricing.thing.add", "things/1")
            raise ZeroDivisionError
    assert woken == []
    await add_with_event(store)
    assert woken == ["events"]


async def test_roles_of_tasks_can_do_no_more_than_their_task(things: TestDatabase) -> None:
    forbidden = {
        "pricing_relay": [
            "UPDATE pricing.outbox SET action = ''",  # What it may do to a payload: test_mesh_data_clearing.py.
            "DELETE FROM pricing.outbox",
            "SELECT * FROM pricing.things",
            "UPDATE pricing.outbox_counters SET value = 0",
        ],
        "pricing_dispatcher": [
            "SELECT warrant FROM pricing.jobs",
            "SELECT subject_id FROM pricing.jobs",
            "UPDATE pricing.jobs SET fence = 0",
            "SELECT * FROM pricing.outbox",
        ],
        "pricing_worker": [
            "SELECT warrant FROM pricing.jobs",
            "UPDATE pricing.jobs SET fence = 0",
            "UPDATE pricing.jobs SET subject_id = job_id",
            "DELETE FROM pricing.jobs",
            "INSERT INTO pricing.jobs (organization_id) VALUES (NULL)",
        ],
    }
    for user, statements in forbidden.items():
        connection = await things.login(user)
        for statement in statements:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
        await connection.close()
