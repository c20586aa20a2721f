"""A job in a worker's hands: its facts, its grants, and the units of work that commit only while the lease is ours.

A handler runs under the grant's organization, never the message's. It must not keep a credential beyond the job.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import text

from recoup.mesh.v1 import job_pb2
from services._mesh import telemetry, tokens
from services._mesh.context import CallContext
from services._mesh.errors import Problem
from services._mesh.grants import read_own_grant
from services._mesh.jobs import MAX_FAILURES, Job, OnDead, give_up, lease_lost
from services._mesh.uow import Store, UnitOfWork

# 5 s, 20 s, 80 s, then five minutes: what is down for a while should be up again before a job is given up.
_FIRST_PAUSE_SECONDS = 5
_LONGEST_PAUSE_SECONDS = 300


@dataclass(frozen=True, slots=True)
class CredentialGrant:
    """A grant for one cloud credential of the job. `actions` are what its session may do."""

    purpose: str
    account: str
    credential_id: str
    actions: frozenset[str]
    grant: str


class ClaimedJob:
    """A job that this worker holds the lease of; `grant` and `credentials` are renewed while it does.

    `lost` is set when the lease is gone: stop, nothing can be committed any more.
    """

    def __init__(self, leased: job_pb2.LeasedJob, store: Store, process: str) -> None:
        self._store, self._process = store, process
        self.job_id, self.kind = UUID(leased.job_id), leased.kind
        self.subject_id, self.fence, self.attempt = UUID(leased.subject_id), leased.fence, leased.attempt
        self.trace_parent = leased.trace_parent
        self.lost = asyncio.Event()
        self.settled = False
        self.take(leased)
        # The organization comes from the grant that our API signed, and from nowhere else.
        self.organization_id = read_own_grant(self.grant).organization_id

    def take(self, leased: job_pb2.LeasedJob) -> None:
        """Take the grants of a lease or of its renewal."""
        self.lease_until = leased.lease_expires_at.ToDatetime(UTC)
        self.grant: str = leased.grant
        self.credentials = tuple(
            CredentialGrant(g.purpose, g.account, *_named(g.grant), g.grant) for g in leased.credential_grants
        )

    def credential(self, purpose: str, account: str) -> CredentialGrant:
        """The one credential grant for a purpose and account. Raises KeyError, also where there are several."""
        found = self.credentials_for(purpose, account)
        if len(found) > 1:
            raise KeyError(f"the credential for {purpose} in {account} is divided over {len(found)} sessions")
        return found[0]

    def credentials_for(self, purpose: str, account: str) -> tuple[CredentialGrant, ...]:
        """The grants for a purpose and account: several where the session policy of one would be too long
        (session_policies.py). Raises KeyError for none.
        """
        found = tuple(each for each in self.credentials if (each.purpose, each.account) == (purpose, account))
        if not found:
            raise KeyError(f"the lease has no credential for {purpose} in {account}")
        return found

    def context(self) -> CallContext:
        """The circumstances that the handler runs under."""
        grant = read_own_grant(self.grant)
        return CallContext(
            rpc=f"job/{self.kind}",
            peer=self._process,
            request_id=str(self.job_id),
            trace_id=telemetry.trace_id(),
            deadline=None,
            organization_id=grant.organization_id,
            actor=tokens.spiffe(self._process),
            authority=f"grant:{grant.jti}",
            grant=grant,
        )

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[UnitOfWork]:
        """A unit of work that commits only while this lease is ours. Raises Conflict (LEASE_LOST).

        The job's row is locked first: whoever takes the lease over waits for this commit, or this waits for them and
        finds another fence.
        """
        async with self._store.begin(self.organization_id, self.context()) as work:
            held = await work.execute(text(_HELD.format(schema=work.schema)), self._identity())
            if held.one_or_none() is None:
                self.lost.set()
                raise lease_lost(self.fence)
            yield work

    async def finish(self, work: UnitOfWork) -> None:
        """Mark the job done, in the transaction of its results."""
        await self._settle(work, _FINISH)

    async def postpone(self, work: UnitOfWork, due_at: datetime) -> None:
        """Give the job back, to be done again at `due_at` (injected clock); not a failure."""
        await self._settle(work, _POSTPONE, due_at=due_at)

    async def retry(self, error: str, news: Problem | None = None) -> None:
        """Give the job back for later because something that it needs is away; it never dies of that.

        `news` is what its organization isn't told yet, and is by the event of the same transaction.
        """
        async with self.begin() as work:
            if news is not None:
                said = {"kind": self.kind, "subject": str(self.subject_id), "reason": news.reason_name, **news.metadata}
                work.emit(f"{work.schema}.job.wait", f"jobs/{self.job_id}", said, "FAILED")
            due_at = work.now + timedelta(seconds=pause_seconds(self.attempt))
            await self._settle(work, _RETRY, due_at=due_at, error=error[:500])

    async def fail(self, error: str, *, final: bool = False, on_dead: OnDead | None = None) -> bool:
        """Give the job back after a failure, later each time; True if that was the last one and the job is dead.

        Its event and what `on_dead` writes are in the same transaction.
        """
        async with self.begin() as work:
            found = await work.execute(text(_FAILURES.format(schema=work.schema)), self._identity())
            failures = int(found.scalar_one()) + 1
            dead = final or failures >= MAX_FAILURES
            await self._settle(
                work,
                _FAIL,
                status="DEAD" if dead else "READY",
                due_at=work.now + timedelta(seconds=pause_seconds(failures)),
                error=error[:500],
            )
            if dead:
                await give_up(work, self._facts(), error, on_dead)
        return dead

    async def _settle(self, work: UnitOfWork, statement: str, **values: object) -> None:
        await work.execute(text(statement.format(schema=work.schema)), {**self._identity(), **values})
        self.settled = True

    def _facts(self) -> Job:
        return Job(self.job_id, self.organization_id, self.kind, self.subject_id, self.attempt)

    def _identity(self) -> dict[str, object]:
        return {"organization_id": self.organization_id, "job_id": self.job_id, "fence": self.fence}


def pause_seconds(failures: int) -> float:
    """How long to wait after so many failures, from 1."""
    return float(min(_FIRST_PAUSE_SECONDS * 4 ** min(failures - 1, 10), _LONGEST_PAUSE_SECONDS))


def _named(grant: str) -> tuple[str, frozenset[str]]:
    """The credential that a grant names, and the actions."""
    scope = read_own_grant(grant).credential
    if scope is None:
        return "", frozenset()
    return str(scope.credential_id), frozenset(action for s in scope.statements for action in s["actions"])


_MINE = "organization_id = :organization_id AND job_id = :job_id AND fence = :fence AND status = 'LEASED'"
_BACK = "published_at = NULL, lease_until = NULL"
_HELD = f"SELECT 1 FROM {{schema}}.jobs WHERE {_MINE} FOR UPDATE"
_FAILURES = f"SELECT failures FROM {{schema}}.jobs WHERE {_MINE}"
_FINISH = f"UPDATE {{schema}}.jobs SET status = 'DONE', lease_until = NULL, last_error = '' WHERE {_MINE}"
_POSTPONE = f"UPDATE {{schema}}.jobs SET status = 'READY', due_at = :due_at, failures = 0, {_BACK} WHERE {_MINE}"
_RETRY = f"UPDATE {{schema}}.jobs SET status = 'READY', due_at = :due_at, last_error = :error, {_BACK} WHERE {_MINE}"
_FAIL = (
    "UPDATE {schema}.jobs SET status = :status, due_at = :due_at, last_error = :error, failures = failures + 1,"
    f" {_BACK} WHERE {_MINE}"
)
