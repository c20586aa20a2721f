"""The unit of work on a real PostgreSQL: tenancy, the owed event, gapless counters, repeated requests, jobs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from recoup.identity.v1.identity_service_pb2 import AddMemberRequest, AddMemberResponse
from services._mesh import schema
from services._mesh.clock import Clock
from services._mesh.context import CallContext, entered
from services._mesh.errors import AlreadyExists
from services._mesh.relay import PendingEvent, Relay
from services._mesh.uow import EventOwed, Store, UnitOfWork
from tests.support.postgres import TestDatabase, drop, new_database

ACME, GLOBEX = UUID(int=1), UUID(int=2)


@pytest.fixture
async def database() -> AsyncIterator[TestDatabase]:
    made = await new_database()
    superuser = await made.superuser()
    await superuser.execute("SET ROLE pricing_owner")
    for statement in [
        *schema.mesh_tables("pricing", jobs=True, worker=True),
        "CREATE TABLE pricing.things (organization_id uuid NOT NULL, thing_id uuid NOT NULL, name text NOT NULL,"
        " PRIMARY KEY (organization_id, thing_id))",
        *schema.tenancy("pricing", "things", "state"),
        *schema.allow("pricing", "things", api="SELECT, INSERT, UPDATE, DELETE"),
    ]:
        await superuser.execute(statement)
    await superuser.close()
    yield made
    await drop(made)


@pytest.fixture
async def store(database: TestDatabase) -> AsyncIterator[Store]:
    role = database.role("pricing_api")
    yield Store(role, "pricing", Clock())
    await role.close()


def context(organization: UUID = ACME, action: str = "") -> CallContext:
    return CallContext(
        rpc="test/Write",
        peer="gateway",
        request_id="r",
        trace_id="",
        deadline=None,
        organization_id=organization,
        actor="user:1",
        audit_action=action,
    )


async def add(work: UnitOfWork, name: str) -> UUID:
    thing = uuid4()
    await work.execute(
        text("INSERT INTO pricing.things VALUES (:o, :t, :n)"), {"o": work.organization_id, "t": thing, "n": name}
    )
    return thing


async def test_rows_of_another_organization_are_not_there(store: Store) -> None:
    async with store.begin(ACME, context()) as work:
        await add(work, "ours")
        work.emit("pricing.thing.add", "things/1")
    async with store.read(GLOBEX) as connection:
        assert (await connection.execute(text("SELECT count(*) FROM pricing.things"))).scalar() == 0
    async with store.read(ACME) as connection:
        assert (await connection.execute(text("SELECT count(*) FROM pricing.things"))).scalar() == 1


async def test_writing_for_another_organization_is_refused(store: Store) -> None:
    with pytest.raises(DBAPIError, match="row-level security"):
        async with store.begin(ACME, context()) as work:
            await work.execute(text("INSERT INTO pricing.things VALUES (:o, :t, 'x')"), {"o": GLOBEX, "t": uuid4()})


async def test_a_pooled_connection_forgets_its_organization(database: TestDatabase) -> None:
    role = database.role("pricing_api", pool_size=1)
    store = Store(role, "pricing", Clock())
    async with store.begin(ACME, context()) as work:
        await add(work, "ours")
        work.emit("pricing.thing.add", "things/1")
    with pytest.raises(ZeroDivisionError):
        async with store.begin(ACME, context()):
            raise ZeroDivisionError
    # The same connection, without an organization: the setting is '' after a commit, and matches nothing.
    async with role.unscoped() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM pricing.things"))).scalar() == 0
    await role.close()


async def test_a_state_change_without_its_event_does_not_commit(store: Store) -> None:
    with pytest.raises(EventOwed, match="without its event"):
        async with store.begin(ACME, context()) as work:
            await add(work, "silent")
    async with store.read(ACME) as connection:
        assert (await connection.execute(text("SELECT count(*) FROM pricing.things"))).scalar() == 0


async def test_the_rules_own_event_is_owed(store: Store) -> None:
    async def decide(work: UnitOfWork) -> AddMemberResponse:
        await add(work, "x")
        work.emit("pricing.thing.other", "things/1")
        return AddMemberResponse()

    with entered(context(action="pricing.thing.add")), pytest.raises(EventOwed):
        await store.write(AddMemberRequest(), AddMemberResponse, decide)


async def test_counters_are_gapless_under_concurrency_and_rollback(store: Store, database: TestDatabase) -> None:
    async def one(number: int) -> None:
        try:
            async with store.begin(ACME, context()) as work:
                await add(work, str(number))
                work.emit("pricing.thing.add", "things/1")
                work.emit("pricing.thing.name", "things/1")
                if number % 3 == 0:
                    await work.flush_events(None)
                    raise ZeroDivisionError
        except ZeroDivisionError:
            pass

    await asyncio.gather(*(one(number) for number in range(30)))
    superuser = await database.superuser()
    counters = [r[0] for r in await superuser.fetch("SELECT counter FROM pricing.outbox ORDER BY counter")]
    await superuser.close()
    assert counters == list(range(1, 41))


async def test_a_repeated_request_gets_the_first_answer(store: Store) -> None:
    calls = 0

    async def decide(work: UnitOfWork) -> AddMemberResponse:
        nonlocal calls
        calls += 1
        thing = await add(work, "x")
        work.emit("pricing.thing.add", f"things/{thing}")
        answer = AddMemberResponse()
        answer.member.member_id = str(thing)
        return answer

    request = AddMemberRequest(request_id=str(uuid4()), email="a@example.com")
    with entered(context(action="pricing.thing.add")):
        first = await store.write(request, AddMemberResponse, decide)
        again = await store.write(request, AddMemberResponse, decide)
        assert (first, calls) == (again, 1)
        other = AddMemberRequest(request_id=request.request_id, email="b@example.com")
        with pytest.raises(AlreadyExists):
            await store.write(other, AddMemberResponse, decide)
    with entered(context(GLOBEX, "pricing.thing.add")):
        elsewhere = await store.write(request, AddMemberResponse, decide)
    assert (elsewhere.member.member_id != first.member.member_id, calls) == (True, 2)


async def test_the_relay_keeps_rows_until_the_log_has_answered(store: Store, database: TestDatabase) -> None:
    for organization in (ACME, GLOBEX, ACME):
        async with store.begin(organization, context(organization)) as work:
            await add(work, "x")
            work.emit("pricing.thing.add", "things/1")
    log: list[UUID] = []
    fail = True

    async def append(events: list[PendingEvent]) -> list[int]:
        for event in events:
            if event.event_id not in log:
                log.append(event.event_id)
        if fail:
            raise ConnectionError  # appended, but the answer is lost
        return [log.index(event.event_id) for event in events]

    relay_role = database.role("pricing_relay")
    relay = Relay(relay_role, "pricing", append)  # type: ignore[arg-type]
    with pytest.raises(ConnectionError):
        await relay.round()
    fail = False
    assert await relay.round() == 3
    assert await relay.round() == 0
    superuser = await database.superuser()
    rows = await superuser.fetch("SELECT event_id, log_index FROM pricing.outbox")
    await superuser.close()
    await relay_role.close()
    assert len(log) == 3
    assert {row["event_id"]: row["log_index"] for row in rows} == {event: log.index(event) for event in log}


async def test_the_relay_may_not_change_what_an_event_says(database: TestDatabase) -> None:
    connection = await database.login("pricing_relay")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute("UPDATE pricing.outbox SET payload = ''")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute("SELECT * FROM pricing.things")
    await connection.close()


async def test_the_dispatcher_sees_no_payload(database: TestDatabase) -> None:
    connection = await database.login("pricing_dispatcher")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute("SELECT warrant FROM pricing.jobs")
    assert await connection.fetch("SELECT job_id, due_at, status FROM pricing.jobs") == []
    await connection.close()
