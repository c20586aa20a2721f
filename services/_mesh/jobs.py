"""Jobs on the owning API's side: the dispatcher that announces what is due, and the desk where workers claim leases.

The row in Postgres is the job. A message carries its id and no authority; losing every message loses nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy import text

from services._mesh.clock import Clock
from services._mesh.context import current
from services._mesh.database import Database
from services._mesh.errors import Conflict, Denied, NotFound, Reason, WrongState
from services._mesh.grants import CredentialScope, Grant, Warrant, sign_grant, sign_warrant, verify_warrant
from services._mesh.ids import uuid7
from services._mesh.tokens import SigningKey
from services._mesh.trust import TrustStore
from services._mesh.uow import NewJob, Store

log = logging.getLogger(__name__)

LEASE = timedelta(seconds=60)
GRANT_SECONDS = 240
WARRANT_PERIOD = timedelta(days=400)
REPUBLISH_AFTER = timedelta(seconds=15)
BATCH = 200
IDLE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Job:
    """A job's row as the desk sees it."""

    job_id: UUID
    organization_id: UUID
    kind: str
    subject_id: UUID
    attempts: int


@dataclass(frozen=True, slots=True)
class Authority:
    """What a worker gets for a job: the processes that its grant is for, and the credentials that may be opened."""

    audience: tuple[str, ...] = ()
    credentials: tuple[CredentialScope, ...] = ()
    plan: str = ""


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease as it is handed out: the signed grants, and the facts that a worker needs to keep it."""

    job: Job
    fence: int
    lease_until: datetime
    grant: str
    credential_grants: Sequence[tuple[CredentialScope, str]]
    trace_parent: str


# Looks at the world as it is now, and says what the job's worker may do; raises Problem to refuse.
Policy = Callable[[Job], Awaitable[Authority]]
# Announces jobs that are due, as (kind, job id, traceparent).
Publish = Callable[[str, UUID, str], Awaitable[None]]


class Planner:
    """Makes jobs with signed warrants. The owning API has one; a worker can't make a job that anybody would execute."""

    def __init__(self, key: SigningKey, issuer: str, clock: Clock) -> None:
        self._key, self._issuer, self._clock = key, issuer, clock

    def plan(self, organization_id: UUID, kind: str, subject_id: UUID, due_at: datetime, *, plan: str = "") -> NewJob:
        """A job for `UnitOfWork.enqueue`. `plan` is a hash that the work must still rest on."""
        job_id = uuid7()
        warrant = Warrant(
            issuer=self._issuer,
            organization_id=organization_id,
            kind=kind,
            subject=str(subject_id),
            job_id=job_id,
            plan=plan,
            not_before=min(due_at, self._clock.now()) - timedelta(seconds=1),
            expires_at=due_at + WARRANT_PERIOD,
        )
        return NewJob(job_id, kind, subject_id, due_at, sign_warrant(self._key, warrant))


