"""Jobs on the owning API's side: planning them with a warrant, and the desk where workers claim leases.

The row in Postgres is the job. A message carries its id and no authority; losing every message loses nothing. It must
not know what any kind of job does: a policy, given by the service, says what a job's worker may do.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any
from uuid import UUID

from sqlalchemy import text

from services._mesh.clock import Clock
from services._mesh.context import current
from services._mesh.database import Database
from services._mesh.errors import Conflict, Denied, NotFound, Reason, WrongState
from services._mesh.grants import (
    CredentialScope,
    Grant,
    Warrant,
    WarrantExpired,
    sign_grant,
    sign_warrant,
    verify_warrant,
)
from services._mesh.ids import uuid7
from services._mesh.revocations import RevocationKind, Revocations
from services._mesh.session_policies import divide
from services._mesh.tokens import SigningKey
from services._mesh.trust import TrustStore
from services._mesh.uow import NewJob, Store, UnitOfWork

log = logging.getLogger(__name__)

LEASE = timedelta(seconds=60)
GRANT_SECONDS = 240
WARRANT_PERIOD = timedelta(days=400)
# A job that failed so often is dead. A lease that ran out counts: what kills its worker must not be tried for ever.
MAX_FAILURES = 5
# How many grants one lease may have in a millisecond, so that no later one gets a number twice.
_NUMBERS = 10_000


@dataclass(frozen=True, slots=True)
class Job:
    """What a job is. `attempts` counts its leases so far."""

    job_id: UUID
    organization_id: UUID
    kind: str
    subject_id: UUID
    attempts: int


@dataclass(frozen=True, slots=True)
class Authority:
    """What a worker gets for a job: the processes that its grant is for, and the credentials that may be opened.

    `plan` is the hash of what is still to be done; it must be the one in the warrant. Work that is `standing` has no
    end: as long as the policy wants it, its warrant is signed anew before it is over.
    """

    audience: tuple[str, ...] = ()
    credentials: tuple[CredentialScope, ...] = ()
    plan: str = ""
    standing: bool = False


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
# Told, in the transaction that gives a job up, why: so that its subject doesn't wait for ever.
OnDead = Callable[[UnitOfWork, Job, str], Awaitable[None]]


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
        policies: Mapping[str, Policy],
        *,
        issuer: str,
        profile: str,
        revocations: Revocations | None = None,
        on_dead: OnDead | None = None,
        workers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """`workers` says which process alone does the jobs of a kind, and no others."""
        self._store, self._dispatcher, self._key, self._trust, self._clock = store, dispatcher, key, trust, clock
        self._policies, self._issuer, self._profile = policies, issuer, profile
        self._revocations, self._on_dead, self._workers = revocations, on_dead, workers

    async def claim(self, job_id: UUID) -> Lease:
        """Lease a job to the calling worker.

        Raises NotFound, WrongState (JOB_NOT_CLAIMABLE), Denied (GRANT_INVALID), Unavailable
        (REVOCATION_FEED_STALE), or what the policy raises.
        """
        job, row = await self._read(job_id)
        if not self._claimable(row):
            raise _not_claimable(row.status)
        if row.failures >= MAX_FAILURES:
            await self._bury(job, "LEASE_EXPIRED")
            raise _not_claimable("DEAD")
        try:
            warrant = self._warrant(job, row.warrant)
        except WarrantExpired:  # No later claim will fare better; until it is buried, it takes another job's place.
            await self._bury(job, "WARRANT_EXPIRED")
            raise
        authority = await self._authorize(job, warrant)
        lease_until = self._clock.wall_now() + LEASE
        async with self._store.begin(job.organization_id, interim=True) as work:
            leased = await work.execute(
                text(_LEASE.format(schema=work.schema)),
                {
                    **_identity(job),
                    "owner": current().peer,
                    "wall": work.wall_now,
                    "now": work.now,
                    "lease_until": lease_until,
                    "was": row.warrant,
                    "warrant": self._kept(row.warrant, warrant, authority),
                },
            )
            taken = leased.one_or_none()
        if taken is None:  # Somebody was faster.
            raise _not_claimable("LEASED")
        job = Job(job.job_id, job.organization_id, job.kind, job.subject_id, taken.attempts)
        return self._lease(job, taken.fence, lease_until, authority, row.trace_parent)

    async def renew(self, job_id: UUID, fence: int) -> Lease:
        """Renew a lease with fresh grants. Raises Conflict (LEASE_LOST), or what `claim` raises."""
        job, row = await self._read(job_id)
        authority = await self._authorize(job, self._warrant(job, row.warrant))
        lease_until = self._clock.wall_now() + LEASE
        async with self._store.begin(job.organization_id, interim=True) as work:
            renewed = await work.execute(
                text(_RENEW.format(schema=work.schema)),
                {**_identity(job), "owner": current().peer, "fence": fence, "lease_until": lease_until},
            )
            if renewed.one_or_none() is None:
                raise lease_lost(fence)
        return self._lease(job, fence, lease_until, authority, row.trace_parent)

    async def _read(self, job_id: UUID) -> tuple[Job, Any]:
        """The job. Whose it is, only the dispatcher's role can see; the rest is read in that organization."""
        async with self._dispatcher.unscoped() as connection:
            found = await connection.execute(text(_WHOSE.format(schema=self._store.schema)), {"job_id": job_id})
            organization_id: UUID | None = found.scalar()
        if organization_id is None:
            raise NotFound("job")
        key = {"organization_id": organization_id, "job_id": job_id}
        async with self._store.read(organization_id) as connection:
            row = (await connection.execute(text(_READ.format(schema=self._store.schema)), key)).one_or_none()
        if row is None:
            raise NotFound("job")
        return Job(job_id, organization_id, row.kind, row.subject_id, row.attempts), row

    def _claimable(self, row: Any) -> bool:
        if row.status == "LEASED":
            return bool(row.lease_until < self._clock.wall_now())
        return bool(row.status == "READY" and row.due_at <= self._clock.now())

    def _warrant(self, job: Job, token: str) -> Warrant:
        """The job's own warrant, again at every claim and renewal. Raises Denied, WarrantExpired."""
        now = self._clock.now()
        warrant = verify_warrant(self._trust, token, issuer=self._issuer, profile=self._profile, now=now)
        named = (warrant.organization_id, warrant.kind, warrant.subject, warrant.job_id)
        if named != (job.organization_id, job.kind, str(job.subject_id), job.job_id) or job.kind not in self._policies:
            raise Denied(Reason.ERROR_REASON_GRANT_INVALID, "The job's warrant is for something else.")
        return warrant

    def _kept(self, token: str, warrant: Warrant, authority: Authority) -> str:
        """The warrant for the row: that of standing work is signed anew when half of its time is over."""
        now = self._clock.now()
        if not authority.standing or warrant.expires_at - now > WARRANT_PERIOD / 2:
            return token
        return sign_warrant(self._key, replace(warrant, expires_at=now + WARRANT_PERIOD))

    async def _authorize(self, job: Job, warrant: Warrant) -> Authority:
        """Worker, policy and revocations: each again at every claim and renewal, since the world moves on."""
        self._refuse_other_workers(job)
        authority = await self._policies[job.kind](job)
        scopes = tuple(part for scope in authority.credentials for part in divide(scope))
        authority = replace(authority, credentials=scopes)
        if warrant.plan != authority.plan:
            raise Denied(Reason.ERROR_REASON_GRANT_INVALID, "The job's warrant is for another plan.")
        self._refuse_revoked(job, authority)
        return authority

    def _refuse_other_workers(self, job: Job) -> None:
        named, peer = self._workers.get(job.kind), current().peer
        if named != peer and (named is not None or peer in self._workers.values()):
            raise Denied(Reason.ERROR_REASON_GRANT_INVALID, "The job is for another worker.")

    def _refuse_revoked(self, job: Job, authority: Authority) -> None:
        if self._revocations is None:
            return
        self._revocations.require_fresh()
        keys = [(RevocationKind.ORGANIZATION, str(job.organization_id))]
        keys += [(RevocationKind.CREDENTIAL, str(scope.credential_id)) for scope in authority.credentials]
        # A warrant is as old as its decision, so that any revocation which the feed still knows of is younger.
        if any(self._revocations.is_revoked(kind, key, 0.0) for kind, key in keys):
            raise Denied(Reason.ERROR_REASON_GRANT_INVALID, "What the job needs was revoked.")

    async def _bury(self, job: Job, error: str) -> None:
        """Give a job up that no worker can: its workers died with it, or none may have it any more."""
        async with self._store.begin(job.organization_id, interim=True) as work:
            dead = await work.execute(text(_BURY.format(schema=work.schema)), {**_identity(job), "error": error})
            if dead.rowcount:
                await give_up(work, job, error, self._on_dead)

    def _lease(self, job: Job, fence: int, lease_until: datetime, authority: Authority, trace_parent: str) -> Lease:
        worker = current().peer
        if len(authority.credentials) >= _NUMBERS:
            raise RuntimeError(f"a lease has {len(authority.credentials)} credentials, and numbers for {_NUMBERS - 1}")
        # Milliseconds keep the numbers of one lease's grants apart across renewals; each is good for one use.
        first = int(self._clock.wall_seconds() * 1000) * _NUMBERS
        grants = [
            (scope, self._sign(job, fence, first + place, (worker, "scanner", "broker"), authority.plan, scope))
            for place, scope in enumerate(authority.credentials, start=1)
        ]
        own = self._sign(job, fence, first, (worker, *authority.audience), authority.plan, None)
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


