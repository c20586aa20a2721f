"""Roles that are limited to some connections or tags: what they see and change of scanner and actions, and what not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID, uuid4

import asyncpg
import orjson
import pytest

from services._mesh.context import CallContext, entered
from services._mesh.errors import Denied, NotFound, Problem
from services._mesh.ids import uuid7
from services._mesh.jobs import Planner
from services._mesh.passports import Passport
from services._mesh.resource_limits import ResourceLimits
from services._mesh.uow import Store
from services.actions.model.action import Whole
from services.actions.model.plan import Estimate, ResourceKey
from services.actions.model.request import Finding, FrozenBaseline, Scope
from services.actions.store import checkpoints
from services.actions.usecases import receipts, requests
from services.actions.usecases.requests import Gathered
from services.scanner.model.suppression import Suppression
from services.scanner.usecases import connections, findings, scanning
from tests.support.postgres import TestDatabase
from tests.support.things import ACME, MovableClock, context, keys

pytestmark = pytest.mark.services("scanner", "actions")

T = TypeVar("T")
ANN, BOB = UUID(int=11), UUID(int=12)
OURS, THEIRS = uuid7(), uuid7()
HERE = ResourceLimits((OURS,))
WEB = ResourceLimits(tags=(("team", "we'b\\"),))
BOTH = ResourceLimits((OURS,), (("team", "we'b\\"), ("team", "db")))
TAGS: dict[str, dict[str, str]] = {"web": {"team": "we'b\\", "x": "y"}, "mail": {"team": "mail"}, "bare": {}}


@dataclass
class Estate:
    """Two connections, each with a scan and three findings (ids by name), and what scanner and actions do with them."""

    database: TestDatabase
    clock: MovableClock
    scanner: Store
    actions: Store
    planner: Planner
    findings: dict[tuple[UUID, str], UUID]
    scans: dict[UUID, UUID]

    async def request(self, connection_id: UUID, name: str, limits: ResourceLimits | None = None) -> Whole:
        key = ResourceKey("aws", "aws", "1" * 12, "us-east-1", "ec2.volume", f"vol-{connection_id}-{name}")
        evidence = {"fact.state": "available", "available_since": "2026-01-01T00:00:00Z"}
        finding = Finding(
            self.findings[connection_id, name], connection_id, "aws.ebs.unattached", key, "OPEN", "ACTIONABLE",
            "aws.ebs.delete_volume", evidence, Estimate("30", "USD", "v1"), self.clock.now(), TAGS[name],
        )  # fmt: skip
        baseline = FrozenBaseline(orjson.dumps({"currency": "USD"}), "USD")
        gathered = Gathered(finding, Scope(uuid4(), "ACTIVE", True), baseline)
        with entered(by(ANN, limits)) as call:
            async with self.actions.begin(ACME, call) as work:
                return await requests.request_action(work, self.planner, gathered)

    async def decide(self, made: Whole, limits: ResourceLimits | None, what: str = "approve") -> Whole:
        action_id = made.action.action_id
        with entered(by(BOB, limits)) as call:
            async with self.actions.begin(ACME, call) as work:
                if what == "approve":
                    return await requests.approve_action(work, self.planner, action_id, made.action.plan.plan_hash, "")
                decide = requests.reject_action if what == "reject" else requests.cancel_action
                return await decide(work, action_id, "no")


def by(person: UUID, limits: ResourceLimits | None) -> CallContext:
    """A call of somebody's whose role is limited so."""
    passport = Passport(
        audience="scanner", actor=f"user:{person}", responsible_person=person, organization_id=ACME, role="x",
        permissions=frozenset(), permissions_version=1, session_id="s", aal=2, auth_time=0, act=(), presenter="",
        jti="j", issued_at=0, expires_at=1, limits=limits,
    )  # fmt: skip
    return context(ACME, actor=f"user:{person}", responsible_person=person, role="x", passport=passport)


async def within(limits: ResourceLimits | None, asked: Any) -> Any:
    """What a use case that reads answers somebody whose role is limited so."""
    with entered(by(BOB, limits)):
        return await asked()


