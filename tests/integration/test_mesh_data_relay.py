"""The relay and the reconciler against the real log: real gRPC, real sequencer, real tables."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from uuid import UUID

import pytest

from recoup.audit.v1.audit_service_pb2_grpc import add_AuditServiceServicer_to_server
from services._mesh import reconcile, relay
from services._mesh.clock import Clock
from services._mesh.denials import Denial
from services._mesh.errors import Denied, Unavailable
from services._mesh.log_client import LogClient, Summary
from services._mesh.metrics import Metrics
from services._mesh.producing import denial_recorder, difference_recorder
from services._mesh.reconcile import Reconciler
from services._mesh.relay import PendingEvent, Relay
from services._mesh.uow import PLATFORM, Store
from services.audit.model.alarms import Alarm, AlarmKind
from services.audit.rpc import AuditRpc
from tests.support.log import recorded, sequencer
from tests.support.postgres import TestDatabase
from tests.support.things import ACME, GLOBEX, INITECH, add_thing, context, install, serving

pytestmark = pytest.mark.services("audit")


class Producer:
    """A service that produces, and the log."""

    metrics: Metrics

    def __init__(self, database: TestDatabase, store: Store, relay: Relay, reconciler: Reconciler) -> None:
        self.database, self.store, self.relay, self.reconciler = database, store, relay, reconciler

    async def told(self, organization: UUID = ACME) -> list[dict[str, str]]:
        """The metadata of the events about differences that stand in the log, relayed now."""
        await self.relay_all()
        found = await recorded(self.database, organization, "pricing.outbox.differ")
        return [json.loads(each.payload)["metadata"] for each in found]

    async def change(self, organization: UUID, count: int = 1, action: str = "pricing.thing.add") -> None:
        for _ in range(count):
            async with self.store.begin(organization, context(organization)) as work:
                thing = await add_thing(work, "x")
                work.emit(action, f"things/{thing}")

    async def relay_all(self) -> int:
        total = 0
        while moved := await self.relay.round():
            total += moved
        return total

    async def rows(self, statement: str) -> list[tuple[object, ...]]:
        superuser = await self.database.superuser()
        found = await superuser.fetch(statement)
        await superuser.close()
        return [tuple(row) for row in found]

    async def tamper(self, statement: str) -> None:
        """As somebody would who has the superuser's password."""
        superuser = await self.database.superuser()
        await superuser.execute(statement)
        await superuser.close()


class Flaky(LogClient):
    """The real client, whose answers can be lost after the log has taken the events."""

    lose_answers = False
    silent_about: UUID | None = None
    alarms: list[Alarm]

    async def append(self, events: Sequence[PendingEvent]) -> list[int]:
        indexes = await super().append(events)
        if self.lose_answers:
            raise ConnectionError
        return indexes

    async def summarize(self, organization_id: UUID, first: int, last: int, *, with_ids: bool = False) -> Summary:
        if organization_id == self.silent_about:
            raise ConnectionError
        return await super().summarize(organization_id, first, last, with_ids=with_ids)


@pytest.fixture
async def client(database: TestDatabase) -> AsyncIterator[Flaky]:
    reader = database.role("audit_api")
    alarms: list[Alarm] = []
    async with sequencer(database, alarms.append) as log:
        rpc = AuditRpc(Store(reader, "audit", Clock()), None, log, None, None, None, None)  # type: ignore[arg-type]
        async with serving(lambda server: add_AuditServiceServicer_to_server(rpc, server), "pricing") as channel:
            made = Flaky(channel)
            made.alarms = alarms
            yield made
    await reader.close()


@pytest.fixture
async def producer(database: TestDatabase, client: Flaky) -> AsyncIterator[Producer]:
    await install(database)
    api, relaying = database.role("pricing_api"), database.role("pricing_relay")
    store, metrics = Store(api, "pricing", Clock()), Metrics()
    made = Producer(
        database,
        store,
        Relay(relaying, "pricing", client.append),
        Reconciler(relaying, "pricing", client, metrics, difference_recorder("pricing", store)),
    )
    made.metrics = metrics
    yield made
    await api.close()
    await relaying.close()


