"""The worker's side of jobs: fetch an announcement, claim the lease, do the work, commit with the fence.

A handler runs under the grant's organization, never the message's. Whatever it commits, it commits only while it
holds the lease. It must not keep a credential beyond the job.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import grpc.aio
import nats.errors
from nats.aio.msg import Msg
from opentelemetry.trace import SpanKind
from sqlalchemy import text

from recoup.mesh.v1 import job_pb2, job_service_pb2, job_service_pb2_grpc
from services._mesh import telemetry, tokens
from services._mesh.context import CallContext, entered
from services._mesh.errors import Problem, Reason, from_rpc_error
from services._mesh.grants import read_own_grant
from services._mesh.jobs import lease_lost
from services._mesh.streams import TRACE_HEADER, JobMessages
from services._mesh.uow import Store, UnitOfWork

log = logging.getLogger(__name__)

CALL_SECONDS = 10.0
RENEW_EVERY_SECONDS = 15.0
FETCH_SECONDS = 1.0
MAX_ATTEMPTS = 8
DRAIN_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class CredentialGrant:
    """A grant for one cloud credential of the job."""

    purpose: str
    account: str
    credential_id: str
    grant: str


class ClaimedJob:
    """A job that this worker holds the lease of; `grant` and `credentials` are renewed while it does."""

    def __init__(self, leased: job_pb2.LeasedJob, store: Store, process: str) -> None:
        self._store, self._process = store, process
        self.job_id, self.kind = UUID(leased.job_id), leased.kind
        self.subject_id, self.fence, self.attempt = UUID(leased.subject_id), leased.fence, leased.attempt
        self.trace_parent = leased.trace_parent
        self.lost = asyncio.Event()
        self.take(leased)
        # The organization comes from the grant that our API signed, and from nowhere else.
        self.organization_id = read_own_grant(self.grant).organization_id

    def take(self, leased: job_pb2.LeasedJob) -> None:
        """Take the grants of a lease or of its renewal."""
        self.grant: str = leased.grant
        self.credentials = tuple(
            CredentialGrant(g.purpose, g.account, _credential_id(g.grant), g.grant) for g in leased.credential_grants
        )

    def credential(self, purpose: str, account: str) -> CredentialGrant:
        """The credential grant for a purpose and account. Raises KeyError."""
        for found in self.credentials:
            if (found.purpose, found.account) == (purpose, account):
                return found
        raise KeyError(f"the lease has no credential for {purpose} in {account}")

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
        """A unit of work that commits only while this lease is ours. Raises Conflict (LEASE_LOST)."""
        async with self._store.begin(self.organization_id, self.context()) as work:
            held = await work.execute(text(_HELD.format(schema=work.schema)), self._identity())
            if held.one_or_none() is None:
                raise lease_lost(self.fence)
            yield work

    async def finish(self, work: UnitOfWork) -> None:
        """Mark the job done, in the transaction of its results."""
        await work.execute(text(_FINISH.format(schema=work.schema)), self._identity())

    async def postpone(self, work: UnitOfWork, due_at: datetime) -> None:
        """Give the job back, to be done again at `due_at` (injected clock); not a failure."""
        await work.execute(text(_POSTPONE.format(schema=work.schema)), {**self._identity(), "due_at": due_at})

    async def fail(self, error: str, *, final: bool) -> None:
        """Give the job back after a failure, later each time; after the last attempt it is dead, with an event."""
        over = final or self.attempt >= MAX_ATTEMPTS
        async with self.begin() as work:
            pause = timedelta(seconds=min(2**self.attempt, 300))
            await work.execute(
                text(_FAIL.format(schema=work.schema)),
                {
                    **self._identity(),
                    "status": "DEAD" if over else "READY",
                    "due_at": work.now + pause,
                    "error": error[:500],
                },
            )
            if over:
                metadata = {"kind": self.kind, "error": error[:200], "attempts": str(self.attempt)}
                work.emit(f"{work.schema}.job.die", f"jobs/{self.job_id}", metadata, "FAILED")

    def _identity(self) -> dict[str, object]:
        return {"organization_id": self.organization_id, "job_id": self.job_id, "fence": self.fence}


Handler = Callable[[ClaimedJob], Awaitable[None]]
# Told when a job is given up for good, so that its subject doesn't wait for ever.
OnDead = Callable[[ClaimedJob, str], Awaitable[None]]


class JobRunner:
    """Runs the jobs of one service with bounded concurrency until it is told to stop."""

    def __init__(
        self,
        messages: JobMessages,
        channel: grpc.aio.Channel,
        store: Store,
        process: str,
        handlers: Mapping[str, Handler],
        *,
        concurrency: int = 4,
        on_dead: OnDead | None = None,
    ) -> None:
        self._messages, self._store, self._process, self._handlers = messages, store, process, handlers
        self._desk = job_service_pb2_grpc.JobServiceStub(channel)
        self._places = asyncio.Semaphore(concurrency)
        self._running: set[asyncio.Task[None]] = set()
        self._on_dead = on_dead

    async def run(self) -> None:
        """Fetch and run until cancelled; then give running jobs a moment to end."""
        try:
            while True:
                await self._places.acquire()
                messages: list[Msg] = []
                try:
                    messages = await self._messages.fetch(1, FETCH_SECONDS)
                finally:
                    if not messages:
                        self._places.release()
                for message in messages:
                    task = asyncio.create_task(self._handle(message))
                    self._running.add(task)
                    task.add_done_callback(self._ended)
        finally:
            if self._running:
                await asyncio.wait(self._running, timeout=DRAIN_SECONDS)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._places.release()
        if not task.cancelled() and task.exception() is not None:
            log.error("a job's handling broke", exc_info=task.exception())

    async def _handle(self, message: Msg) -> None:
        parent = (message.headers or {}).get(TRACE_HEADER, "")
        with telemetry.active().span(f"job {message.subject}", trace_parent=parent, kind=SpanKind.CONSUMER):
            job = await self._claim(UUID(bytes=message.data))
            if job is not None:
                await self._work(job, message)
            await _settle(message)

    async def _claim(self, job_id: UUID) -> ClaimedJob | None:
        """The lease, or None when the job is nobody's business any more (the sweeper announces what is)."""
        try:
            answer = await self._desk.ClaimJob(
                job_service_pb2.ClaimJobRequest(job_id=str(job_id)), timeout=CALL_SECONDS
            )
        except grpc.aio.AioRpcError as error:
            problem = from_rpc_error(error, "the job's API")
            log.info("job %s can't be claimed now: %s", job_id, problem.reason_name)
            return None
        return ClaimedJob(answer.job, self._store, self._process)

    async def _work(self, job: ClaimedJob, message: Msg) -> None:
        keeper = asyncio.create_task(self._keep(job, message))
        try:
            with entered(job.context()):
                worker = asyncio.ensure_future(self._handlers[job.kind](job))
                lost = asyncio.create_task(job.lost.wait())
                await asyncio.wait({worker, lost}, return_when=asyncio.FIRST_COMPLETED)
                lost.cancel()
                if not worker.done():
                    worker.cancel()
                await worker
        except asyncio.CancelledError:
            if not job.lost.is_set():
                raise
            log.warning("job %s: the lease was lost, so the work was stopped", job.job_id)
        except Exception as error:
            await self._failed(job, error)
        finally:
            keeper.cancel()

    async def _failed(self, job: ClaimedJob, error: Exception) -> None:
        name = error.reason_name if isinstance(error, Problem) else type(error).__name__
        if isinstance(error, Problem) and error.reason == Reason.ERROR_REASON_LEASE_LOST:
            log.warning("job %s: somebody else has the lease", job.job_id)
            return
        log.warning("job %s (%s) failed at attempt %d: %s", job.job_id, job.kind, job.attempt, name, exc_info=error)
        try:
            if self._on_dead is not None and job.attempt >= MAX_ATTEMPTS:
                with entered(job.context()):
                    await self._on_dead(job, name)
            await job.fail(name, final=False)
        except Exception as second:  # The lease runs out by itself, and the sweeper frees the job.
            log.warning("job %s: the failure couldn't be recorded: %s", job.job_id, type(second).__name__)

    async def _keep(self, job: ClaimedJob, message: Msg) -> None:
        """Renew the lease and its grants, and tell JetStream that the work goes on."""
        while True:
            await asyncio.sleep(RENEW_EVERY_SECONDS)
            try:
                await message.in_progress()
            except nats.errors.Error:
                log.debug("JetStream couldn't be told; the lease is what counts")
            try:
                answer = await self._desk.RenewLease(
                    job_service_pb2.RenewLeaseRequest(job_id=str(job.job_id), fence=job.fence), timeout=CALL_SECONDS
                )
                job.take(answer.job)
            except grpc.aio.AioRpcError as error:
                if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                    job.lost.set()  # Refused: revoked, disabled, or somebody else's by now.
                    return


async def _settle(message: Msg) -> None:
    try:
        await message.ack()
    except (nats.errors.Error, nats.errors.MsgAlreadyAckdError):
        log.debug("the message couldn't be acknowledged; the job's row says that it is over")


def _credential_id(grant: str) -> str:
    scope = read_own_grant(grant).credential
    return str(scope.credential_id) if scope else ""


_MINE = "organization_id = :organization_id AND job_id = :job_id AND fence = :fence AND status = 'LEASED'"
_HELD = f"SELECT 1 FROM {{schema}}.jobs WHERE {_MINE} FOR UPDATE"
_FINISH = f"UPDATE {{schema}}.jobs SET status = 'DONE', lease_until = NULL WHERE {_MINE}"
_POSTPONE = (
    "UPDATE {schema}.jobs SET status = 'READY', due_at = :due_at, attempts = 0, published_at = NULL,"
    f" lease_until = NULL WHERE {_MINE}"
)
_FAIL = (
    "UPDATE {schema}.jobs SET status = :status, due_at = :due_at, last_error = :error, published_at = NULL,"
    f" lease_until = NULL WHERE {_MINE}"
)