async def refused(asked: Awaitable[object]) -> Problem:
    with pytest.raises(Problem) as caught:
        await asked
    return caught.value


@pytest.fixture
async def estate(database: TestDatabase, tmp_path: Path) -> AsyncIterator[Estate]:
    clock, (key, _) = MovableClock(), keys(tmp_path, "actions")
    logins = [database.role("scanner_api"), database.role("actions_api")]
    made = Estate(
        database, clock, Store(logins[0], "scanner", clock), Store(logins[1], "actions", clock),
        Planner(key, "actions", clock), {}, {OURS: uuid7(), THEIRS: uuid7()},
    )  # fmt: skip
    superuser = await database.superuser()
    await superuser.execute("SET session_replication_role = replica")
    for connection_id in (OURS, THEIRS):
        scan_id = made.scans[connection_id]
        await superuser.execute(
            "INSERT INTO scanner.connections VALUES"
            " ($1, $2, 'c', 'aws', '[]', '{}', 'x', $3, 'AKIA', 'ACTIVE', '', '[]', 1, now())",
            ACME, connection_id, uuid4(),
        )  # fmt: skip
        await superuser.execute(
            "INSERT INTO scanner.scans VALUES ($1, $2, $3, 'COMPLETE', 1, 3, 3, '', now())",
            ACME, scan_id, connection_id,
        )  # fmt: skip
        for name, tags in TAGS.items():
            made.findings[connection_id, name] = finding_id = uuid7()
            resource = (ACME, connection_id, f"vol-{connection_id}-{name}")
            await superuser.execute(
                "INSERT INTO scanner.resources VALUES ($1, $2, 'aws', 'aws', '111111111111', 'us-east-1',"
                " 'ec2.volume', $3, '', '{}', $4, '{}', '', now(), false, now(), now())",
                *resource, orjson.dumps(tags).decode(),
            )  # fmt: skip
            await superuser.execute(
                "INSERT INTO scanner.findings VALUES ($1, $4, $2, $5, 'd', 'aws', 'aws', '111111111111', 'us-east-1',"
                " 'ec2.volume', $3, '', 'OPEN', 'ACTIONABLE', 1, 'USD', 'v', 'HIGH', 'HIGH', '{}', 't', now(), now())",
                *resource, finding_id, scan_id,
            )  # fmt: skip
    await superuser.close()
    yield made
    for login in logins:
        await login.close()


async def test_a_limited_role_sees_its_connections_and_no_others(estate: Estate) -> None:
    store = estate.scanner

    async def listed(limits: ResourceLimits | None) -> set[UUID]:
        return {c.connection_id for c in await within(limits, lambda: connections.list_connections(store, None, 50))}

    assert await listed(None) == {OURS, THEIRS}
    assert await listed(HERE) == await listed(BOTH) == {OURS}
    assert await listed(WEB) == {OURS, THEIRS}  # A connection has no tags.
    assert await listed(ResourceLimits((uuid4(),))) == set()
    assert (await within(HERE, lambda: connections.get_connection(store, OURS))).connection_id == OURS
    assert isinstance(await refused(within(HERE, lambda: connections.get_connection(store, THEIRS))), NotFound)
    scans = await within(HERE, lambda: scanning.list_scans(store, None, 50, None))
    assert [row.scan_id for row, _ in scans] == [estate.scans[OURS]]
    assert isinstance(await refused(within(HERE, lambda: scanning.get_scan(store, estate.scans[THEIRS]))), NotFound)


