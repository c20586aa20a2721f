"""No decrypt, no scan, no action: what stands in the way is said once and clearly, and ends by itself where it can.

Each cause against a scan and an execution, with their own workers, rows and jobs, and the broker's own use case on a
file KMS. The cloud's token service is counted: who isn't given a session reads and changes nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import grpc.aio
import pytest
from sqlalchemy import text

from services._mesh.aws import Failure
from services._mesh.aws_settings import AwsCredentials, AwsSettings
from services._mesh.claimed import ClaimedJob
from services._mesh.clock import Clock, monotonic
from services._mesh.context import entered
from services._mesh.envelope import seal
from services._mesh.grants import CredentialScope, read_own_grant
from services._mesh.job_rpc import leased
from services._mesh.jobs import MAX_FAILURES, Authority, Job, JobDesk, Planner
from services._mesh.kms.interface import Kek, SecretContext
from services._mesh.kms.opening import Sealer
from services._mesh.uow import Store
from services._mesh.worker import JobRunner
from services.actions.config import ExecutionSettings
from services.actions.usecases.requests import EXECUTE
from services.actions.working import executing, outcomes
from services.broker import usecases as broker
from services.broker.clients import AssumeFailed
from services.broker.model.key_cache import KeyCache
from services.broker.model.replay import UsedGrants
from services.broker.opening import Opener
from services.scanner import checking, working
from services.scanner.model.connection import CREDENTIAL_PURPOSE, Account, NewConnection
from services.scanner.model.finding import PriceBook
from services.scanner.store import connections as connections_store
from services.scanner.usecases import connections, scanning
from services.scanner.usecases.connecting import KeyRules
from services.scanner.usecases.kinds import SCAN
from services.scanner.usecases.policies import Policies as ScannerPolicies
from tests.integration.test_actions import Office
from tests.support.bills import Active
from tests.support.kms import KEK, Ring
from tests.support.postgres import TestDatabase
from tests.support.things import ACME, GLOBEX, MovableClock, context, keys

pytestmark = pytest.mark.services("scanner", "actions")

UNUSED: Any = None
ACCOUNT = "1" * 12
ROLES = {ACCOUNT: {use: f"arn:aws:iam::{ACCOUNT}:role/{use}" for use in ("scan", "act")}}
STATEMENTS = ({"actions": ["ec2:DescribeVolumes"], "resources": ["*"]},)
# What the KMS says, or what was done to the row; and what everybody is told of it.
AWAY = (
    *((state, "KMS_UNAVAILABLE") for state in ("UNREACHABLE", "TIMEOUT", "THROTTLED")),
    *((state, "KMS_KEY_UNUSABLE") for state in ("DISABLED", "DENIED", "MISSING", "RETIRED")),
)
BROKEN = ("another organization's", "another credential's", "corrupted")


class Sts:
    """Counts those who ask for a session, and refuses them: what comes after it is other tests' business."""

    asked = 0

    async def assume(self, *_: Any) -> Any:
        self.asked += 1
        raise AssumeFailed(Failure.REFUSED, "AccessDenied")


@dataclass
class Counter:
    """The broker as a worker sees it, and the row that the envelope lies in."""

    ring: Ring
    sts: Sts = field(default_factory=Sts)
    sealed: bytes = b""
    credential_id: UUID = field(default_factory=uuid4)

    def __post_init__(self) -> None:
        sts: Any = self.sts
        self._desk = broker.Desk(Opener(self.ring.whole, KeyCache(monotonic)), sts, UsedGrants(0.0), Clock())

    async def open(self, grant: str, credential_id: str) -> AwsCredentials:
        with entered(context(None, grant=read_own_grant(grant))):
            await broker.open_credential(self._desk, self.sealed)
        raise AssertionError("nobody is given a session here")


async def content(ring: Ring, organization: UUID, credential_id: UUID) -> bytes:
    plaintext = b'{"access_key_id": "", "secret_access_key": "", "external_id": "e", "roles": %s}'
    roles = str(ROLES).replace("'", '"').encode()
    about = SecretContext(organization, credential_id, CREDENTIAL_PURPOSE)
    return await seal(plaintext % roles, about, KEK, ring.sealing)


@pytest.fixture
async def channel() -> AsyncIterator[grpc.aio.Channel]:
    """To an API that nobody asks within a test: leases are renewed after fifteen seconds."""
    made = grpc.aio.insecure_channel("127.0.0.1:1")
    yield made
    await made.close()


