"""Alarms are events of the log's own outbox: raised once, bounded, and relayed into the log like everybody's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from uuid import UUID

import pytest

from services._mesh import relay
from services._mesh.clock import Clock
from services._mesh.errors import Denied, WrongState
from services._mesh.metrics import Metrics
from services._mesh.reconcile import Reconciler
from services._mesh.relay import Relay
from services._mesh.uow import PLATFORM, Store
from services.audit import alarms as alarms_module
from services.audit import usecases
from services.audit.alarms import Alarms
from services.audit.model.alarms import AlarmKind
from services.audit.model.events import Produced
from services.audit.own_log import OwnLog
from services.audit.sequencer import Sequencer
from tests.support.log import ACME, GLOBEX, event, keys_of, recorded, sequencer
from tests.support.postgres import TestDatabase

pytestmark = pytest.mark.services("audit")


@dataclass
class Audit:
    """The audit process, as far as alarms go."""

    log: Sequencer
    alarms: Alarms
    relay: Relay
    reconciler: Reconciler
    metrics: Metrics
    database: TestDatabase

    async def written(self) -> list[dict[str, str]]:
        """The metadata of the alarms that stand in the log, relayed now, in order."""
        await self.relay.round()
        found = [
            each
            for organization in (ACME, GLOBEX, PLATFORM)
            for each in await recorded(self.database, organization, "audit.alarm.raise")
        ]
        return [json.loads(each.payload)["metadata"] for each in sorted(found, key=lambda each: each.place)]

    async def settled(self) -> None:
        """What was noted until now is raised."""
        async with asyncio.timeout(10):
            while self.alarms.waiting:
                await asyncio.sleep(0.01)


@pytest.fixture
async def audit(database: TestDatabase) -> AsyncIterator[Audit]:
    api, relaying, metrics = database.role("audit_api"), database.role("audit_relay"), Metrics()
    store = Store(api, "audit", Clock())
    alarms = Alarms(store, metrics)
    async with sequencer(database, alarms.note) as log:
        log.write_alarms = alarms.write_within
        log.used_counters = partial(usecases.used_counters, store)
        own = OwnLog(store, log)
        task = asyncio.create_task(alarms.run())
        yield Audit(
            log, alarms, Relay(relaying, "audit", own.append), Reconciler(relaying, "audit", own), metrics, database
        )
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await api.close()
    await relaying.close()


async def test_a_gap_and_a_conflict_become_events_of_their_organization(audit: Audit) -> None:
    first = event(1)
    await usecases.append_events(audit.log, "identity", [first, event(4)])
    changed = first.__class__(first.event_id, ACME, 5, first.payload.replace(b'"OK"', b'"NO"'))
    for _ in range(3):  # As a relay does that tries again: one alarm.
        with pytest.raises(Exception, match="another content"):
            await usecases.append_events(audit.log, "identity", [changed])
    await audit.settled()
    assert await audit.written() == [
        {"kind": "COUNTER_GAP", "producer": "identity", "after": "1", "before": "4"},
        {"kind": "EVENT_CONFLICT", "producer": "identity", "event_id": str(first.event_id)},
    ]
    assert await audit.reconciler.round() == []
    assert 'recoup_audit_alarms{kind="COUNTER_GAP"} 1' in audit.metrics.render()


async def test_who_appends_under_anothers_prefix_is_named_once(audit: Audit) -> None:
    tried = event(1, GLOBEX, action="actions.action.approve")
    for _ in range(2):
        with pytest.raises(Denied):
            await usecases.append_events(audit.log, "scanner", [tried], audit.alarms.note)
    await audit.settled()
    assert await audit.written() == [
        {
            "kind": "PREFIX_NOT_OWNED",
            "producer": "scanner",
            "action": "actions.action.approve",
            "event_id": str(tried.event_id),
        }
    ]


async def test_no_more_than_so_many_alarms_are_written_a_minute(audit: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alarms_module, "MAX_A_MINUTE", 3)
    for number in range(5):
        await audit.alarms.raise_(AlarmKind.SELF_CHECK_FAILED, ACME, {"first": str(number)})
    assert len(await audit.written()) == 3
    assert 'recoup_audit_alarms_held_back{kind="SELF_CHECK_FAILED"} 2' in audit.metrics.render()
    # Another kind isn't held back by it.
    assert await audit.alarms.raise_(AlarmKind.COUNTER_GAP, ACME, {"after": "1"})


async def test_a_producer_with_many_alarms_hides_nobody_elses(audit: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alarms_module, "MAX_A_MINUTE", 3)
    made_up = [event(n, action="scanner.scan.start") for n in range(2, 22, 2)]
    await usecases.append_events(audit.log, "scanner", made_up)
    await usecases.append_events(audit.log, "identity", [event(2)])  # The real one.
    gaps = [each["producer"] for each in await audit.written() if each["kind"] == "COUNTER_GAP"]
    assert gaps == ["scanner"] * 3 + ["identity"]
    monkeypatch.setattr(alarms_module, "WINDOW_SECONDS", 0.01)  # The window is over.
    async with asyncio.timeout(20):
        while not (summed := [each for each in await audit.written() if each["kind"] == "ALARMS_HELD_BACK"]):
            await asyncio.sleep(0.01)
    assert summed == [{"kind": "ALARMS_HELD_BACK", "of": "COUNTER_GAP", "producer": "scanner", "count": "7"}]


async def test_an_alarm_that_cant_be_written_yet_is_raised_later(audit: Audit) -> None:
    superuser = await audit.database.superuser()
    await superuser.execute("REVOKE INSERT ON audit.outbox FROM audit_api")
    for _ in range(alarms_module.MAX_A_MINUTE + 1):  # However often: what fails isn't held back by that.
        with pytest.raises(Exception, match="permission denied"):
            await audit.alarms.raise_(AlarmKind.COUNTER_GAP, ACME, {"after": "1"})
    await superuser.execute("GRANT INSERT ON audit.outbox TO audit_api")
    await superuser.close()
    assert await audit.alarms.raise_(AlarmKind.COUNTER_GAP, ACME, {"after": "1"})


@pytest.mark.parametrize("byte", [3, 40])  # Of its KEK's id, and of what is wrapped.
async def test_a_key_that_doesnt_open_refuses_its_own_subjects_appends_alone(audit: Audit, byte: int) -> None:
    first = event(1, actor="user:1")
    await usecases.append_events(audit.log, "identity", [first])
    keys, superuser = await (await keys_of(audit.database)).superuser(), await audit.database.superuser()
    await keys.execute("ALTER TABLE subjects.keys DISABLE TRIGGER only_destroyed")
    key_id = await keys.fetchval(
        f"UPDATE subjects.keys SET wrapped_key = set_byte(wrapped_key, {byte}, 7) RETURNING key_id"
    )
    await superuser.execute("UPDATE audit.head SET erasures = erasures + 1")  # Keys are looked up again.
    others = [event(n, organization, actor="user:2") for n, organization in ((2, ACME), (1, GLOBEX))]
    for _ in range(3):  # As a relay does that tries again: one alarm.
        answers = await asyncio.gather(
            usecases.append_events(audit.log, "identity", [event(3, actor="user:1"), event(4, actor="user:3")]),
            *(usecases.append_events(audit.log, "identity", [each]) for each in others),
            usecases.append_events(audit.log, "identity", [first]),  # The log has it: there is nothing to seal.
            return_exceptions=True,
        )
        assert isinstance(answers[0], WrongState)
        assert not isinstance(answers[0], relay._NOT_ANSWERED)  # So that a relay tries each organization by itself.
        assert sorted(places[0] for places in answers[1:] if isinstance(places, list)) == [0, 1, 2]
    assert await superuser.fetchval("SELECT count(*) FROM audit.entries") == 3
    await audit.settled()
    assert await audit.written() == [
        {
            "kind": "SUBJECT_KEY_BROKEN",
            "organization_id": str(ACME),
            "key_id": str(key_id),
            "how": "it doesn't open",
        }
    ]
    await keys.close()
    await superuser.close()


async def test_a_compromised_scanner_appends_under_an_old_counter(audit: Audit) -> None:
    def scan(counter: int, organization: UUID = ACME) -> Produced:
        return event(counter, organization, action="scanner.scan.start")

    await usecases.append_events(audit.log, "scanner", [scan(1), scan(2), scan(4), scan(1, GLOBEX)])
    late, taken, twice = scan(3), scan(2), [scan(5), scan(5)]
    await usecases.append_events(audit.log, "scanner", [late, taken])  # One fills the gap that is known.
    await usecases.append_events(audit.log, "scanner", twice)
    await usecases.append_events(audit.log, "scanner", [scan(2, GLOBEX), late])  # What the log has already is no news.
    await audit.settled()
    written = await audit.written()
    assert [each["kind"] for each in written] == ["COUNTER_GAP", "COUNTER_REUSED", "COUNTER_REUSED"]
    assert [(each["counter"], each["event_id"]) for each in written[1:]] == [
        ("2", str(taken.event_id)),
        ("5", str(twice[1].event_id)),
    ]


async def test_what_was_before_a_detached_shard_fills_no_gap(audit: Audit) -> None:
    """Whether the counter was used can't be told any more: the entry is in the archive."""
    superuser = await audit.database.superuser()
    await usecases.append_events(audit.log, "identity", [event(n) for n in (1, 2)])
    await superuser.execute("SET event_triggers = off")
    await superuser.execute(
        "ALTER TABLE audit.entries DETACH PARTITION audit.entries_s0; INSERT INTO audit.archive"
        " (shard, location, size, complete, archived_at, detached_at) VALUES (0, 'there', 2, true, now(), now())"
    )
    api = audit.database.role("audit_api", 1)
    store = Store(api, "audit", Clock())
    assert await usecases.used_counters(store, ACME, [("identity", 2), ("scanner", 1)]) == {
        ("identity", 2),
        ("scanner", 1),
    }
    await api.close()
    await superuser.close()
