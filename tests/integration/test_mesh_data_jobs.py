"""Jobs on a real PostgreSQL: planning, announcing, leasing with a fence, and dying."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from services._mesh import dispatcher as dispatching
from services._mesh.claimed import ClaimedJob
from services._mesh.context import entered
from services._mesh.dispatcher import Dispatcher
from services._mesh.errors import Conflict, Denied, NotFound, Unavailable, WrongState
from services._mesh.grants import CredentialScope, read_own_grant
from services._mesh.job_rpc import leased
from services._mesh.jobs import MAX_FAILURES, WARRANT_PERIOD, Authority, Job, JobDesk, Lease, Planner
from services._mesh.metrics import Metrics
from services._mesh.revocations import Revocation, RevocationKind, Revocations
from services._mesh.uow import Store, UnitOfWork
from tests.support.postgres import TestDatabase
from tests.support.things import ACME, GLOBEX, INITECH, MovableClock, add_thing, context, install, keys

PAST = datetime(2026, 1, 1, tzinfo=UTC)
CREDENTIAL = UUID(int=99)


class Heard:
    """An announcer that remembers, and can be told to fail."""

    def __init__(self) -> None:
        self.jobs: list[UUID] = []
        self.failing = False
        self.lost = False

    async def publish(self, kind: str, job_id: UUID, trace_parent: str) -> None:
        await asyncio.sleep(0)
        if self.failing:
            raise ConnectionError
        self.jobs.append(job_id)

    async def ensure(self) -> bool:
        lost, self.lost = self.lost, False
        return lost


@dataclass
class Office:
    """Both sides of a service's jobs."""

    database: TestDatabase
    clock: MovableClock
    api: Store
    worker: Store
    planner: Planner
    desk: JobDesk
    dispatcher: Dispatcher
    heard: Heard
    authority: Authority
    revocations: Revocations
    dead: list[UUID]
    metrics: Metrics

    async def plan(self, due_at: datetime = PAST, organization: UUID = ACME, subject: UUID | None = None) -> UUID:
        job = self.planner.plan(organization, "weigh", subject or uuid4(), due_at, plan=self.authority.plan)
        async with self.api.begin(organization, context(organization)) as work:
            await work.enqueue(job)
        return job.job_id

    async def claim(self, job_id: UUID, worker: str = "pricing-worker") -> Lease:
        with entered(context(None, peer=worker, peer_thumbprint="x5t")):
            return await self.desk.claim(job_id)

    async def renew(self, lease: Lease, worker: str = "pricing-worker") -> Lease:
        with entered(context(None, peer=worker, peer_thumbprint="x5t")):
            return await self.desk.renew(lease.job.job_id, lease.fence)

    def held(self, lease: Lease) -> ClaimedJob:
        return ClaimedJob(leased(lease), self.worker, "pricing-worker")

    async def row(self, job_id: UUID) -> dict[str, object]:
        superuser = await self.database.superuser()
        found = await superuser.fetchrow("SELECT * FROM pricing.jobs WHERE job_id = $1", job_id)
        await superuser.close()
        assert found is not None
        return dict(found)

    async def events(self) -> list[str]:
        superuser = await self.database.superuser()
        rows = await superuser.fetch("SELECT action FROM pricing.outbox ORDER BY counter")
        await superuser.close()
        return [row["action"] for row in rows]


