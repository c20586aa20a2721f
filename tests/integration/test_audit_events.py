"""Asking the log for events, on a real PostgreSQL: each filter against a naive one, what it costs, who sees what."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from recoup.audit.v1 import audit_service_pb2
from services._mesh.clock import Clock
from services._mesh.context import entered
from services._mesh.descriptors import permission_rules
from services._mesh.errors import Invalid, NotFound
from services._mesh.uow import Store
from services.audit import store, usecases, wire
from services.audit.model.events import EventFilter, Produced, Recorded
from services.audit.model.visibility import VIEWS, is_visible, narrowed, view_of
from services.audit.opener import Opener
from tests.support.log import ACME, ACTORS, GLOBEX, event, opener, sequencer
from tests.support.postgres import TestDatabase
from tests.support.things import context

DAY0 = datetime(2026, 1, 1, tzinfo=UTC)
TRACE = "0123456789abcdef" * 2
ACTIONS = (
    *("scanner.scan.start", "scanner.scan.complete", "pricing.bill.run", "actions.action.request"),
    *("actions.action.approve", "actions.receipt.issue", "identity.member.add", "identity.member.addition"),
)
ALL = ("",)


def made_up() -> list[tuple[str, Produced]]:
    """Events of every kind; when they happened isn't the order in which they came."""
    found, counters = [], Counter[str]()
    for n in range(96):
        action = ACTIONS[n % len(ACTIONS)]
        producer = action.partition(".")[0]
        counters[producer] += 1
        at = DAY0 + timedelta(hours=n * 37 % 96)
        changes: dict[str, Any] = {
            "actor": f"user:{n % 3}" if n % 2 else f"spiffe://recoup/{producer}-worker",
            "role": ("ADMIN", "FINOPS")[n // 2 % 2] if n % 2 else "SYSTEM",
            "result": ("OK", "OK", "OK", "DENIED", "FAILED")[n % 5],
            "target": f"things/{n % 4}",
            "request_id": f"r{n % 6}",
            "trace_id": TRACE if n % 7 == 0 else "",
            "occurred_at": at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        }
        found.append((producer, event(counters[producer], action=action, **changes)))
    return found


@dataclass
class Log:
    """A log of made-up events, as the API reads it."""

    reader: Store
    opener: Opener
    events: list[Recorded]

    async def list(self, chosen: EventFilter, view: tuple[str, ...] = ALL, size: int = 7) -> list[Recorded]:
        """All pages of a list."""
        found: list[Recorded] = []
        with entered(context(ACME)):
            while True:
                after = wire.position(wire.token_of(found[-1])) if found else None
                page = await usecases.list_events(self.reader, self.opener, chosen, ACTORS, view, after, size)
                found += page[:size]
                if len(page) <= size:
                    return found


@pytest.fixture
async def log(database: TestDatabase) -> AsyncIterator[Log]:
    async with sequencer(database) as appending:
        for producer, each in made_up():
            await usecases.append_events(appending, producer, [each])
        await usecases.append_events(appending, "identity", [event(1, GLOBEX)])
    role = database.role("audit_api")
    async with opener(database) as opening:
        made = Log(Store(role, "audit", Clock()), opening, [])
        made.events = await made.list(EventFilter())
        assert len(made.events) == 96
        yield made
    await role.close()


def actor_of(found: Recorded) -> str:
    return found.payload.split(b'"actor":"')[1].split(b'"')[0].decode()


_FILTERS: dict[str, tuple[EventFilter, Callable[[Recorded], bool]]] = {
    "action": (EventFilter(action="identity.member.add"), lambda e: e.action == "identity.member.add"),
    "beginning": (EventFilter(action="actions."), lambda e: e.action.startswith("actions.")),
    "longer beginning": (EventFilter(action="actions.action."), lambda e: e.action.startswith("actions.action.")),
    "target": (EventFilter(target="things/3"), lambda e: e.target == "things/3"),
    "request": (EventFilter(request_id="r5"), lambda e: e.request_id == "r5"),
    "trace": (EventFilter(trace_id=TRACE), lambda e: e.trace_id == TRACE),
    "role": (EventFilter(role="FINOPS"), lambda e: e.role == "FINOPS"),
    "system": (EventFilter(role="SYSTEM"), lambda e: e.role == "SYSTEM"),
    "failed": (EventFilter(result="FAILED"), lambda e: e.result == "FAILED"),
    "ok": (EventFilter(result="OK"), lambda e: e.result == "OK"),
    "person": (EventFilter(actor="user:1"), lambda e: actor_of(e) == "user:1"),
    "process": (EventFilter(actor="spiffe://recoup/scanner-worker"), lambda e: actor_of(e).endswith("scanner-worker")),
    "all at once": (
        EventFilter(action="pricing.", result="OK", role="SYSTEM", target="things/2"),
        lambda e: (e.action[:8], e.result, e.role, e.target) == ("pricing.", "OK", "SYSTEM", "things/2"),
    ),
}


@pytest.mark.services("audit")
async def test_each_filter_finds_what_a_naive_one_finds_in_every_order(log: Log) -> None:
    for name, (chosen, wanted) in _FILTERS.items():
        expected = [found for found in log.events if wanted(found)]
        assert 0 < len(expected) < len(log.events), name
        assert await log.list(chosen) == expected, name
        # With a time it goes by when events happened; both ends of it at once, at moments of events.
        first, end = DAY0 + timedelta(hours=11), DAY0 + timedelta(hours=80)
        timed = replace(chosen, occurred_after=first, occurred_before=end)
        within = [found for found in expected if first <= found.occurred_at < end]
        assert await log.list(timed) == sorted(within, key=lambda e: (e.occurred_at, e.place), reverse=True), name


@pytest.mark.services("audit")
@pytest.mark.parametrize("chosen", [EventFilter(), EventFilter(action="actions."), EventFilter(occurred_after=DAY0)])
async def test_a_view_hides_the_rest_in_lists_and_by_id(log: Log, chosen: EventFilter) -> None:
    view = view_of({"audit.event.read_pricing", "audit.event.read_receipts"})
    seen = [e for e in await log.list(chosen) if e.action.startswith(("pricing.", "actions.receipt."))]
    assert seen
    assert await log.list(chosen, view) == seen
    assert await log.list(chosen, ()) == []
    with entered(context(ACME)):
        for found in log.events[:16]:
            if is_visible(found.action, view):
                assert await usecases.get_event(log.reader, log.opener, found.event_id, view) == found
            else:
                with pytest.raises(NotFound):
                    await usecases.get_event(log.reader, log.opener, found.event_id, view)


@pytest.mark.services("audit")
async def test_times_that_exclude_everything_are_refused(log: Log) -> None:
    with pytest.raises(Invalid) as refused:
        await log.list(EventFilter(occurred_after=DAY0, occurred_before=DAY0))
    assert refused.value.field_violations[0].field == "occurred_before"


def test_a_view_follows_from_permissions() -> None:
    service = audit_service_pb2.DESCRIPTOR.services_by_name["AuditService"]
    held: dict[str, set[str]] = {}
    for rule in permission_rules(service):
        for role in rule.roles:
            held.setdefault(role, set()).add(rule.name)
    assert set(VIEWS) <= {name for names in held.values() for name in names}
    assert {role: view_of(names) for role, names in held.items()} == {
        "ADMIN": ("",),
        "SECURITY": ("",),
        "AUDITOR": ("",),
        "FINOPS": ("actions.", "pricing.", "scanner."),
        "APPROVER": ("actions.",),
        "FINANCE": ("actions.receipt.", "pricing."),
    }
    assert view_of({"audit.event.read_actions", "audit.event.read_receipts"}) == ("actions.",)


@pytest.mark.parametrize(
    ("asked", "view", "left"),
    [
        ("", ("",), None),
        ("scanner.", ("",), ["scanner."]),
        ("", ("actions.", "pricing."), ["actions.", "pricing."]),
        ("", (), []),
        ("actions.action.approve", ("actions.",), ["actions.action.approve"]),
        ("actions.", ("actions.receipt.", "pricing."), ["actions.receipt."]),
        ("actions", ("actions.receipt.",), []),
        ("identity.", ("actions.",), []),
        ("action", ("actions.",), []),
    ],
)
def test_a_filter_narrows_a_view(asked: str, view: tuple[str, ...], left: list[str] | None) -> None:
    assert narrowed(asked, view) == left


# Many events of one organization, nearly all of a worker's that went well; what is looked for is rare, and old.
_MANY = """
INSERT INTO audit.entries (organization_id, event_id, idx, organization_seq, producer, producer_counter, action, target,
  result, role, actor_hash, occurred_at, appended_at, request_id, trace_id, leaf)
SELECT $1, gen_random_uuid(), n, n + 1, CASE WHEN rare THEN 'identity' ELSE 'scanner' END, n + 1,
  CASE WHEN rare THEN 'identity.member.add' ELSE 'scanner.scan.run' END,
  CASE WHEN rare THEN 'members/1' ELSE 'scans/' || n END, CASE WHEN rare THEN 'DENIED' ELSE 'OK' END,
  CASE WHEN rare THEN 'ADMIN' ELSE 'SYSTEM' END, CASE WHEN rare THEN $2::bytea ELSE $3::bytea END,
  $4::timestamptz + n * interval '1 second', now(), CASE WHEN rare THEN 'sought' ELSE 'r' || n END,
  CASE WHEN rare THEN $5 ELSE md5(n::text) END, '\\x00'
FROM generate_series(0, 79999) AS n, LATERAL (SELECT n BETWEEN 100 AND 139 AS rare) AS r
"""
_READ = """
SELECT coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)), 0) FROM pg_stat_xact_user_tables
WHERE schemaname = 'audit' AND relname LIKE 'entries%'
"""


@pytest.mark.services("audit")
async def test_no_filter_reads_the_whole_history(database: TestDatabase) -> None:
    superuser = await database.superuser()
    await superuser.execute(_MANY, ACME, ACTORS(ACME, "user:1"), ACTORS(ACME, "spiffe://recoup/x"), DAY0, TRACE)
    await superuser.execute("VACUUM ANALYZE audit.entries")
    await superuser.close()
    long_ago = DAY0 + timedelta(seconds=100)
    sought = {
        "action": EventFilter(action="identity.member.add"),
        "beginning": EventFilter(action="identity."),
        "target": EventFilter(target="members/1"),
        "request": EventFilter(request_id="sought"),
        "trace": EventFilter(trace_id=TRACE),
        "role": EventFilter(role="ADMIN"),
        "result": EventFilter(result="DENIED"),
        "actor": EventFilter(actor="user:1"),
        "time": EventFilter(occurred_after=long_ago, occurred_before=long_ago + timedelta(seconds=40)),
        "none": EventFilter(),
        "usual": EventFilter(role="SYSTEM", result="OK", actor="spiffe://recoup/x", action="scanner."),
    }
    role = database.role("audit_api")
    costs: dict[str, Any] = {}
    for name, chosen in sought.items():
        async with role.scoped(ACME, read_only=True) as connection:
            hashed = ACTORS(ACME, chosen.actor) if chosen.actor else None
            actions = narrowed(chosen.action, ALL)
            before = (await connection.execute(text(_READ))).scalar_one()
            places = await store.find_places(connection, chosen, actions, hashed, None, 51)
            costs[name] = int((await connection.execute(text(_READ))).scalar_one() - before)
        expected = list(range(79999, 79948, -1)) if name in ("none", "usual") else list(range(139, 99, -1))
        assert places == expected, name
    await role.close()
    assert max(costs.values()) <= 60, costs


def test_a_page_token_holds_a_position() -> None:
    found = Recorded(
        ACME, UUID(int=9), 1 << 41, 1, "p", 1, "a", "t", "OK", "R", DAY0, DAY0, "", "", b"", 1, b""
    )  # fmt: skip
    position = wire.position(wire.token_of(found))
    assert position is not None
    assert (position.place, position.occurred_at) == (1 << 41, DAY0)
    assert wire.position("") is None