class JobDesk:
    """Leases jobs to the workers that the allow-list lets through."""

    def __init__(
        self,
        store: Store,
        dispatcher: Database,
        key: SigningKey,
        trust: TrustStore,
        clock: Clock,
        policies: dict[str, Policy],
        *,
        issuer: str,
        profile: str,
    ) -> None:
        self._store, self._dispatcher, self._key, self._trust, self._clock = store, dispatcher, key, trust, clock
        self._policies, self._issuer, self._profile = policies, issuer, profile

    async def claim(self, job_id: UUID) -> Lease:
        """Lease a job to the calling worker.

        Raises NotFound, WrongState (JOB_NOT_CLAIMABLE), Denied (GRANT_INVALID), or what the policy raises.
        """
        organization_id = await self._organization_of(job_id)
        job, row = await self._read(organization_id, job_id)
        authority = await self._authorize(job, row.warrant)
        lease_until = self._clock.wall_now() + LEASE
        async with self._store.begin(organization_id) as work:
            leased = await work.execute(
                text(_LEASE.format(schema=self._store.schema)),
                {
                    "organization_id": organization_id,
                    "job_id": job_id,
                    "owner": current().peer,
                    "wall": work.wall_now,
                    "now": work.now,
                    "lease_until": lease_until,
                },
            )
            taken = leased.one_or_none()
        if taken is None:
            raise WrongState(
                Reason.ERROR_REASON_JOB_NOT_CLAIMABLE,
                "The job isn't due, is leased to somebody else, or is over.",
                {"status": row.status},
            )
        return self._lease(job, taken.fence, lease_until, authority, row.trace_parent)

    async def renew(self, job_id: UUID, fence: int) -> Lease:
        """Renew a lease with fresh grants. Raises Conflict (LEASE_LOST), or what the policy raises."""
        organization_id = await self._organization_of(job_id)
        job, row = await self._read(organization_id, job_id)
        authority = await self._authorize(job, row.warrant)
        lease_until = self._clock.wall_now() + LEASE
        async with self._store.begin(organization_id) as work:
            renewed = await work.execute(
                text(_RENEW.format(schema=self._store.schema)),
                {
                    "organization_id": organization_id,
                    "job_id": job_id,
                    "owner": current().peer,
                    "fence": fence,
                    "lease_until": lease_until,
                },
            )
            if renewed.one_or_none() is None:
                raise lease_lost(fence)
        return self._lease(job, fence, lease_until, authority, row.trace_parent)

    async def _organization_of(self, job_id: UUID) -> UUID:
        async with self._dispatcher.unscoped() as connection:
            found = await connection.execute(text(_WHOSE.format(schema=self._store.schema)), {"job_id": job_id})
            organization_id: UUID | None = found.scalar()
        if organization_id is None:
            raise NotFound("job")
        return organization_id

    async def _read(self, organization_id: UUID, job_id: UUID) -> tuple[Job, Any]:
        async with self._store.read(organization_id) as connection:
            found = await connection.execute(
                text(_READ.format(schema=self._store.schema)), {"organization_id": organization_id, "job_id": job_id}
            )
            row = found.one_or_none()
        if row is None:
            raise NotFound("job")
        return Job(job_id, organization_id, row.kind, row.subject_id, row.attempts), row

    async def _authorize(self, job: Job, warrant_token: str) -> Authority:
        warrant = verify_warrant(
            self._trust, warrant_token, issuer=self._issuer, profile=self._profile, now=self._clock.now()
        )
        named = (warrant.organization_id, warrant.kind, warrant.subject, warrant.job_id)
        policy = self._policies.get(job.kind)
        if named != (job.organization_id, job.kind, str(job.subject_id), job.job_id) or policy is None:
            raise Denied(Reason.ERROR_REASON_GRANT_INVALID, "The job's warrant is for something else.")
        authority = await policy(job)
        if warrant.plan != authority.plan:
            raise Denied(Reason.ERROR_REASON_GRANT_INVALID, "The job's warrant is for another plan.")
        return authority

    def _lease(self, job: Job, fence: int, lease_until: datetime, authority: Authority, trace_parent: str) -> Lease:
        worker = current().peer
        # Milliseconds keep the numbers of one lease's grants apart across renewals; each is good for one use.
        first = int(self._clock.wall_seconds() * 1000) * 100
        audience = (worker, *authority.audience)
        grants = [
            (scope, self._sign(job, fence, first + place, (worker, "scanner", "broker"), authority.plan, scope))
            for place, scope in enumerate(authority.credentials, start=1)
        ]
        own = self._sign(job, fence, first, audience, authority.plan, None)
        return Lease(job, fence, lease_until, own, grants, trace_parent)

    def _sign(
        self, job: Job, fence: int, number: int, audience: tuple[str, ...], plan: str, scope: CredentialScope | None
    ) -> str:
        issued_at = int(self._clock.wall_seconds())
        return sign_grant(
            self._key,
            Grant(
                issuer=self._issuer,
                audience=audience,
                presenter=current().peer_thumbprint,
                organization_id=job.organization_id,
                kind=job.kind,
                subject=str(job.subject_id),
                job_id=job.job_id,
                fence=fence,
                number=number,
                plan=plan,
                credential=scope,
                issued_at=issued_at,
                expires_at=issued_at + GRANT_SECONDS,
            ),
        )