@pytest.fixture
async def office(database: TestDatabase, tmp_path: Path) -> AsyncIterator[Office]:
    await install(database)
    clock, heard = MovableClock(), Heard()
    api, worker = database.role("pricing_api"), database.role("pricing_worker")
    dispatch = database.role("pricing_dispatcher")
    key, trust = keys(tmp_path)
    revocations = Revocations(clock)
    revocations.apply([], 0)
    dead: list[UUID] = []
    metrics = Metrics()
    made = Office(
        database,
        clock,
        Store(api, "pricing", clock),
        Store(worker, "pricing", clock),
        Planner(key, "pricing", clock),
        None,  # type: ignore[arg-type]
        Dispatcher(dispatch, "pricing", clock, heard, metrics),
        heard,
        Authority(),
        revocations,
        dead,
        metrics,
    )

    async def policy(job: Job) -> Authority:
        return made.authority

    async def on_dead(work: UnitOfWork, job: Job, error: str) -> None:
        dead.append(job.subject_id)
        await add_thing(work, error, job.subject_id)

    made.desk = JobDesk(
        made.api,
        dispatch,
        key,
        trust,
        clock,
        {"weigh": policy},
        issuer="pricing",
        profile="local",
        revocations=revocations,
        on_dead=on_dead,
    )
    yield made
    for role in (api, worker, dispatch):
        await role.close()


async def test_a_job_is_announced_when_it_is_due_by_the_injected_clock(office: Office) -> None:
    later = await office.plan(office.clock.now() + timedelta(days=1))
    assert await office.dispatcher.round() == 0
    office.clock.ahead = timedelta(days=2)
    assert await office.dispatcher.round() == 1
    assert office.heard.jobs == [later]
    assert await office.dispatcher.round() == 0


async def test_the_same_work_planned_twice_is_one_job(office: Office) -> None:
    subject = uuid4()
    first = await office.plan(subject=subject)
    second = await office.plan(subject=subject)
    await office.dispatcher.round()
    assert office.heard.jobs == [first]
    assert second != first


async def test_two_dispatchers_announce_each_job_once(office: Office) -> None:
    planned = {await office.plan(organization=each) for each in (ACME, GLOBEX, INITECH) for _ in range(20)}
    others = [office.database.role("pricing_dispatcher") for _ in range(3)]
    rivals = [Dispatcher(role, "pricing", office.clock, office.heard) for role in others]
    await asyncio.gather(*(rival.round() for rival in rivals))
    while await office.dispatcher.round():
        pass
    for role in others:
        await role.close()
    assert sorted(office.heard.jobs) == sorted(planned)


async def test_one_organizations_flood_does_not_hold_up_the_others(office: Office) -> None:
    for _ in range(dispatching.SHARE + 30):
        await office.plan(organization=ACME)
    theirs = await office.plan(office.clock.now(), organization=GLOBEX)
    await office.dispatcher.round()
    assert office.heard.jobs.index(theirs) <= 1
    assert len(office.heard.jobs) == dispatching.SHARE + 1
    # The rest waits until something of what is announced has been done.
    assert await office.dispatcher.round() == 0
    held = office.held(await office.claim(office.heard.jobs[2]))
    assert await office.dispatcher.round() == 0
    async with held.begin() as work:
        await held.finish(work)
    assert await office.dispatcher.round() == 1


async def test_what_does_not_reach_the_stream_is_announced_again(office: Office) -> None:
    job = await office.plan()
    office.heard.failing = True
    with pytest.raises(ConnectionError):
        await office.dispatcher.round()
    office.heard.failing = False
    assert await office.dispatcher.round() == 1
    assert office.heard.jobs == [job]