async def give_up(work: UnitOfWork, job: Job, error: str, on_dead: OnDead | None) -> None:
    """Leave the event of a job that died, and let its subject know, in the transaction that marks it DEAD."""
    metadata = {"kind": job.kind, "subject": str(job.subject_id), "error": error[:200], "attempts": str(job.attempts)}
    work.emit(f"{work.schema}.job.die", f"jobs/{job.job_id}", metadata, "FAILED")
    log.error("job %s (%s) is dead after %d attempts: %s", job.job_id, job.kind, job.attempts, error)
    if on_dead is not None:
        await on_dead(work, job, error)


def lease_lost(fence: int) -> Conflict:
    """The Conflict of a lease that somebody else has by now."""
    return Conflict(
        Reason.ERROR_REASON_LEASE_LOST, "The lease is over or somebody else's. Stop.", {"fence": str(fence)}
    )


def _not_claimable(status: str) -> WrongState:
    return WrongState(
        Reason.ERROR_REASON_JOB_NOT_CLAIMABLE,
        "The job isn't due, is leased to somebody else, or is over.",
        {"status": status},
    )


def _identity(job: Job) -> dict[str, Any]:
    return {"organization_id": job.organization_id, "job_id": job.job_id}


_WHOSE = "SELECT organization_id FROM {schema}.jobs WHERE job_id = :job_id"
_READ = """
SELECT kind, subject_id, status, due_at, lease_until, warrant, attempts, failures, trace_parent FROM {schema}.jobs
WHERE organization_id = :organization_id AND job_id = :job_id
"""
# Leases go by the wall clock, due dates by the injected one. A lease that ran out is a failure of whoever held it.
# A warrant that was taken away since it was read isn't written back.
_LEASE = """
UPDATE {schema}.jobs SET status = 'LEASED', fence = fence + 1, attempts = attempts + 1,
  failures = failures + (status = 'LEASED')::int, lease_owner = :owner, lease_until = :lease_until,
  warrant = :warrant
WHERE organization_id = :organization_id AND job_id = :job_id AND due_at <= :now
  AND warrant = :was AND (status = 'READY' OR (status = 'LEASED' AND lease_until < :wall))
RETURNING fence, attempts
"""
_RENEW = """
UPDATE {schema}.jobs SET lease_until = :lease_until
WHERE organization_id = :organization_id AND job_id = :job_id AND status = 'LEASED'
  AND fence = :fence AND lease_owner = :owner
RETURNING fence
"""
_BURY = """
UPDATE {schema}.jobs SET status = 'DEAD', fence = fence + 1, last_error = :error
WHERE organization_id = :organization_id AND job_id = :job_id AND status IN ('READY', 'LEASED')
"""