@pytest.mark.parametrize(
    ("limits", "seen"),
    [
        (None, {(c, name) for c in (OURS, THEIRS) for name in TAGS}),
        (HERE, {(OURS, name) for name in TAGS}),
        (WEB, {(OURS, "web"), (THEIRS, "web")}),
        (BOTH, {(OURS, "web")}),
        (
            ResourceLimits(tags=(("team", "mail"), ("x", "y"))),
            {(connection, name) for connection in (OURS, THEIRS) for name in ("web", "mail")},
        ),
        (ResourceLimits(tags=(("team", ""),)), set()),
    ],
)
async def test_a_limited_role_sees_its_findings_and_no_others(
    estate: Estate, limits: ResourceLimits | None, seen: set[tuple[UUID, str]]
) -> None:
    store = estate.scanner
    unasked: Any = None  # No finding carries an exception.
    listed, _ = await within(limits, lambda: findings.list_findings(store, unasked, None, 50, {"state": "OPEN"}))
    assert {row.finding_id for row in listed} == {estate.findings[each] for each in seen}
    for each, finding_id in estate.findings.items():
        if each in seen:
            row, _ = await within(limits, lambda one=finding_id: findings.get_finding(store, unasked, one))
            assert row.tags == TAGS[each[1]]
        else:
            asked = within(limits, lambda one=finding_id: findings.get_finding(store, unasked, one))
            assert isinstance(await refused(asked), NotFound)


class Asked:
    """Identity, which makes every exception that it is asked for."""

    def __init__(self) -> None:
        self.about: list[UUID] = []

    async def create(self, organization_id: UUID, wanted: Suppression) -> tuple[UUID, datetime]:
        self.about.append(wanted.finding_id)
        return uuid7(), wanted.expires_at


async def test_a_limited_role_leaves_its_findings_alone_and_no_others(estate: Estate) -> None:
    """A finding beyond the limits isn't there: identity, which can't know whose it is, is never asked."""
    until = estate.clock.now() + timedelta(days=9)

    async def suppress(each: tuple[UUID, str], limits: ResourceLimits, asked: Any) -> str:
        wanted = Suppression(estate.findings[each], "kept for the audit", until, (), "")
        with entered(by(BOB, limits)) as call:
            exception_id, _ = await findings.except_finding(estate.scanner, asked, wanted)
            async with estate.scanner.begin(ACME, call) as work:
                row = await findings.suppress_finding(work, wanted.finding_id, exception_id, until, wanted.reason)
        return "" if row.exception_id != exception_id else "suppressed"

    asked = Asked()
    for limits, foreign in ((HERE, (THEIRS, "web")), (WEB, (OURS, "mail")), (BOTH, (THEIRS, "web"))):
        assert isinstance(await refused(suppress(foreign, limits, asked)), NotFound)
        with entered(by(BOB, limits)) as call, pytest.raises(NotFound):
            async with estate.scanner.begin(ACME, call) as work:
                await findings.suppress_finding(work, estate.findings[foreign], uuid7(), until, "past the first look")
    assert asked.about == []
    assert await suppress((OURS, "web"), BOTH, asked) == "suppressed"
    assert asked.about == [estate.findings[OURS, "web"]]


async def test_what_is_about_a_whole_connection_isnt_for_who_is_limited_to_tags(estate: Estate) -> None:
    for limits, problem in ((WEB, Denied), (BOTH, Denied), (HERE, NotFound)):
        for change in (scanning.start_scan, connections.verify_connection):
            with entered(by(BOB, limits)) as call:
                async with estate.scanner.begin(ACME, call) as work:
                    asked = change(work, estate.planner, THEIRS)
                    assert isinstance(await refused(asked), problem)
        with entered(by(BOB, limits)) as call:
            async with estate.scanner.begin(ACME, call) as work:
                assert isinstance(
                    await refused(connections.disable_connection(work, estate.planner, THEIRS, "x")), problem
                )


