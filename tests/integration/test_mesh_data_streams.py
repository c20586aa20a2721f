"""Work over a real JetStream: nothing is lost when the server restarts, or loses all that it held."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from recoup.mesh.v1.job_service_pb2_grpc import add_JobServiceServicer_to_server
from services._mesh import dispatcher as dispatching
from services._mesh import streams, telemetry, worker
from services._mesh.claimed import ClaimedJob
from services._mesh.clock import Clock
from services._mesh.dispatcher import Dispatcher
from services._mesh.errors import DeadlinePassed, Problem, Reason, Unavailable
from services._mesh.job_rpc import JobServicer
from services._mesh.jobs import Authority, Job, JobDesk, Planner
from services._mesh.streams import JobMessages, JobStream
from services._mesh.uow import Store
from services._mesh.worker import JobRunner
from tests.support.nats import TestNats
from tests.support.postgres import TestDatabase
from tests.support.things import ACME, SERVICE, add_thing, context, install, keys, serving

PAST = Clock().now()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "FETCH_SECONDS", 0.2)
    monkeypatch.setattr(worker, "AGAIN_SECONDS", 0.2)
    monkeypatch.setattr(worker, "DRAIN_SECONDS", 5.0)
    monkeypatch.setattr(dispatching, "WATCH_SECONDS", 0.2)
    monkeypatch.setattr(dispatching, "IDLE_SECONDS", 0.05)


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.02)


class Plant:
    """An API with its dispatcher, and a worker, joined by a real NATS and a real gRPC connection."""

    def __init__(self, database: TestDatabase, nats: TestNats, folder: Path) -> None:
        self.database, self.nats = database, nats
        clock = Clock()
        self.roles = [database.role(f"{SERVICE}_{name}") for name in ("api", "worker", "dispatcher")]
        self.api, self.workers = Store(self.roles[0], SERVICE, clock), Store(self.roles[1], SERVICE, clock)
        key, trust = keys(folder)
        self.planner = Planner(key, SERVICE, clock)
        self.desk = JobDesk(
            self.api, self.roles[2], key, trust, clock, {"weigh": self._policy}, issuer=SERVICE, profile="local"
        )
        self.runs: Counter[UUID] = Counter()
        self.running = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.clock = clock

    async def _policy(self, job: Job) -> Authority:
        return Authority()

    async def plan(self, count: int) -> None:
        async with self.api.begin(ACME, context()) as work:
            for _ in range(count):
                await work.enqueue(self.planner.plan(ACME, "weigh", uuid4(), PAST))

    async def weigh(self, job: ClaimedJob) -> None:
        self.running += 1
        try:
            await self.gate.wait()
            async with job.begin() as work:
                await add_thing(work, "weighed", job.subject_id)
                work.emit("pricing.thing.weigh", f"things/{job.subject_id}")
                await job.finish(work)
            self.runs[job.subject_id] += 1
        finally:
            self.running -= 1

    async def statuses(self) -> Counter[str]:
        superuser = await self.database.superuser()
        rows = await superuser.fetch("SELECT status FROM pricing.jobs")
        await superuser.close()
        return Counter(row["status"] for row in rows)

    async def done(self, count: int) -> bool:
        return await self.statuses() == Counter({"DONE": count})

    @asynccontextmanager
    async def dispatching(self) -> AsyncIterator[None]:
        stream = JobStream(await self.nats.connect(SERVICE), SERVICE)
        dispatcher = Dispatcher(self.roles[2], SERVICE, self.clock, stream)
        self.api.on_jobs = dispatcher.wake
        async with _running(dispatcher.run()):
            yield

    @asynccontextmanager
    async def working(self, handler: Callable[[ClaimedJob], Awaitable[None]] | None = None) -> AsyncIterator[None]:
        messages = JobMessages(await self.nats.connect(f"{SERVICE}-worker"), SERVICE)
        async with serving(
            lambda s: add_JobServiceServicer_to_server(JobServicer(self.desk), s), "pricing-worker"
        ) as c:
            runner = JobRunner(messages, c, self.workers, "pricing-worker", {"weigh": handler or self.weigh})
            async with _running(runner.run()):
                yield

    async def close(self) -> None:
        for role in self.roles:
            await role.close()


@asynccontextmanager
async def _running(work: Awaitable[None]) -> AsyncIterator[None]:
    task = asyncio.ensure_future(work)
    try:
        yield
        assert not task.done(), task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def plant(database: TestDatabase, nats_server: TestNats, tmp_path: Path) -> AsyncIterator[Plant]:
    await install(database)
    made = Plant(database, nats_server, tmp_path)
    yield made
    await made.close()


async def test_jobs_go_from_their_rows_to_a_worker_and_are_done(plant: Plant) -> None:
    async with plant.dispatching(), plant.working():
        await plant.plan(25)
        await eventually(lambda: plant.done(25))
    assert set(plant.runs.values()) == {1}


async def test_deleting_all_of_jetstream_with_work_in_flight_loses_nothing(plant: Plant) -> None:
    async with plant.dispatching(), plant.working():
        plant.gate.clear()
        await plant.plan(20)

        async def in_flight() -> bool:
            return plant.running == 4

        await eventually(in_flight)
        await asyncio.to_thread(plant.nats.restart, lose_everything=True)
        await plant.plan(10)
        plant.gate.set()
        await eventually(lambda: plant.done(30), 40)
    assert (len(plant.runs), set(plant.runs.values())) == (30, {1})


async def test_work_goes_on_after_a_restart_of_the_server(plant: Plant) -> None:
    async with plant.dispatching(), plant.working():
        await plant.plan(5)
        await eventually(lambda: plant.done(5))
        await asyncio.to_thread(plant.nats.stop)
        await plant.plan(5)
        await asyncio.to_thread(plant.nats.start)
        await eventually(lambda: plant.done(10), 40)
    assert set(plant.runs.values()) == {1}


async def test_a_deleted_consumer_is_made_again(plant: Plant) -> None:
    async with plant.dispatching(), plant.working():
        await plant.plan(3)
        await eventually(lambda: plant.done(3))
        await asyncio.to_thread(plant.nats.restart)
        # Only the store's consumer goes; the stream stays.
        await asyncio.to_thread(plant.nats.lose_consumers)
        await plant.plan(3)
        await eventually(lambda: plant.done(6), 40)
    assert (len(plant.runs), set(plant.runs.values())) == (6, {1})


async def test_a_worker_waits_for_a_consumer_that_nobody_declared_yet_and_says_so_once(
    plant: Plant, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As at the start, where a worker is there before its API: twice a second it said that there is none."""
    monkeypatch.setattr(streams, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(streams, "LONGEST_PAUSE_SECONDS", 0.05)
    caplog.set_level("INFO", "services._mesh.streams")
    messages = JobMessages(await plant.nats.connect(f"{SERVICE}-worker"), SERVICE)
    stream, job = JobStream(await plant.nats.connect(SERVICE), SERVICE), uuid4()

    def said() -> list[str]:
        return [record.getMessage() for record in caplog.records if "jobs of" in record.getMessage()]

    pauses = []
    for _ in range(5):
        pauses.append(messages.pause_seconds)
        assert await messages.fetch(1, 0.2) == []
    assert pauses == [0.01, 0.02, 0.04, 0.05, 0.05]
    assert said() == [f"there is no consumer of jobs of {SERVICE} (ServiceUnavailableError); it is waited for"]
    assert await stream.ensure()
    await stream.publish("weigh", job, "")
    (message,) = await messages.fetch(1, 1.0)
    assert UUID(bytes=message.data) == job
    await message.ack()
    assert said()[1:] == [f"jobs of {SERVICE} are fetched again"]
    assert messages.pause_seconds == 0.01


async def test_announcing_again_replaces_instead_of_piling_up(plant: Plant) -> None:
    stream = JobStream(await plant.nats.connect(SERVICE), SERVICE)
    assert await stream.ensure()
    assert not await stream.ensure()
    job = uuid4()
    for _ in range(10):
        await stream.publish("weigh", job, "")
    messages = JobMessages(await plant.nats.connect(f"{SERVICE}-worker"), SERVICE)
    (message,) = await messages.fetch(5, 1.0)
    assert UUID(bytes=message.data) == job
    await message.ack()
    assert await messages.fetch(1, 0.2) == []


async def test_a_worker_may_not_announce_and_an_api_may_not_take(plant: Plant) -> None:
    """The subjects that each user is allowed are those of streams.py, and no others."""
    await JobStream(await plant.nats.connect(SERVICE), SERVICE).ensure()
    intruder = JobStream(await plant.nats.connect(f"{SERVICE}-worker"), SERVICE)
    intruder._context = intruder._client.jetstream(timeout=0.5)
    with pytest.raises(Exception, match=r"(?i)timeout|no response"):
        await intruder.publish("weigh", uuid4(), "")
    taker = JobMessages(await plant.nats.connect(SERVICE), SERVICE)
    await JobStream(await plant.nats.connect(SERVICE), SERVICE).publish("weigh", uuid4(), "")
    assert await taker.fetch(1, 0.3) == []


async def test_a_failing_handler_gives_its_job_back(plant: Plant) -> None:
    async def broken(job: ClaimedJob) -> None:
        raise ZeroDivisionError

    async with plant.dispatching(), plant.working(broken):
        await plant.plan(1)

        async def failed() -> bool:
            superuser = await plant.database.superuser()
            row = await superuser.fetchrow("SELECT status, failures, last_error, fence FROM pricing.jobs")
            await superuser.close()
            return tuple(row) == ("READY", 1, "ZeroDivisionError", 1)

        await eventually(failed)


async def test_a_handler_that_settles_nothing_has_failed(plant: Plant) -> None:
    async def forgetful(job: ClaimedJob) -> None:
        return

    async with plant.dispatching(), plant.working(forgetful):
        await plant.plan(1)

        async def failed() -> bool:
            superuser = await plant.database.superuser()
            row = await superuser.fetchrow("SELECT status, failures FROM pricing.jobs")
            await superuser.close()
            return tuple(row) == ("READY", 1)

        await eventually(failed)


@pytest.mark.parametrize(
    "problem",
    [
        Unavailable(Reason.ERROR_REASON_KMS_UNAVAILABLE, "away"),
        DeadlinePassed(Reason.ERROR_REASON_DEADLINE_TOO_SHORT, "slow"),
    ],
    ids=["away", "slow"],
)
async def test_what_a_handler_needs_being_away_is_not_its_failure(plant: Plant, problem: Problem) -> None:
    async def blocked(job: ClaimedJob) -> None:
        raise problem

    async with plant.dispatching(), plant.working(blocked):
        await plant.plan(1)

        async def retried() -> bool:
            superuser = await plant.database.superuser()
            row = await superuser.fetchrow("SELECT status, failures, last_error FROM pricing.jobs")
            await superuser.close()
            return tuple(row) == ("READY", 0, problem.reason_name)

        await eventually(retried)


async def test_an_organization_is_told_once_what_its_jobs_wait_for(plant: Plant) -> None:
    """Of three jobs and their attempts: one event for each cause, and again after a job was done."""
    away = Unavailable(Reason.ERROR_REASON_KMS_UNAVAILABLE, "away", {"cause": "TIMEOUT", "kek": "file:x/acme/1"})
    disabled = Unavailable(Reason.ERROR_REASON_KMS_KEY_UNUSABLE, "off", {"cause": "DISABLED", "kek": "file:x/acme/1"})
    problems: list[Problem | None] = [away, away, disabled, away, None, away]
    attempts = 0

    async def blocked(job: ClaimedJob) -> None:
        nonlocal attempts
        attempts += 1
        problem = problems[attempts - 1]
        if problem is not None:
            raise problem
        async with job.begin() as work:
            await job.finish(work)

    async with plant.dispatching(), plant.working(blocked):
        for number in range(1, len(problems) + 1):
            await plant.plan(1)

            async def settled(number: int = number) -> bool:
                superuser = await plant.database.superuser()
                done = await superuser.fetchval(
                    "SELECT count(*) FROM pricing.jobs WHERE status = 'DONE' OR last_error <> ''"
                )
                await superuser.close()
                return bool(done == number)

            await eventually(settled)
    superuser = await plant.database.superuser()
    rows = await superuser.fetch("SELECT convert_from(payload, 'UTF8') AS said FROM pricing.outbox ORDER BY counter")
    await superuser.close()
    told = [row["said"] for row in rows if "pricing.job.wait" in row["said"]]
    assert [("TIMEOUT" in said, "DISABLED" in said) for said in told] == [(True, False), (False, True), (True, False)]
    assert all("file:x/acme/1" in said for said in told)


async def test_a_worker_that_lost_its_lease_stops_and_commits_nothing(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "RENEW_EVERY_SECONDS", 0.1)
    stopped = asyncio.Event()

    async def slow(job: ClaimedJob) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async with plant.dispatching(), plant.working(slow):
        await plant.plan(1)

        async def is_leased() -> bool:
            return await plant.statuses() == Counter({"LEASED": 1})

        await eventually(is_leased)
        superuser = await plant.database.superuser()
        await superuser.execute("UPDATE pricing.jobs SET status = 'CANCELLED', fence = fence + 1")
        await superuser.close()
        async with asyncio.timeout(10):
            await stopped.wait()
    assert await plant.statuses() == Counter({"CANCELLED": 1})


async def test_stopping_a_worker_lets_running_jobs_end(plant: Plant) -> None:
    async with plant.dispatching():
        plant.gate.clear()
        async with plant.working():
            await plant.plan(2)

            async def both() -> bool:
                return plant.running == 2

            await eventually(both)
            asyncio.get_running_loop().call_later(0.3, plant.gate.set)
        assert await plant.done(2)


async def test_the_trace_goes_through_jetstream_and_a_redelivery_is_only_linked(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing = telemetry.Telemetry("test", None)
    tracing._provider, tracing.tracer = provider, provider.get_tracer("test")
    monkeypatch.setattr(telemetry, "_active", tracing)
    stream = JobStream(await plant.nats.connect(SERVICE), SERVICE)
    await stream.ensure()
    async with plant.dispatching():
        with tracing.span("request") as request:
            await plant.plan(1)
        asked = request.get_span_context()
        messages = JobMessages(await plant.nats.connect(f"{SERVICE}-worker"), SERVICE)
        (message,) = await messages.fetch(1, 5.0)
        announced = (message.headers or {})[streams.TRACE_HEADER]
        assert announced.split("-")[1] == f"{asked.trace_id:032x}"
        await message.nak()
        async with plant.working():
            await eventually(lambda: plant.done(1))
            await plant.plan(1)
            await eventually(lambda: plant.done(2))
    found: list[ReadableSpan] = list(exporter.get_finished_spans())
    publishes = [s for s in found if s.name == "publish jobs.pricing.weigh"]
    assert publishes[0].parent is not None
    assert publishes[0].parent.span_id == asked.span_id
    consumers = [s for s in found if s.name == "job jobs.pricing.weigh"]
    again = consumers[0]
    assert again.parent is None
    assert [telemetry.format_parent(link.context) for link in again.links] == [announced]
    assert announced == telemetry.format_parent(publishes[0].get_span_context())
    assert len(consumers) == 2
    provider.shutdown()