@pytest.fixture
async def counter(tmp_path: Path) -> AsyncIterator[Counter]:
    ring = Ring(tmp_path)
    yield Counter(ring)
    ring.threads.close()


@dataclass
class Side:
    """One service's stores, planner, and a desk where its worker claims what there is."""

    clock: MovableClock
    api: Store
    worker: Store
    planner: Planner
    desk: JobDesk

    async def claim(self, schema: str) -> ClaimedJob:
        async with self.api.read(ACME) as connection:
            query = f"SELECT job_id FROM {schema}.jobs WHERE kind IN ('{SCAN}', '{EXECUTE}')"
            job_id = (await connection.execute(text(query))).scalar_one()
        name = f"{schema}-worker"
        with entered(context(None, peer=name, peer_thumbprint="x5t")):
            return ClaimedJob(leased(await self.desk.claim(job_id)), self.worker, name)


@asynccontextmanager
async def side(database: TestDatabase, folder: Path, schema: str, kind: str, policy: Any) -> AsyncIterator[Side]:
    clock, (key, trust) = MovableClock(), keys(folder, schema)
    logins = [database.role(f"{schema}_{name}") for name in ("api", "worker", "dispatcher")]
    api, worker = (Store(login, schema, clock) for login in logins[:2])
    desk = JobDesk(api, logins[2], key, trust, clock, {kind: policy(api)}, issuer=schema, profile="local")
    yield Side(clock, api, worker, Planner(key, schema, clock), desk)
    for login in logins:
        await login.close()


@dataclass
class Scene:
    """One job of one worker, and what it must not leave."""

    database: TestDatabase
    side: Side
    counter: Counter
    schema: str
    runner: JobRunner
    untouched: tuple[str, ...]
    subject: str

    async def attempt(self) -> None:
        """One lease, to whatever end, when it is due."""
        self.side.clock.ahead += timedelta(minutes=10)
        await self.runner._work(await self.side.claim(self.schema), UNUSED)

    async def one(self, statement: str) -> Any:
        superuser = await self.database.superuser()
        found = await superuser.fetchrow(statement)
        await superuser.close()
        return None if found is None else tuple(found)

    async def job(self) -> tuple[str, int, str]:
        kinds = f"kind IN ('{SCAN}', '{EXECUTE}')"
        query = f"SELECT status, failures, last_error FROM {self.schema}.jobs WHERE {kinds}"
        found: tuple[str, int, str] = await self.one(query)
        return found

    async def told(self, action: str) -> list[str]:
        superuser = await self.database.superuser()
        query = f"SELECT convert_from(payload, 'UTF8') FROM {self.schema}.outbox WHERE action = $1"
        rows = await superuser.fetch(query, f"{self.schema}.{action}")
        await superuser.close()
        return [row[0] for row in rows]

    async def assert_nothing_was_done(self) -> None:
        assert self.counter.sts.asked == 0
        for table in self.untouched:
            assert await self.one(f"SELECT 1 FROM {table}") is None, table


@asynccontextmanager
async def a_scan(
    database: TestDatabase, folder: Path, counter: Counter, channel: grpc.aio.Channel
) -> AsyncIterator[Scene]:
    """A scan that somebody asked for."""

    def policy(api: Store) -> Any:
        identity: Any = Active()
        return ScannerPolicies(api, identity).scan

    async def kek(_: UUID) -> Kek:
        return KEK

    async with side(database, folder, "scanner", SCAN, policy) as made:
        account = Account(ACCOUNT, ROLES[ACCOUNT]["scan"], "")
        given = NewConnection("acme", "AKIA" + "A" * 16, "s" * 40, (account,), ("us-east-1",))
        with entered(context(ACME, "scanner.connection.create")):
            sealed = await connections.seal_connection(made.api, Sealer(counter.ring.sealing, kek), given)
            async with made.api.begin() as work:
                found = await connections.create_connection(work, made.planner, KeyRules("", True), sealed)
        with entered(context(ACME)):
            async with made.api.begin() as work:
                await connections_store.mark_connection(work.connection, found.connection_id, state="ACTIVE")
                work.emit("scanner.connection.activate", "connections/1")
                await scanning.start_scan(work, made.planner, found.connection_id)
        counter.credential_id = found.credential_id
        tools = working.Tools(counter, UNUSED, Books(), UNUSED, AwsSettings(), UNUSED)  # type: ignore[arg-type]
        runner = JobRunner(
            UNUSED, channel, made.worker, "scanner-worker", {SCAN: partial(working.scan, tools)},
            on_dead=checking.give_up,
        )  # fmt: skip
        untouched = ("scanner.scan_units", "scanner.resources", "scanner.findings")
        yield Scene(database, made, counter, "scanner", runner, untouched, "scanner.scans")