async def test_a_limited_role_decides_about_its_actions_and_no_others(estate: Estate) -> None:
    made = {each: await estate.request(*each) for each in ((OURS, "web"), (OURS, "mail"), (THEIRS, "web"))}
    store = estate.actions

    async def listed(limits: ResourceLimits | None) -> set[UUID]:
        return {w.action.action_id for w in await within(limits, lambda: requests.list_actions(store, None, 50, {}))}

    ids = {each: whole.action.action_id for each, whole in made.items()}
    assert await listed(None) == set(ids.values())
    assert await listed(HERE) == {ids[OURS, "web"], ids[OURS, "mail"]}
    assert await listed(WEB) == {ids[OURS, "web"], ids[THEIRS, "web"]}
    assert await listed(BOTH) == {ids[OURS, "web"]}
    for limits, foreign in ((HERE, (THEIRS, "web")), (WEB, (OURS, "mail")), (BOTH, (THEIRS, "web"))):
        for what in ("approve", "reject", "cancel"):
            assert isinstance(await refused(estate.decide(made[foreign], limits, what)), NotFound)
        asked = within(limits, lambda one=ids[foreign]: requests.get_action(store, one))
        assert isinstance(await refused(asked), NotFound)
    assert (await estate.decide(made[OURS, "web"], BOTH)).action.state.value == "APPROVED"
    async with store.read(ACME) as connection:
        assert await checkpoints.count_actions(connection) == (3, 0)
    with entered(by(BOB, BOTH)):
        async with store.read() as connection:
            assert await checkpoints.count_actions(connection) == (1, 0)


async def test_nobody_requests_beyond_their_limits_past_the_scanner(estate: Estate) -> None:
    """The row itself is refused, whatever the finding was said to be."""
    for limits, foreign in ((HERE, (THEIRS, "web")), (WEB, (OURS, "mail")), (WEB, (OURS, "bare"))):
        with pytest.raises(Exception, match="row-level security") as caught:
            await estate.request(*foreign, limits)
        assert not isinstance(caught.value, Problem)
    assert (await estate.request(OURS, "web", BOTH)).action.connection_id == OURS


async def test_a_limited_role_reads_its_receipts_and_no_others(estate: Estate) -> None:
    made = {each: await estate.request(each, "web") for each in (OURS, THEIRS)}
    superuser = await estate.database.superuser()
    await superuser.execute("SET session_replication_role = replica")
    issued = {connection_id: uuid7() for connection_id in made}
    for connection_id, receipt_id in issued.items():
        await superuser.execute(
            "INSERT INTO actions.receipts VALUES ($1, $2, $3, 7, 1, 'VERIFIED', 1, 1, 'USD', false, 1, '', '', '', '',"
            " '{}', now())",
            ACME, receipt_id, made[connection_id].action.action_id,
        )  # fmt: skip
        await superuser.execute(
            "INSERT INTO actions.checkpoints (organization_id, checkpoint_id, action_id, days, currency, decision)"
            " VALUES ($1, $2, $3, 7, 'USD', 'VERIFIED')",
            ACME, uuid4(), made[connection_id].action.action_id,
        )  # fmt: skip
        await superuser.execute("UPDATE actions.actions SET state = 'EXECUTED'")
    await superuser.close()
    store = estate.actions
    for limits, seen in ((None, {OURS, THEIRS}), (HERE, {OURS}), (BOTH, {OURS}), (WEB, {OURS, THEIRS})):
        rows = await within(limits, lambda: receipts.list_receipts(store, None, 50, None))
        assert {row.receipt_id for row in rows} == {issued[each] for each in seen}
        with entered(by(BOB, limits)):
            async with store.read() as connection:
                lines, _ = await checkpoints.read_ledger(connection, "USD")
        assert sum(line.count for line in lines) == len(seen)
    with entered(by(BOB, HERE)):
        async with store.read() as connection:
            with pytest.raises(NotFound):
                await checkpoints.get_receipt(connection, issued[THEIRS])


async def test_a_limit_ends_with_its_transaction(estate: Estate) -> None:
    """The next one on the same connection of the pool has none."""
    for _ in range(3):
        for limits, many in ((HERE, 1), (None, 2)):
            found = await within(limits, lambda: connections.list_connections(estate.scanner, None, 50))
            assert len(found) == many


async def test_a_limit_that_cant_be_read_shows_nothing(estate: Estate) -> None:
    api = await estate.database.login("scanner_api")
    for name, value in (("connection_ids", "{x}"), ("resource_tags", "[")):
        with pytest.raises(asyncpg.DataError):
            async with api.transaction():
                await api.execute(f"SET LOCAL app.organization_id = '{ACME}'")
                await api.execute("SELECT set_config($1, $2, true)", f"app.{name}", value)
                await api.fetch("SELECT finding_id FROM scanner.findings")
    await api.close()
