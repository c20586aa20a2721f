"""Payloads leave an outbox when they may, and never before: a producer and the real log, real roles, real gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from recoup.audit.v1.audit_service_pb2_grpc import add_AuditServiceServicer_to_server
from services._mesh import clearing
from services._mesh.clearing import Clearing
from services._mesh.database import Database
from services._mesh.errors import Unavailable
from services._mesh.log_client import LogClient
from services._mesh.metrics import Metrics
from services._mesh.reconcile import Reconciler
from services._mesh.relay import PendingEvent, Relay
from services._mesh.uow import PLATFORM, Store
from services.audit.erased import ErasedEvents
from services.audit.own_log import OwnLog
from services.audit.rpc import AuditRpc
from tests.support.erasing import ADA, BOB, EVE, Vault, vault
from tests.support.postgres import TestDatabase
from tests.support.things import ACME, GLOBEX, MovableClock, add_thing, context, install, serving

pytestmark = pytest.mark.services("audit")

DAYS = 30
CANARY = "canary-3f1b"


class Producer:
    """The service of the tests, its tasks, and the log that it produces for."""

    def __init__(self, vault: Vault, client: LogClient, roles: dict[str, Database]) -> None:
        self.vault, self.clock, self.metrics, self.client = vault, MovableClock(), Metrics(), client
        self.store = Store(roles["api"], "pricing", self.clock)
        self.relay = Relay(roles["relay"], "pricing", client.append, self.clock)
        self.reconciler = Reconciler(roles["relay"], "pricing", client)
        self.told: list[tuple[UUID, UUID]] = []
        self.clearing = Clearing(roles["relay"], "pricing", client, self.clock, DAYS, self.metrics, self.forget)

    async def forget(self, organization: UUID, event_ids: Sequence[UUID]) -> None:
        """What a service does that keeps more of its events."""
        self.told += [(organization, event_id) for event_id in event_ids]

    async def act(self, person: UUID, count: int = 1, organization: UUID = ACME) -> None:
        call = context(organization, actor=f"user:{person}", responsible_person=person, role="FINOPS")
        for _ in range(count):
            async with self.store.begin(organization, call) as work:
                thing = await add_thing(work, "x")
                work.emit("pricing.thing.add", f"things/{thing}", {"note": CANARY})

    async def relayed(self, person: UUID, count: int = 1, organization: UUID = ACME) -> None:
        await self.act(person, count, organization)
        while await self.relay.round():
            pass

    async def cleared_all(self) -> int:
        total = 0
        while passed := await self.clearing.clear_aged():
            total += passed
        return total

    async def fetch(self, statement: str) -> list[tuple[Any, ...]]:
        superuser = await self.vault.database.superuser()
        try:
            return [tuple(row) for row in await superuser.fetch(statement)]
        finally:
            await superuser.close()

    async def kept(self) -> list[tuple[Any, ...]]:
        return [
            row[0]
            for row in await self.fetch("SELECT counter FROM pricing.outbox WHERE payload IS NOT NULL ORDER BY 1")
        ]

    def metric(self, name: str) -> str:
        (line,) = (line for line in self.metrics.render().splitlines() if line.startswith(name))
        return line.rpartition(" ")[2]


@asynccontextmanager
async def client_of(made: Vault, peer: str = "pricing") -> AsyncIterator[LogClient]:
    dispatcher = made.database.role("audit_dispatcher", 2)
    erased = ErasedEvents(dispatcher, made.store)
    rpc = AuditRpc(made.store, None, made.log, None, None, None, None, erased=erased)  # type: ignore[arg-type]
    async with serving(lambda server: add_AuditServiceServicer_to_server(rpc, server), peer) as channel:
        yield LogClient(channel)
    await dispatcher.close()


@pytest.fixture
async def producer(database: TestDatabase) -> AsyncIterator[Producer]:
    await install(database)
    roles = {name: database.role(f"pricing_{name}") for name in ("api", "relay")}
    async with vault(database) as made, client_of(made) as client:
        yield Producer(made, client, roles)
    await asyncio.gather(*(role.close() for role in roles.values()))


async def test_a_payload_goes_when_its_time_is_over_and_the_row_stays(producer: Producer) -> None:
    await producer.relayed(EVE, 3)
    await producer.relayed(EVE, 2, PLATFORM)
    before = await producer.fetch("SELECT event_id, counter, action, log_index FROM pricing.outbox ORDER BY event_id")
    producer.clock.ahead = timedelta(days=DAYS) - timedelta(minutes=1)
    assert await producer.cleared_all() == 0
    assert len(await producer.kept()) == 5
    await producer.relayed(EVE)
    producer.clock.ahead = timedelta(days=DAYS, minutes=1)
    assert await producer.cleared_all() == 5
    assert await producer.kept() == [4]
    after = await producer.fetch("SELECT event_id, counter, action, log_index FROM pricing.outbox ORDER BY event_id")
    assert after[:5] == before
    assert producer.metric('recoup_outbox_payloads_cleared{cause="age",service="pricing"}') == "5"
    assert await producer.cleared_all() == 0
    # Reconciling needs no payload, and names what is missing as ever.
    assert await producer.reconciler.round(full=True) == []
    gone = await producer.fetch("DELETE FROM pricing.outbox WHERE counter = 2 RETURNING event_id")
    assert {found.only_in_log for found in await producer.reconciler.round(full=True)} == {(row[0],) for row in gone}


async def test_what_has_no_index_keeps_its_payload_however_old(producer: Producer) -> None:
    await producer.relayed(EVE)
    await producer.act(EVE, 2)
    producer.clock.ahead = timedelta(days=400)
    assert await producer.cleared_all() == 1
    assert await producer.kept() == [2, 3]
    # What was relayed late has its whole time from then on.
    assert await producer.relay.round() == 2
    assert await producer.cleared_all() == 0
    producer.clock.ahead = timedelta(days=400 + DAYS, minutes=1)
    assert await producer.cleared_all() == 2


async def test_more_than_a_batch_and_counters_without_a_row(
    producer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clearing, "BATCH", 2)
    monkeypatch.setattr(clearing, "WINDOW", 3)
    await producer.relayed(EVE, 10)
    await producer.fetch("DELETE FROM pricing.outbox WHERE counter BETWEEN 4 AND 8")
    producer.clock.ahead = timedelta(days=DAYS, minutes=1)
    assert await producer.cleared_all() == 10
    assert await producer.kept() == []


async def test_what_the_log_lost_is_kept_and_can_be_appended_again(producer: Producer) -> None:
    await producer.relayed(EVE, 5)
    await producer.relayed(EVE, 1, GLOBEX)
    # As after a restore of the log to an older state: it holds two of the five.
    lost = await producer.fetch("SELECT event_id FROM pricing.outbox WHERE counter > 2")
    unsealed = "SET event_triggers = off; SET session_replication_role = replica;"
    ids = ", ".join(f"'{row[0]}'" for row in lost)
    superuser = await producer.vault.database.superuser()
    await superuser.execute(f"{unsealed} ALTER TABLE audit.entries DISABLE TRIGGER append_only")
    for partition in range(8):
        await superuser.execute(f"ALTER TABLE audit.entries_s{partition} DISABLE TRIGGER append_only")
    await superuser.execute("ALTER TABLE audit.dedup DISABLE TRIGGER append_only")
    await superuser.execute(f"DELETE FROM audit.entries WHERE event_id IN ({ids})")
    await superuser.execute(f"DELETE FROM audit.dedup WHERE event_id IN ({ids})")
    await superuser.close()
    producer.clock.ahead = timedelta(days=DAYS + 2)
    assert await producer.cleared_all() == 3
    assert await producer.kept() == [3, 4, 5]
    assert 86_400 < float(producer.metric('recoup_outbox_payload_overdue_seconds{service="pricing"}')) < 3 * 86_400
    (difference,) = await producer.reconciler.round(full=True)
    assert set(difference.only_in_outbox) == {row[0] for row in lost}

    # The runbook's two statements, as the relay's role.
    relaying = await producer.vault.database.login("pricing_relay")
    async with relaying.transaction():
        await relaying.execute(f"SELECT set_config('app.organization_id', '{ACME}', true)")
        await relaying.execute(
            f"UPDATE pricing.outbox SET log_index = NULL WHERE event_id IN ({ids}) AND payload IS NOT NULL"
        )
        await relaying.execute(
            "UPDATE pricing.outbox_counters SET relayed = (SELECT min(counter) - 1 FROM pricing.outbox"
            f" WHERE log_index IS NULL) WHERE organization_id = '{ACME}'"
        )
    await relaying.close()
    assert await producer.relay.round() == 3
    assert await producer.reconciler.round(full=True) == []
    producer.clock.ahead = timedelta(days=3 * DAYS)
    assert await producer.cleared_all() == 3
    assert await producer.kept() == []


async def test_an_end_between_clearing_and_remembering_it_is_harmless(
    producer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await producer.relayed(EVE, 3)
    producer.clock.ahead = timedelta(days=DAYS, minutes=1)

    def killed(name: str) -> None:
        raise ConnectionError(name)

    with monkeypatch.context() as patched:
        patched.setattr(clearing, "reach", killed)
        with pytest.raises(ConnectionError, match=r"clearing\.cleared"):
            await producer.clearing.clear_aged()
    assert await producer.kept() == [1, 2, 3]
    assert await producer.cleared_all() == 3


async def test_a_log_that_does_not_answer_clears_nothing(producer: Producer, monkeypatch: pytest.MonkeyPatch) -> None:
    await producer.relayed(EVE, 3)
    producer.clock.ahead = timedelta(days=DAYS, minutes=1)

    async def away(*_: object, **__: object) -> object:
        raise Unavailable(0, "away")  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(producer.client, "summarize", away)
        with pytest.raises(Unavailable):
            await producer.clearing.clear_aged()
    assert await producer.kept() == [1, 2, 3]


async def test_an_erasure_leaves_nothing_of_the_person_in_any_outbox(producer: Producer) -> None:
    made = producer.vault
    await producer.relayed(EVE, 3)
    await producer.relayed(BOB, 1)
    await producer.relayed(EVE, 1, GLOBEX)
    await made.hold(EVE, UUID(int=0xF))  # An event of the log's own, in audit's outbox.
    while await made.relay.round():
        pass
    await producer.act(EVE)  # Not relayed yet: it will be under another key.
    await made.erased(EVE)
    assert await holding(producer, f"user:{EVE}") == ["audit.outbox", "pricing.outbox"]
    assert await producer.clearing.clear_erased() == 3
    own = ErasedEvents(dispatcher := made.database.role("audit_dispatcher", 1), made.store)
    relaying = made.database.role("audit_relay")
    at_log = Clearing(relaying, "audit", OwnLog(made.store, made.log, own), producer.clock, DAYS)
    assert await at_log.clear_erased() == 1
    await asyncio.gather(dispatcher.close(), relaying.close())
    left = await producer.fetch(
        "SELECT organization_id, counter FROM pricing.outbox WHERE payload IS NOT NULL ORDER BY 1, 2"
    )
    assert left == [(ACME, 4), (ACME, 5), (GLOBEX, 1)]
    assert await producer.relay.round() == 1
    # What she did since stands under a new key; asking again changes nothing of it, nor of another organization's.
    assert await producer.clearing.clear_erased(full=True) == 0
    assert await made.erased(EVE)
    await made.erased(EVE, GLOBEX)
    assert await producer.clearing.clear_erased() == 2
    assert await holding(producer, f"user:{EVE}") == []
    assert await producer.reconciler.round(full=True) == []
    producer.clock.ahead = timedelta(days=DAYS, minutes=1)
    assert await producer.cleared_all() == 6


async def holding(producer: Producer, canary: str) -> list[str]:
    """The tables of any service whose rows hold a text, in whatever column and encoding."""
    names = await producer.fetch(
        "SELECT n.nspname || '.' || c.relname, n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relkind = 'r' AND n.nspname IN ('audit', 'pricing', 'identity', 'scanner', 'actions') ORDER BY 1"
    )
    needles = (canary, canary.encode().hex())
    found = []
    for name, _ in names:
        rows = await producer.fetch(f"SELECT to_jsonb(t)::text FROM {name} t")
        if any(needle in row[0] for row in rows for needle in needles):
            found.append(name)
    return found


async def test_erased_events_come_in_pieces_and_to_their_own_producer(
    producer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.audit.erased.MOST", 2)
    await producer.relayed(EVE, 5)
    await producer.relayed(ADA, 1, GLOBEX)
    await producer.vault.erased(EVE)
    async with client_of(producer.vault, "scanner") as other:
        answer = await other.next_erased(producer.clock.now() - timedelta(days=1), None)
        assert answer is not None
        assert answer.event_ids == ()
        assert await other.next_erased(producer.clock.now() - timedelta(days=1), answer) is None
    assert await producer.client.next_erased(producer.clock.now() + timedelta(days=1), None) is None
    assert await producer.clearing.clear_erased() == 5
    erased = await producer.fetch("SELECT organization_id, event_id FROM pricing.outbox WHERE payload IS NULL")
    assert sorted(producer.told) == sorted(erased)


async def test_nobody_clears_what_the_log_has_not_named(producer: Producer, database: TestDatabase) -> None:
    await producer.relayed(EVE)
    await producer.act(EVE)
    refused: Sequence[tuple[str, str, type[Exception]]] = [
        ("pricing_api", "SET payload = NULL WHERE counter = 1", asyncpg.InsufficientPrivilegeError),
        ("pricing_worker", "SET payload = NULL WHERE counter = 1", asyncpg.InsufficientPrivilegeError),
        ("pricing_api", "SET payload = NULL WHERE counter = 2", asyncpg.InsufficientPrivilegeError),
        ("pricing_relay", "SET payload = NULL WHERE counter = 2", asyncpg.PostgresError),
        ("pricing_relay", "SET payload = NULL, log_index = 7 WHERE counter = 2", asyncpg.PostgresError),
        ("pricing_relay", "SET payload = '' WHERE counter = 1", asyncpg.PostgresError),
        ("pricing_relay", "SET payload = '' WHERE counter = 2", asyncpg.PostgresError),
        ("pricing_relay", "SET event_id = gen_random_uuid() WHERE counter = 1", asyncpg.InsufficientPrivilegeError),
        ("superuser", "SET payload = NULL WHERE counter = 2", asyncpg.PostgresError),
    ]
    for role, change, error in refused:
        login = await (database.superuser() if role == "superuser" else database.login(role))
        await login.execute(f"SELECT set_config('app.organization_id', '{ACME}', false)")
        with pytest.raises(error) as raised:
            await login.execute(f"UPDATE pricing.outbox {change}")
        if error is asyncpg.PostgresError:
            assert raised.value.sqlstate == "RC004", (role, change)
        await login.close()
    relaying = await database.login("pricing_relay")
    await relaying.execute(f"SELECT set_config('app.organization_id', '{ACME}', false)")
    assert await relaying.execute("UPDATE pricing.outbox SET payload = NULL WHERE counter = 1") == "UPDATE 1"
    # A cleared row can't be made one that waits: the relay would find nothing to append.
    with pytest.raises(asyncpg.CheckViolationError):
        await relaying.execute("UPDATE pricing.outbox SET log_index = NULL WHERE counter = 1")
    await relaying.close()
    with pytest.raises(asyncpg.CheckViolationError):
        await producer.fetch(
            "INSERT INTO pricing.outbox (organization_id, event_id, counter, action, occurred_at)"
            f" VALUES ('{ACME}', gen_random_uuid(), 9, 'pricing.x', now())"
        )


async def test_the_version_before_relays_on_while_this_one_clears(producer: Producer) -> None:
    await producer.relayed(EVE, 2)
    await producer.fetch("UPDATE pricing.outbox SET relayed_at = NULL")  # As the version before marks them.
    producer.clock.ahead = timedelta(days=DAYS, minutes=1)
    await producer.act(EVE)
    assert await producer.cleared_all() == 2
    assert await producer.kept() == [3]


async def test_the_task_clears_by_itself(producer: Producer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EVERY_SECONDS", "PAUSE_SECONDS"):
        monkeypatch.setattr(clearing, name, 0.01)
    monkeypatch.setattr(clearing, "AGED_EVERY_ROUNDS", 1)
    monkeypatch.setattr(clearing, "BATCH", 1)
    await producer.relayed(EVE, 3)
    await producer.relayed(BOB, 2)
    task = asyncio.create_task(producer.clearing.run())
    await producer.vault.erased(EVE)
    async with asyncio.timeout(20):
        while await producer.kept() != [4, 5]:
            await asyncio.sleep(0.01)
        producer.clock.ahead = timedelta(days=DAYS, minutes=1)
        while await producer.kept():
            await asyncio.sleep(0.01)
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_appending_again_what_was_cleared_is_never_tried(producer: Producer) -> None:
    appended: list[PendingEvent] = []

    async def append(events: Sequence[PendingEvent]) -> list[int]:
        appended.extend(events)
        return [event.counter for event in events]

    await producer.relayed(EVE, 2)
    producer.clock.ahead = timedelta(days=DAYS, minutes=1)
    await producer.cleared_all()
    relaying = producer.vault.database.role("pricing_relay", 1)
    assert await Relay(relaying, "pricing", append).round() == 0
    await relaying.close()
    assert appended == []
