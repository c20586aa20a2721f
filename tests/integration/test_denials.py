"""A flood of refused calls leaves few events, whose counts are exact, each in the log of whoever was refused."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest

from services._mesh.access import Checks, Gate
from services._mesh.clock import Clock
from services._mesh.context import CallContext
from services._mesh.denials import OTHERS, Denial, DenialLedger
from services._mesh.descriptors import method_rules
from services._mesh.errors import Denied, Reason, Unauthenticated
from services._mesh.peers import Peer
from services._mesh.producing import denial_recorder
from services._mesh.uow import PLATFORM, Store
from services._mesh.validation import RequestValidator
from services.identity.__main__ import _ROLES
from tests.support.postgres import TestDatabase
from tests.support.things import ACME, GLOBEX, context

pytestmark = pytest.mark.services("identity")

GATEWAY = Peer("gateway", "x5t", 0.0)
RULES = method_rules(_ROLES)


def ledger(**more: Any) -> DenialLedger:
    return DenialLedger(Clock(), **{"max_keys": 1024, "window_seconds": 60.0, **more})


def gates(counted: DenialLedger) -> list[Gate]:
    checks: Any = type("Checks", (), {"validator": RequestValidator(), "denials": counted})
    callers: Any = None
    made: Checks = checks
    return [Gate(rule, callers, made) for rule in RULES]


def caller(organization: UUID, number: int = 1) -> CallContext:
    return context(organization, actor=f"user:{UUID(int=number)}", responsible_person=UUID(int=number))


LACKS = Denied(Reason.ERROR_REASON_PERMISSION_MISSING, "no", {"permission": "x"})
LIMITED = Denied(Reason.ERROR_REASON_ROLE_LIMITED, "no")
STRANGER = Unauthenticated(Reason.ERROR_REASON_CREDENTIAL_INVALID, "no")


@pytest.fixture
async def store(database: TestDatabase) -> AsyncIterator[Store]:
    role = database.role("identity_api")
    yield Store(role, "identity", Clock())
    await role.close()


async def written(database: TestDatabase) -> list[tuple[UUID, dict[str, str]]]:
    superuser = await database.superuser()
    rows = await superuser.fetch(
        "SELECT organization_id, payload FROM identity.outbox WHERE action = 'identity.access.deny' ORDER BY counter"
    )
    await superuser.close()
    return [(row["organization_id"], json.loads(row["payload"])["metadata"]) for row in rows]


async def test_ten_thousand_denials_are_few_events_with_exact_counts(database: TestDatabase, store: Store) -> None:
    counted, expected = ledger(), Counter[tuple[UUID, str, str]]()
    counted.sink = denial_recorder("identity", store)
    made = gates(counted)
    for number in range(10_000):
        gate = made[number % len(made)]
        problem, organization = ((LACKS, ACME), (LIMITED, ACME), (STRANGER, None), (LACKS, GLOBEX))[number % 4]
        gate.note(problem, caller(organization) if organization else None, GATEWAY, f"{number:032x}")
        expected[organization or PLATFORM, gate.rule.name, problem.reason_name] += 1
    await counted.flush()
    events = await written(database)
    assert len(events) == len(expected) < 40
    assert {(org, m["rpc"], m["reason"]): int(m["count"]) for org, m in events} == dict(expected)
    assert sum(int(metadata["count"]) for _, metadata in events) == 10_000
    for organization, metadata in events:
        assert metadata["first_at"] <= metadata["last_at"]
        assert metadata["actor"] == ("spiffe://recoup/gateway" if organization == PLATFORM else f"user:{UUID(int=1)}")
    # What comes next is another window's.
    made[0].note(LACKS, caller(ACME), GATEWAY, "")
    await counted.flush()
    await counted.flush()
    assert len(await written(database)) == len(events) + 1


async def test_many_kinds_are_counted_together_and_leave_room_for_others(database: TestDatabase, store: Store) -> None:
    counted = ledger(max_keys=80)
    counted.sink = denial_recorder("identity", store)
    (gate, *_) = gates(counted)
    for number in range(10_000):
        gate.note(LACKS, caller(ACME, number), GATEWAY, "")
    gate.note(LACKS, caller(GLOBEX, 7), GATEWAY, "")
    await counted.flush()
    events = await written(database)
    assert len(events) == 80 // 8 + 2
    of_acme = [metadata for organization, metadata in events if organization == ACME]
    assert sum(int(metadata["count"]) for metadata in of_acme) == 10_000
    assert [metadata["count"] for metadata in of_acme if metadata["actor"] == OTHERS] == [str(10_000 - 10)]
    assert [m["actor"] for organization, m in events if organization == GLOBEX] == [f"user:{UUID(int=7)}"]


async def test_kinds_of_many_organizations_are_bounded_as_well(database: TestDatabase, store: Store) -> None:
    counted = ledger(max_keys=16)
    counted.sink = denial_recorder("identity", store)
    (gate, *_) = gates(counted)
    for _ in range(100):
        gate.note(LACKS, caller(uuid4()), GATEWAY, "")
    await counted.flush()
    events = await written(database)
    assert len(events) == 17
    assert sum(int(metadata["count"]) for _, metadata in events) == 100


async def test_what_cant_be_recorded_is_counted_on_and_nothing_twice(database: TestDatabase, store: Store) -> None:
    counted, record = ledger(), denial_recorder("identity", store)
    (gate, *_) = gates(counted)
    is_down = True

    async def sink(denials: Sequence[Denial]) -> None:
        if is_down and denials[0].organization_id == GLOBEX:
            raise ConnectionError
        await record(denials)

    counted.sink = sink
    for _ in range(3):
        gate.note(LACKS, caller(ACME), GATEWAY, "")
        gate.note(LACKS, caller(GLOBEX), GATEWAY, "")
        await counted.flush()
    assert [(org, m["count"]) for org, m in await written(database)] == [(ACME, "1")] * 3
    is_down = False
    await counted.flush()
    assert [m["count"] for org, m in await written(database) if org == GLOBEX] == ["3"]


async def test_a_process_that_ends_hands_on_what_it_counted(database: TestDatabase, store: Store) -> None:
    counted = ledger()
    counted.sink = denial_recorder("identity", store)
    task = asyncio.create_task(counted.run())
    await asyncio.sleep(0)
    gates(counted)[0].note(LACKS, caller(ACME), GATEWAY, "")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert [(org, m["count"]) for org, m in await written(database)] == [(ACME, "1")]