async def test_events_reach_the_log_in_the_order_of_their_counters(producer: Producer) -> None:
    for organization in (ACME, GLOBEX, ACME, PLATFORM, ACME):
        await producer.change(organization, 3)
    assert await producer.relay_all() == 15
    ours = await producer.rows("SELECT event_id, counter, log_index FROM pricing.outbox ORDER BY event_id")
    theirs = await producer.rows("SELECT event_id, producer_counter, idx FROM audit.entries ORDER BY event_id")
    assert ours == theirs
    acme = await producer.rows(
        f"SELECT organization_seq, producer_counter FROM audit.entries WHERE organization_id = '{ACME}' ORDER BY idx"
    )
    assert acme == [(n, n) for n in range(1, 10)]


async def test_an_answer_lost_between_append_and_mark_costs_no_event_and_no_copy(
    producer: Producer, client: Flaky
) -> None:
    await producer.change(ACME, 5)
    client.lose_answers = True
    with pytest.raises(ConnectionError):
        await producer.relay.round()
    assert await producer.rows("SELECT count(*) FROM pricing.outbox WHERE log_index IS NULL") == [(5,)]
    client.lose_answers = False
    await producer.change(ACME, 2)
    assert await producer.relay_all() == 7
    assert await producer.rows("SELECT count(*), max(organization_seq) FROM audit.entries") == [(7, 7)]
    assert await producer.reconciler.round() == []


async def test_two_relays_at_once_copy_nothing(producer: Producer, client: Flaky, database: TestDatabase) -> None:
    other = database.role("pricing_relay")
    rival = Relay(other, "pricing", client.append)
    for organization in (ACME, GLOBEX, INITECH):
        await producer.change(organization, 10)
    await asyncio.gather(producer.relay.round(), rival.round(), producer.relay.round())
    await producer.relay_all()
    await other.close()
    assert await producer.rows("SELECT count(*), count(DISTINCT event_id) FROM audit.entries") == [(30, 30)]


async def test_a_refused_event_holds_up_no_other_organization_of_its_append(producer: Producer) -> None:
    for organization in (ACME, INITECH):
        await producer.change(organization, 2)
    await producer.change(GLOBEX, 2, action="scanner.thing.add")  # Not ours to say; the log refuses it.
    with pytest.raises(Denied):
        await producer.relay.round()
    logged = await producer.rows("SELECT DISTINCT organization_id FROM audit.entries ORDER BY organization_id")
    assert logged == sorted([(ACME,), (INITECH,)])
    marked = await producer.rows("SELECT organization_id FROM pricing.outbox_counters WHERE relayed = value")
    assert sorted(marked) == logged


async def test_a_log_that_did_not_answer_is_not_asked_for_each_organization(
    producer: Producer, database: TestDatabase
) -> None:
    asked: list[int] = []

    async def append(events: Sequence[PendingEvent]) -> Sequence[int]:
        asked.append(len(events))
        raise Unavailable(0, "away")  # type: ignore[arg-type]

    for organization in (ACME, GLOBEX, INITECH):
        await producer.change(organization)
    relaying = database.role("pricing_relay")
    with pytest.raises(Unavailable):
        await Relay(relaying, "pricing", append).round()
    await relaying.close()
    assert asked == [3]


async def test_a_refused_event_holds_up_its_own_organization_only(
    producer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "ORGANIZATIONS_A_ROUND", 1)
    await producer.change(ACME, action="scanner.thing.add")  # Not ours to say; the log refuses it.
    await producer.change(GLOBEX)
    with pytest.raises(Denied):
        await producer.relay.round()
    assert await producer.relay.round() == 1
    assert await producer.rows(f"SELECT count(*) FROM audit.entries WHERE organization_id = '{GLOBEX}'") == [(1,)]