async def test_what_nobody_takes_is_announced_again_and_what_a_lost_stream_held_at_once(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await office.plan()
    await office.dispatcher.round()
    office.clock.wall_ahead = dispatching.REPUBLISH_AFTER + timedelta(seconds=1)
    assert await office.dispatcher.round() == 1
    office.heard.lost = True
    monkeypatch.setattr(dispatching, "WATCH_SECONDS", 0.0)
    assert await office.dispatcher.round() == 1
    assert office.heard.jobs == [job] * 3


async def test_overdue_jobs_are_counted(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatching, "WATCH_SECONDS", 0.0)
    await office.plan(office.clock.now() - timedelta(seconds=1))
    await office.dispatcher.round()
    assert office.dispatcher.overdue == 0
    office.clock.ahead = timedelta(hours=1)
    await office.plan(office.clock.now() - timedelta(minutes=1))
    await office.plan(office.clock.now() + timedelta(hours=1))
    await office.dispatcher.round()
    assert office.dispatcher.overdue == 1
    shown = dict(re.findall(r'^(recoup_jobs_\w+){service="pricing"} (\S+)$', office.metrics.render(), re.MULTILINE))
    assert (shown["recoup_jobs_due"], shown["recoup_jobs_overdue"]) == ("2", "1")
    assert 3600 <= float(shown["recoup_jobs_oldest_seconds"]) < 3700


async def test_a_lease_excludes_others_until_it_runs_out_by_the_wall_clock(office: Office) -> None:
    job = await office.plan()
    first = await office.claim(job)
    assert (first.fence, first.job.attempts) == (1, 1)
    office.clock.ahead = timedelta(days=30)  # The injected clock has no say in leases.
    with pytest.raises(WrongState):
        await office.claim(job)
    office.clock.wall_ahead = timedelta(seconds=61)
    second = await office.claim(job)
    assert (second.fence, second.job.attempts) == (2, 2)


async def test_of_many_who_claim_at_once_one_gets_the_lease(office: Office) -> None:
    job = await office.plan()
    results = await asyncio.gather(*(office.claim(job) for _ in range(8)), return_exceptions=True)
    assert sum(isinstance(result, Lease) for result in results) == 1
    assert sum(isinstance(result, WrongState) for result in results) == 7


async def test_the_fence_stops_a_stale_workers_commit(office: Office) -> None:
    job = await office.plan()
    stale = office.held(await office.claim(job))
    office.clock.wall_ahead = timedelta(seconds=61)
    fresh = office.held(await office.claim(job, "pricing-worker"))
    with pytest.raises(Conflict):
        async with stale.begin() as work:
            await add_thing(work, "stale")
            work.emit("pricing.thing.add", "things/1")
            await stale.finish(work)
    async with fresh.begin() as work:
        thing = await add_thing(work, "fresh")
        work.emit("pricing.thing.add", "things/1")
        await fresh.finish(work)
    assert (await office.row(job))["status"] == "DONE"
    async with office.api.read(ACME) as connection:
        names = (await connection.execute(text("SELECT thing_id, name FROM pricing.things"))).all()
    assert [(row.thing_id, row.name) for row in names] == [(thing, "fresh")]


async def test_taking_a_lease_over_waits_for_a_commit_that_is_under_way(office: Office) -> None:
    job = await office.plan()
    first = office.held(await office.claim(job))
    office.clock.wall_ahead = timedelta(seconds=61)
    async with first.begin() as work:
        rival = asyncio.create_task(office.claim(job))
        await asyncio.sleep(0.1)
        assert not rival.done()
        await first.finish(work)
    with pytest.raises(WrongState):
        await rival


async def test_a_lapsed_lease_is_freed_and_announced(office: Office) -> None:
    job = await office.plan()
    await office.dispatcher.round()
    await office.claim(job)
    assert await office.dispatcher.round() == 0
    office.clock.wall_ahead = timedelta(seconds=61)
    assert await office.dispatcher.round() == 1
    assert (await office.row(job))["failures"] == 1


async def test_a_renewed_lease_has_fresh_grants_and_a_lost_one_is_not_renewed(office: Office) -> None:
    lease = await office.claim(await office.plan())
    office.clock.wall_ahead = timedelta(seconds=30)
    renewed = await office.renew(lease)
    assert renewed.lease_until > lease.lease_until
    assert renewed.grant != lease.grant
    with pytest.raises(Conflict):
        await office.renew(lease, "scanner-worker")
    office.clock.wall_ahead = timedelta(seconds=200)
    await office.claim(lease.job.job_id)
    with pytest.raises(Conflict):
        await office.renew(lease)


async def test_cancelled_jobs_are_taken_from_whoever_is_at_them(office: Office) -> None:
    subject = uuid4()
    job = await office.plan(subject=subject)
    held = office.held(await office.claim(job))
    async with office.api.begin(ACME, context()) as work:
        assert await work.cancel_jobs("weigh", subject) == 1
    with pytest.raises(Conflict):
        async with held.begin():
            pass
    with pytest.raises(WrongState):
        await office.claim(job)


async def test_postponing_is_not_failing(office: Office) -> None:
    job = await office.plan()
    held = office.held(await office.claim(job))
    async with held.begin() as work:
        await held.postpone(work, office.clock.now() + timedelta(days=1))
    with pytest.raises(WrongState):
        await office.claim(job)
    office.clock.ahead = timedelta(days=2)
    await office.claim(job)
    assert (await office.row(job))["failures"] == 0


async def test_a_job_that_fails_again_and_again_dies_with_an_event(office: Office) -> None:
    job = await office.plan()
    for failure in range(1, MAX_FAILURES + 1):
        held = office.held(await office.claim(job))

        async def on_dead(work: UnitOfWork, lost: Job, error: str) -> None:
            await add_thing(work, error, lost.subject_id)

        dead = await held.fail("SCALES_BROKEN", on_dead=on_dead)
        assert dead == (failure == MAX_FAILURES)
        office.clock.ahead += timedelta(hours=1)
    row = await office.row(job)
    assert (row["status"], row["failures"], row["last_error"]) == ("DEAD", MAX_FAILURES, "SCALES_BROKEN")
    assert await office.events() == ["pricing.job.die"]
    with pytest.raises(WrongState):
        await office.claim(job)


async def test_what_is_away_kills_no_job(office: Office) -> None:
    job = await office.plan()
    for _ in range(MAX_FAILURES + 2):
        held = office.held(await office.claim(job))
        await held.retry("DEPENDENCY_UNAVAILABLE")
        office.clock.ahead += timedelta(hours=1)
    row = await office.row(job)
    assert (row["status"], row["failures"], row["attempts"]) == ("READY", 0, MAX_FAILURES + 2)


async def test_a_job_whose_workers_die_with_it_dies_too(office: Office) -> None:
    job = await office.plan()
    for _ in range(MAX_FAILURES):
        await office.claim(job)
        office.clock.wall_ahead += timedelta(seconds=61)
        await office.dispatcher.round()
    with pytest.raises(WrongState):
        await office.claim(job)
    row = await office.row(job)
    assert (row["status"], office.dead) == ("DEAD", [row["subject_id"]])
    assert await office.events() == ["pricing.job.die"]


async def test_a_job_whose_warrant_is_over_is_buried_and_gives_its_place_back(office: Office) -> None:
    job = await office.plan(office.clock.now())
    office.clock.ahead = WARRANT_PERIOD - timedelta(minutes=1)
    held = office.held(await office.claim(job))
    async with held.begin() as work:
        await held.postpone(work, work.now)
    office.clock.ahead = WARRANT_PERIOD
    with pytest.raises(Denied):
        await office.claim(job)
    row = await office.row(job)
    assert (row["status"], row["last_error"], office.dead) == ("DEAD", "WARRANT_EXPIRED", [row["subject_id"]])
    assert await office.events() == ["pricing.job.die"]
    assert await office.dispatcher.round() == 0
    with pytest.raises(WrongState):
        await office.claim(job)


async def test_a_forged_warrant_gets_no_lease_and_kills_no_job(office: Office) -> None:
    job = await office.plan(office.clock.now())
    superuser = await office.database.superuser()
    await superuser.execute("UPDATE pricing.jobs SET warrant = left(warrant, -8) || 'AAAAAAAA'")
    await superuser.close()
    office.clock.ahead = WARRANT_PERIOD * 2
    with pytest.raises(Denied):
        await office.claim(job)
    assert ((await office.row(job))["status"], office.dead) == ("READY", [])


async def test_standing_work_never_ends_by_its_age(office: Office) -> None:
    office.authority = Authority(standing=True)
    job = await office.plan(office.clock.now())
    first = (await office.row(job))["warrant"]
    for days in range(0, 1300, 100):
        office.clock.ahead = timedelta(days=days)
        held = office.held(await office.claim(job))
        if days == 100:  # It has most of its time left.
            assert (await office.row(job))["warrant"] == first
        async with held.begin() as work:
            await held.postpone(work, work.now)
    assert (await office.row(job))["warrant"] != first
    # What nobody wanted for so long is over all the same, and so is what is standing no more.
    office.authority = Authority()
    office.clock.ahead += WARRANT_PERIOD
    with pytest.raises(Denied):
        await office.claim(job)
    assert (await office.row(job))["status"] == "DEAD"


async def test_a_warrant_that_is_taken_away_while_a_worker_claims_stays_away(office: Office) -> None:
    job_id = await office.plan()
    superuser = await office.database.superuser()

    async def taking(job: Job) -> Authority:
        await superuser.execute("UPDATE pricing.jobs SET warrant = '' WHERE job_id = $1", job_id)
        return office.authority

    office.desk._policies = {"weigh": taking}
    with pytest.raises(WrongState):
        await office.claim(job_id)
    await superuser.close()
    row = await office.row(job_id)
    assert (row["warrant"], row["status"]) == ("", "READY")


async def test_a_warrant_is_good_for_its_own_job_only(office: Office) -> None:
    job, other = await office.plan(), await office.plan()
    superuser = await office.database.superuser()
    await superuser.execute(
        "UPDATE pricing.jobs SET warrant = (SELECT warrant FROM pricing.jobs WHERE job_id = $1) WHERE job_id = $2",
        other,
        job,
    )
    with pytest.raises(Denied):
        await office.claim(job)
    await superuser.execute("UPDATE pricing.jobs SET subject_id = gen_random_uuid() WHERE job_id = $1", other)
    with pytest.raises(Denied):
        await office.claim(other)
    await superuser.close()


async def test_a_warrant_for_another_plan_gets_no_lease(office: Office) -> None:
    office.authority = Authority(plan="a" * 64)
    job = await office.plan()
    office.authority = Authority(plan="b" * 64)
    with pytest.raises(Denied):
        await office.claim(job)


@contextmanager
def stale(revocations: Revocations) -> Iterator[None]:
    fresh_at, revocations._fresh_at = revocations._fresh_at, None
    yield
    revocations._fresh_at = fresh_at


async def test_revoked_credentials_and_a_stale_feed_stop_claims_and_renewals(office: Office) -> None:
    office.authority = Authority(credentials=(CredentialScope(credential_id=CREDENTIAL, purpose="scan", account="1"),))
    lease = await office.claim(await office.plan())
    assert office.held(lease).credential("scan", "1").credential_id == str(CREDENTIAL)
    job = await office.plan()
    with stale(office.revocations), pytest.raises(Unavailable):
        await office.claim(job)
    revoked = Revocation(1, RevocationKind.CREDENTIAL, str(CREDENTIAL), office.clock.wall_seconds())
    office.revocations.apply([revoked], 1)
    with pytest.raises(Denied):
        await office.claim(job)
    with pytest.raises(Denied):
        await office.renew(lease)


async def test_no_two_grants_of_a_lease_are_the_same_however_many_and_however_soon_it_is_renewed(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    scope = CredentialScope(credential_id=CREDENTIAL, purpose="scan", account="1")
    office.authority = Authority(credentials=(scope,) * 400)
    seconds = office.clock.wall_seconds()
    leases = [await office.claim(await office.plan())]
    for milliseconds in range(1, 4):
        monkeypatch.setattr(office.clock, "wall_seconds", lambda at=seconds + milliseconds / 1000: at)
        leases.append(await office.renew(leases[0]))
    made = [grant for lease in leases for grant in (lease.grant, *(each for _, each in lease.credential_grants))]
    assert len({read_own_grant(each).jti for each in made}) == 4 * 401


async def test_an_unknown_job_is_not_found(office: Office) -> None:
    with pytest.raises(NotFound):
        await office.claim(uuid4())
