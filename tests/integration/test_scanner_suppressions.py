"""A finding is left alone by an exception of identity's, for as long as that is in force and no longer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest

from recoup.identity.v1 import exception_service_pb2_grpc
from recoup.scanner.v1 import scanner_pb2
from recoup.scanner.v1 import scanner_service_pb2 as pb
from services._mesh.context import entered
from services._mesh.errors import AlreadyExists, NotFound, Problem, WrongState
from services._mesh.ids import uuid7
from services._mesh.pages import PageTokens
from services._mesh.times import stamp
from services._mesh.uow import Store
from services.identity.rpc.exceptions import ExceptionRpc
from services.identity.usecases import exceptions as identity
from services.scanner.clients.peers import Exceptions
from services.scanner.model.finding import Finding
from services.scanner.model.resource import ResourceKey
from services.scanner.rpc.scanner import ScannerRpc
from services.scanner.store import scans
from tests.support.identity import ADMIN, CLERK, Registry, registry
from tests.support.postgres import TestDatabase
from tests.support.things import ACME, context, serving

pytestmark = pytest.mark.services("identity", "scanner")

CONNECTION, SCAN = uuid7(), uuid7()
WHY = "it is kept for the audit"
DAY = timedelta(days=1)


class Straight:
    """Stands in for the exchange of passports, which has tests of its own."""

    async def on_behalf(self, target: str) -> tuple[tuple[str, str], ...]:
        """Nothing is shown."""
        return ()


@dataclass
class Scanner:
    """The scanner's RPCs with two findings, on identity's own over real gRPC."""

    registry: Registry
    store: Store
    worker: Store
    rpc: ScannerRpc
    findings: list[UUID]

    async def call(self, method: str, request: Any, **facts: Any) -> Any:
        told = {"actor": f"user:{ADMIN}", "responsible_person": ADMIN, "role": "FINOPS", **facts}
        action = "scanner.finding.suppress" if method == "SuppressFinding" else ""
        with entered(context(ACME, action, rpc=f"scanner/{method}", **told)):
            return await getattr(self.rpc, method)(request, None)

    async def suppress(
        self, place: int = 0, days: float = 20, request_id: str = "", until: datetime | None = None
    ) -> scanner_pb2.Finding:
        request = pb.SuppressFindingRequest(
            organization_id=str(ACME), finding_id=str(self.findings[place]), reason=WHY,
            expires_at=stamp(until or self.registry.clock.now() + days * DAY), request_id=request_id,
        )  # fmt: skip
        return (await self.call("SuppressFinding", request)).finding

    async def listed(self, state: str = "UNSPECIFIED") -> list[int]:
        """Which findings a list has, by their places."""
        wanted = scanner_pb2.FindingState.Value(f"FINDING_STATE_{state}")
        answer = await self.call("ListFindings", pb.ListFindingsRequest(organization_id=str(ACME), state=wanted))
        shown = "OPEN" if state == "UNSPECIFIED" else state
        assert all(f.state == scanner_pb2.FindingState.Value(f"FINDING_STATE_{shown}") for f in answer.findings)
        return [self.findings.index(UUID(each.finding_id)) for each in answer.findings]

    async def get(self, place: int = 0) -> scanner_pb2.Finding:
        request = pb.GetFindingRequest(organization_id=str(ACME), finding_id=str(self.findings[place]))
        return (await self.call("GetFinding", request)).finding

    async def scan(self) -> None:
        """A scan sees both again."""
        async with self.worker.begin(ACME, interim=True) as work:
            await scans.upsert_findings(work.connection, ACME, [finding(n) for n in range(2)])
            work.emit("scanner.scan.run", f"scans/{SCAN}")

    async def pass_days(self, days: float) -> None:
        self.registry.clock.ahead += days * DAY


def finding(number: int) -> Finding:
    key = ResourceKey("aws", "aws", "1" * 12, "us-east-1", "ec2.volume", f"vol-{number}")
    now = datetime.now(UTC)
    return Finding(
        finding_id=uuid7(), connection_id=CONNECTION, scan_id=SCAN, detection_id="aws.ebs.unattached", resource=key,
        resource_name="", actionability="ACTIONABLE", saving=Decimal(9 - number), currency="USD", price_version="v",
        severity="HIGH", confidence="HIGH", evidence={}, action_type="", first_seen_at=now, last_seen_at=now,
    )  # fmt: skip


@pytest.fixture
async def scanner(database: TestDatabase) -> AsyncIterator[Scanner]:
    async with AsyncExitStack() as stack:
        made = await stack.enter_async_context(registry(database))
        role, worker = database.role("scanner_api"), database.role("scanner_worker")
        for each in (role, worker):
            stack.push_async_callback(each.close)
        store, pages = Store(role, "scanner", made.clock), PageTokens(b"x" * 32)

        def facts() -> dict[str, Any]:
            return {"organization": ACME, "actor": f"user:{CLERK}", "responsible_person": CLERK, "role": "FINOPS"}

        def add(server: Any) -> None:
            exception_service_pb2_grpc.add_ExceptionServiceServicer_to_server(
                ExceptionRpc(made.store, made.clock, pages), server
            )

        channel = await stack.enter_async_context(serving(add, "scanner", facts))
        exchange: Any = Straight()
        unused: Any = None
        rpc = ScannerRpc(store, unused, unused, pages, Exceptions(channel, exchange))
        superuser = await database.superuser()
        await superuser.execute("SET session_replication_role = replica")
        await superuser.execute(
            "INSERT INTO scanner.connections VALUES"
            " ($1, $2, 'c', 'aws', '[]', '{}', 'x', $3, 'AKIA', 'ACTIVE', '', '[]', 1, now())",
            ACME, CONNECTION, uuid4(),
        )  # fmt: skip
        await superuser.execute(
            "INSERT INTO scanner.scans VALUES ($1, $2, $3, 'COMPLETE', 1, 3, 3, '', now())", ACME, SCAN, CONNECTION
        )
        await superuser.close()
        opened = Scanner(made, store, Store(worker, "scanner", made.clock), rpc, [])
        await opened.scan()
        async with store.read(ACME) as connection:
            opened.findings += [row.finding_id for row in await scans.list_findings(connection, None, 9, {})]
        yield opened


async def refused(kind: type[Problem], awaitable: Any) -> str:
    with pytest.raises(kind) as caught:
        await awaitable
    return caught.value.reason_name


async def test_it_is_left_alone_until_the_exception_expires(scanner: Scanner) -> None:
    assert await scanner.listed() == [0, 1]
    made = await scanner.suppress(days=20)
    assert made.state == scanner_pb2.FINDING_STATE_SUPPRESSED
    assert (await scanner.listed(), await scanner.listed("SUPPRESSED")) == ([1], [0])
    found = await scanner.get()
    assert (found.state, found.exception_id) == (scanner_pb2.FINDING_STATE_SUPPRESSED, made.exception_id)
    await scanner.scan()  # Seen again, it is left alone still.
    assert await scanner.listed() == [1]
    await scanner.pass_days(19.99)
    assert await scanner.listed() == [1]
    await scanner.pass_days(0.02)
    assert (await scanner.listed(), await scanner.listed("SUPPRESSED")) == ([0, 1], [])
    found = await scanner.get()
    assert (found.state, found.exception_id) == (scanner_pb2.FINDING_STATE_OPEN, "")
    rows = await scanner.registry.rows("SELECT action FROM scanner.outbox WHERE action = 'scanner.finding.suppress'")
    assert len(rows) == 1
    assert len(await scanner.registry.events("identity.exception.create")) == 1
    again = await scanner.suppress()
    assert again.exception_id != made.exception_id
    assert await scanner.listed() == [1]


async def test_when_the_exception_is_ended_it_is_open_at_once(scanner: Scanner) -> None:
    made = await scanner.suppress()
    end = scanner.registry.decide(lambda work: identity.end_exception(work, UUID(made.exception_id), "not needed"))
    assert await scanner.listed() == [1]
    await end
    assert (await scanner.listed(), await scanner.listed("SUPPRESSED")) == ([0, 1], [])


async def test_once_and_repeated(scanner: Scanner) -> None:
    same: Any = {"request_id": str(uuid4()), "until": scanner.registry.clock.now() + DAY}
    made = await scanner.suppress(**same)
    assert await scanner.suppress(**same) == made
    assert await refused(AlreadyExists, scanner.suppress()) == "RESOURCE_EXISTS"
    scanner.findings[1] = uuid7()
    assert await refused(NotFound, scanner.suppress(1)) == "RESOURCE_NOT_FOUND"


async def test_what_failed_between_the_two_services_is_taken_up(scanner: Scanner) -> None:
    """The exception was made, and the finding doesn't carry it: it is open, and the next attempt takes it."""
    from services._mesh.uow import UnitOfWork
    from services.identity.model.exceptions import ExceptionKind

    wanted = identity.Wanted(
        ExceptionKind.SUPPRESSION, f"findings/{scanner.findings[0]}", WHY, scanner.registry.clock.now() + DAY, ()
    )

    async def make(work: UnitOfWork) -> Any:
        return await identity.create_exception(work, wanted)

    before = await scanner.registry.decide(make, CLERK)
    assert await scanner.listed() == [0, 1]
    taken = await scanner.suppress()
    assert taken.exception_id == str(before.exception_id)
    assert await scanner.listed() == [1]


async def test_what_is_resolved_needs_none(scanner: Scanner) -> None:
    async with scanner.worker.begin(ACME, interim=True) as work:
        await scans.resolve_findings(work.connection, CONNECTION, uuid7(), "1" * 12, "us-east-1", ["ec2.volume"])
        work.emit("scanner.scan.run", f"scans/{SCAN}")
    assert await refused(WrongState, scanner.suppress()) == "STATE_WRONG"