def value_of(metrics: Metrics, name: str) -> float:
    """A metric of the service "pricing"; it has to be there."""
    (line,) = (line for line in metrics.render().splitlines() if line.startswith(f'{name}{{service="pricing"}} '))
    return float(line.rpartition(" ")[2])


async def test_a_log_that_is_away_is_waited_for_and_shows_in_the_metrics(database: TestDatabase) -> None:
    await install(database)
    api, relaying = database.role("pricing_api"), database.role("pricing_relay")
    metrics = Metrics()
    up = asyncio.Event()

    async def append(events: Sequence[PendingEvent]) -> Sequence[int]:
        if not up.is_set():
            raise Unavailable(0, "away")  # type: ignore[arg-type]
        return [event.counter for event in events]

    task_of = Relay(relaying, "pricing", append, metrics=metrics)
    store = Store(api, "pricing", Clock())
    store.on_events = task_of.wake
    task = asyncio.create_task(task_of.run())
    async with store.begin(ACME) as work:
        work.emit("pricing.thing.add", "things/1")
    async with asyncio.timeout(10):
        while value_of(metrics, "recoup_outbox_refused") == 0:
            await asyncio.sleep(0.01)
        assert value_of(metrics, "recoup_outbox_relayed") == 0
        up.set()
        while value_of(metrics, "recoup_outbox_relayed") == 0:
            await asyncio.sleep(0.01)
    assert value_of(metrics, "recoup_outbox_relayed") == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await api.close()
    await relaying.close()


async def test_the_reconciler_names_what_differs(producer: Producer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile, "WINDOW", 4)
    for organization in (ACME, GLOBEX):
        await producer.change(organization, 10)
    await producer.relay_all()
    assert await producer.reconciler.round() == []
    gone = await producer.rows(f"SELECT event_id FROM pricing.outbox WHERE organization_id='{ACME}' AND counter = 6")
    await producer.tamper(f"DELETE FROM pricing.outbox WHERE event_id = '{gone[0][0]}'")
    (difference,) = await producer.reconciler.round(full=True)
    assert (difference.organization_id, difference.first, difference.last) == (ACME, 5, 8)
    assert (difference.outbox_count, difference.log_count) == (3, 4)
    assert (difference.only_in_log, difference.only_in_outbox) == ((gone[0][0],), ())
    assert str(gone[0][0]) in str(difference)


async def test_the_reconciler_names_an_event_that_was_replaced(producer: Producer) -> None:
    await producer.change(ACME, 3)
    await producer.relay_all()
    await producer.tamper(f"UPDATE pricing.outbox SET event_id = '{UUID(int=5)}' WHERE counter = 2")
    (difference,) = await producer.reconciler.round(full=True)
    assert difference.only_in_outbox == (UUID(int=5),)
    assert len(difference.only_in_log) == 1


async def test_what_cannot_be_compared_hides_no_difference_of_others(producer: Producer, client: Flaky) -> None:
    for organization in (ACME, GLOBEX):
        await producer.change(organization, 3)
    await producer.relay_all()
    await producer.tamper(f"DELETE FROM pricing.outbox WHERE organization_id = '{max(ACME, GLOBEX)}' AND counter = 2")
    client.silent_about = min(ACME, GLOBEX)
    with pytest.raises(ConnectionError):
        await producer.reconciler.round()
    (told,) = await producer.told(max(ACME, GLOBEX))
    assert told["missing_counters"] == "2"
    finished = "recoup_outbox_reconciled_timestamp_seconds"
    assert value_of(producer.metrics, finished) == 0
    client.silent_about = None
    assert len(await producer.reconciler.round(full=True)) == 1
    assert value_of(producer.metrics, finished) > 0