def lease_lost(fence: int) -> Conflict:
    """The Conflict of a lease that somebody else has by now."""
    return Conflict(
        Reason.ERROR_REASON_LEASE_LOST, "The lease is over or somebody else's. Stop.", {"fence": str(fence)}
    )


class Gauge(Protocol):
    """What the dispatcher tells its numbers to."""

    def set(self, value: float) -> None:
        """Set the number."""


class Dispatcher:
    """Announces due jobs, frees lapsed leases, and announces again what nobody took. A task of the API process."""

    def __init__(self, database: Database, schema: str, clock: Clock, publish: Publish) -> None:
        self._database, self._schema, self._clock, self._publish = database, schema, clock, publish
        self._wake = asyncio.Event()
        self.overdue = 0

    def wake(self) -> None:
        """A job was committed just now: don't wait for the next round."""
        self._wake.set()

    async def run(self) -> None:
        """Dispatch until cancelled. Failures are logged and tried again, with growing pauses."""
        pause = IDLE_SECONDS
        while True:
            try:
                announced = await self.round()
                pause = IDLE_SECONDS
            except asyncio.CancelledError:
                raise
            except Exception as error:
                announced, pause = 0, min(pause * 2, LONGEST_PAUSE_SECONDS)
                log.warning("the dispatcher of %s will try again: %s", self._schema, type(error).__name__)
            if announced == 0:
                await self._rest(pause)

    async def round(self) -> int:
        """Announce one batch of due jobs; returns how many. The row is marked only once the stream has the message."""
        wall, now = self._clock.wall_now(), self._clock.now()
        async with self._database.unscoped() as connection:
            await connection.execute(text(_FREE.format(schema=self._schema)), {"wall": wall})
            found = await connection.execute(
                text(_DUE.format(schema=self._schema)),
                {"now": now, "before": wall - REPUBLISH_AFTER, "limit": BATCH},
            )
            due = found.all()
            self.overdue = sum(1 for row in due if row.published_at is not None)
            for row in due:
                await self._publish(row.kind, row.job_id, row.trace_parent)
            if due:
                await connection.execute(
                    text(_PUBLISHED.format(schema=self._schema)), {"wall": wall, "ids": [row.job_id for row in due]}
                )
        return len(due)

    async def _rest(self, seconds: float) -> None:
        self._wake.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass


_WHOSE = "SELECT organization_id FROM {schema}.jobs WHERE job_id = :job_id"
_READ = """
SELECT kind, subject_id, status, warrant, attempts, trace_parent FROM {schema}.jobs
WHERE organization_id = :organization_id AND job_id = :job_id
"""
# Leases go by the wall clock, due dates by the injected one.
_LEASE = """
UPDATE {schema}.jobs SET status = 'LEASED', fence = fence + 1, attempts = attempts + 1,
  lease_owner = :owner, lease_until = :lease_until
WHERE organization_id = :organization_id AND job_id = :job_id AND due_at <= :now
  AND (status = 'READY' OR (status = 'LEASED' AND lease_until < :wall))
RETURNING fence
"""
_RENEW = """
UPDATE {schema}.jobs SET lease_until = :lease_until
WHERE organization_id = :organization_id AND job_id = :job_id AND status = 'LEASED'
  AND fence = :fence AND lease_owner = :owner
RETURNING fence
"""
_FREE = "UPDATE {schema}.jobs SET status = 'READY', published_at = NULL WHERE status = 'LEASED' AND lease_until < :wall"
# One organization's flood doesn't hold up the others: each one's n-th job comes before anybody's n+1-th.
_DUE = """
WITH due AS (
  SELECT job_id, kind, trace_parent, published_at,
    row_number() OVER (PARTITION BY organization_id ORDER BY due_at) AS turn
  FROM {schema}.jobs
  WHERE status = 'READY' AND due_at <= :now AND (published_at IS NULL OR published_at < :before)
)
SELECT d.job_id, d.kind, d.trace_parent, d.published_at FROM {schema}.jobs AS j JOIN due AS d USING (job_id)
ORDER BY d.turn LIMIT :limit FOR UPDATE OF j SKIP LOCKED
"""
_PUBLISHED = "UPDATE {schema}.jobs SET published_at = :wall WHERE job_id = ANY(CAST(:ids AS uuid[]))"