class Books:
    """Stands in for pricing: it is asked for no price here."""

    async def books(self, regions: Any, wanted: Any) -> dict[str, Any]:
        return dict.fromkeys(regions, PriceBook({}, "USD", "v1"))


@asynccontextmanager
async def an_action(
    database: TestDatabase, folder: Path, counter: Counter, channel: grpc.aio.Channel
) -> AsyncIterator[Scene]:
    """An execution that was requested and approved."""
    scope = CredentialScope(credential_id=counter.credential_id, purpose="act", account=ACCOUNT, statements=STATEMENTS)
    plan = ""

    def policy(_: Store) -> Any:
        async def authority(_: Job) -> Authority:
            return Authority(credentials=(scope,), plan=plan)

        return authority

    async with side(database, folder, "actions", EXECUTE, policy) as made:
        office = Office(database, made.clock, made.api, made.worker, made.planner)
        approved = await office.approve(await office.request())
        plan = approved.action.plan.plan_hash
        tools = executing.Tools(counter, UNUSED, AwsSettings(), ExecutionSettings(), made.clock)  # type: ignore[arg-type]
        runner = JobRunner(
            UNUSED, channel, made.worker, "actions-worker", {EXECUTE: partial(executing.execute, tools)},
            on_dead=outcomes.give_up,
        )  # fmt: skip
        yield Scene(database, made, counter, "actions", runner, ("actions.steps",), "actions.actions")


KINDS = pytest.mark.parametrize("kind", [a_scan, an_action], ids=["scan", "act"])


@KINDS
async def test_a_key_service_that_is_away_is_waited_for_and_the_work_goes_on_by_itself(
    kind: Any, database: TestDatabase, tmp_path: Path, counter: Counter, channel: grpc.aio.Channel
) -> None:
    """Each cause, one after the other, the last one for longer than a job may fail."""
    async with kind(database, tmp_path, counter, channel) as scene:
        counter.sealed = await content(counter.ring, ACME, counter.credential_id)
        events = None
        for number, (state, reason) in enumerate(AWAY, start=1):
            counter.ring.set_states({KEK.reference: state})
            for _ in range(2 if number < len(AWAY) else MAX_FAILURES + 1):
                await scene.attempt()
            assert await scene.job() == ("READY", 0, f"{reason} ({state})")
            before, events = events, await scene.one(f"SELECT count(*) FROM {scene.schema}.outbox")
            assert before is None or events == (before[0] + 1,)
            waits = await scene.told("job.wait")
            assert len(waits) == number  # Once for each cause, however often it is met.
            assert all(said in waits[-1] for said in (reason, state, KEK.reference))
            await scene.assert_nothing_was_done()
        assert await scene.told("job.die") == []
        counter.ring.set_states({})
        await scene.attempt()
        assert counter.sts.asked == 1


@KINDS
@pytest.mark.parametrize("what", BROKEN)
async def test_what_does_not_open_is_given_up_and_said_once(
    kind: Any, what: str, database: TestDatabase, tmp_path: Path, counter: Counter, channel: grpc.aio.Channel
) -> None:
    async with kind(database, tmp_path, counter, channel) as scene:
        right = await content(counter.ring, ACME, counter.credential_id)
        counter.sealed = {
            "another organization's": await content(counter.ring, GLOBEX, counter.credential_id),
            "another credential's": await content(counter.ring, ACME, UUID(int=5)),
            "corrupted": right[:-20] + bytes([right[-20] ^ 1]) + right[-19:],
        }[what]
        for _ in range(MAX_FAILURES):
            assert (await scene.job())[0] == "READY"
            await scene.attempt()
        status, _, error = await scene.job()
        assert (status, error) == ("DEAD", "CREDENTIAL_UNOPENABLE")
        (died,) = await scene.told("job.die")
        assert "CREDENTIAL_UNOPENABLE" in died
        state, problem = await scene.one(f"SELECT state, problem FROM {scene.subject}")
        assert state == "FAILED"
        assert "CREDENTIAL_UNOPENABLE" in problem
        await scene.assert_nothing_was_done()
        assert await scene.told("job.wait") == []