async def test_an_event_deleted_before_it_was_relayed_is_noticed(producer: Producer, client: Flaky) -> None:
    await producer.change(ACME, 3)
    await producer.tamper("DELETE FROM pricing.outbox WHERE counter = 2")
    await producer.relay_all()
    (difference,) = await producer.reconciler.round()
    assert (difference.outbox_count, difference.log_count, difference.last) == (2, 2, 3)
    assert difference.missing == (2,)
    assert "counters without a row in the outbox: 2" in str(difference)
    (alarm,) = client.alarms
    assert (alarm.kind, alarm.organization_id) == (AlarmKind.COUNTER_GAP, ACME)
    assert alarm.metadata == {"producer": "pricing", "after": "1", "before": "3"}
    assert 'recoup_outbox_differences{service="pricing"} 1' in producer.metrics.render()
    (told,) = await producer.told()
    assert told == {
        "first": "1",
        "last": "3",
        "outbox_count": "2",
        "log_count": "2",
        "only_in_log": "none",
        "only_in_outbox": "none",
        "missing_counters": "2",
    }
    # Found again in each round, it is told once, though the event about it moved the counters on.
    assert len(await producer.reconciler.round(full=True)) == 1
    assert len(await producer.told()) == 1


@pytest.mark.parametrize("before", [0, 2])
async def test_the_last_events_deleted_before_they_were_relayed_are_noticed(producer: Producer, before: int) -> None:
    """Nothing came after them: no gap shows in the log."""
    await producer.change(ACME, before)
    await producer.relay_all()
    await producer.change(ACME, 2)
    assert await producer.reconciler.round() == []
    await producer.tamper(f"DELETE FROM pricing.outbox WHERE counter > {before}")
    assert await producer.relay_all() == 0
    (difference,) = await producer.reconciler.round()
    assert difference.missing == (before + 1, before + 2)
    (told,) = await producer.told()
    assert told["missing_counters"] == f"{before + 1}, {before + 2}"


async def test_an_event_about_a_difference_names_no_more_ids_than_fit(
    producer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "TOLD_A_ROUND", 1)
    monkeypatch.setattr(reconcile, "WINDOW", 30)
    await producer.change(ACME, 60)
    await producer.relay_all()
    rows = await producer.rows("SELECT event_id FROM pricing.outbox WHERE counter <= 25 ORDER BY event_id")
    await producer.tamper("DELETE FROM pricing.outbox WHERE counter <= 25 OR counter = 31")
    assert len(await producer.reconciler.round(full=True)) == 2
    (first,) = await producer.told()
    assert first["only_in_log"] == ", ".join(str(row[0]) for row in rows[:20])
    assert (first["outbox_count"], first["log_count"]) == ("5", "30")
    # What found no room in this round has its event in the next.
    await producer.reconciler.round()
    assert len(await producer.told()) == 2


async def test_what_was_compared_is_not_compared_again_until_a_full_round(producer: Producer) -> None:
    await producer.change(ACME, 3)
    await producer.relay_all()
    assert await producer.reconciler.round() == []
    await producer.tamper("DELETE FROM pricing.outbox WHERE counter = 2")
    assert await producer.reconciler.round() == []
    assert len(await producer.reconciler.round(full=True)) == 1
    # A difference stays until it is mended.
    assert len(await producer.reconciler.round()) == 1


async def test_denials_are_recorded_under_the_callers_own_organization(producer: Producer) -> None:
    now = Clock().now()
    record = denial_recorder("pricing", producer.store)
    await record(
        [
            Denial(ACME, "user:1", "gateway", "x/Y", "PERMISSION_MISSING", 7, now, now, ""),
            Denial(None, "nobody", "gateway", "x/Y", "CREDENTIAL_MISSING", 9, now, now, ""),
        ]
    )
    await producer.relay_all()
    found = await producer.rows("SELECT organization_id, action, result FROM audit.entries ORDER BY organization_id")
    assert found == [(PLATFORM, "pricing.access.deny", "DENIED"), (ACME, "pricing.access.deny", "DENIED")]
