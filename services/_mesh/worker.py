"""The worker's side of jobs: fetch an announcement, claim the lease, do the work, keep the lease while it lasts.

What a handler commits, it commits under the fence (`ClaimedJob.begin`). A message is acknowledged only when the row
says what became of the job, so that losing it, or getting it twice, changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from uuid import UUID

import grpc
import grpc.aio
import nats.errors
from nats.aio.msg import Msg
from opentelemetry.trace import SpanKind

from recoup.mesh.v1 import job_service_pb2, job_service_pb2_grpc
from services._mesh import telemetry
from services._mesh.claimed import ClaimedJob, CredentialGrant
from services._mesh.clock import Clock
from services._mesh.context import entered
from services._mesh.errors import PASSING, Problem, Reason, from_rpc_error
from services._mesh.jobs import OnDead
from services._mesh.metrics import Metrics
from services._mesh.outages import Outages, name_of
from services._mesh.streams import TRACE_HEADER, JobMessages
from services._mesh.uow import Store

__all__ = ["ClaimedJob", "CredentialGrant", "Handler", "JobRunner"]

log = logging.getLogger(__name__)

CALL_SECONDS = 10.0
RENEW_EVERY_SECONDS = 15.0
FETCH_SECONDS = 1.0
DRAIN_SECONDS = 20.0
# How soon a message that couldn't be dealt with may come again.
AGAIN_SECONDS = 2.0
_RENEWABLE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)

Handler = Callable[[ClaimedJob], Awaitable[None]]


class JobRunner:
    """Runs the jobs of one service with bounded concurrency until it is cancelled."""

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
        clock: Clock | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._messages, self._store, self._process, self._handlers = messages, store, process, handlers
        self._desk = job_service_pb2_grpc.JobServiceStub(channel)
        self._places = asyncio.Semaphore(concurrency)
        self._running: set[asyncio.Task[None]] = set()
        self._on_dead, self._outages = on_dead, Outages()
        self._clock = clock or Clock()
        metrics = metrics or Metrics()
        self._busy = metrics.gauge("recoup_jobs_running", "Jobs being worked on.")
        self._ends = {
            end: metrics.counter("recoup_jobs_ended", "Leases by how they ended.", end=end)
            for end in ("settled", "failed", "retried", "lost", "dead")
        }

    async def run(self) -> None:
        """Fetch and run until cancelled; then give running jobs a moment to end."""
        me = asyncio.current_task()
        try:
            while True:
                # With Python 3.11's wait_for a fetch loses a cancellation that comes just as its time is over: a worker
                # that was told to end would fetch for ever.
                if me is not None and me.cancelling():
                    raise asyncio.CancelledError
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
                    self._busy.set(len(self._running))
                    task.add_done_callback(self._ended)
        finally:
            await self._drain()

    async def _drain(self) -> None:
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=DRAIN_SECONDS)
            for task in late:  # Their leases run out, and somebody else goes on from what is committed.
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._busy.set(len(self._running))
        self._places.release()
        if not task.cancelled() and task.exception() is not None:
            log.error("a job's handling broke", exc_info=task.exception())

    async def _handle(self, message: Msg) -> None:
        parent = (message.headers or {}).get(TRACE_HEADER, "")
        try:
            job_id = UUID(bytes=message.data)
        except ValueError:
            log.error("a message on %s holds no job id", message.subject)
            await _tell(message.term)
            return
        # A first delivery continues the trace of the request that planned the job. One that comes again is only linked
        # to it: it wasn't caused by that request alone.
        again = message.metadata.num_delivered > 1
        with telemetry.active().span(
            f"job {message.subject.rpartition('.')[0]}",
            kind=SpanKind.CONSUMER,
            trace_parent=None if again else parent,
            links=[parent] if again else [],
            attributes={"messaging.system": "nats", "messaging.message.id": str(job_id)},
        ):
            await self._claim_and_work(job_id, message)

    async def _claim_and_work(self, job_id: UUID, message: Msg) -> None:
        try:
            answer = await self._desk.ClaimJob(
                job_service_pb2.ClaimJobRequest(job_id=str(job_id)), timeout=CALL_SECONDS
            )
        except grpc.aio.AioRpcError as error:
            problem = from_rpc_error(error, "the job's API")
            log.info("job %s can't be claimed now: %s", job_id, problem.reason_name)
            if error.code() in _RENEWABLE:
                await _tell(message.nak, AGAIN_SECONDS)
            else:  # Nobody's business any more; what is, the dispatcher announces again.
                await _tell(message.ack)
            return
        job = ClaimedJob(answer.job, self._store, self._process)
        telemetry.belongs_to(job.organization_id)
        await self._work(job, message)
        await _tell(message.ack)

    async def _work(self, job: ClaimedJob, message: Msg) -> None:
        """Run the handler until it ends or the lease is lost, and record what became of the job."""
        keeper = asyncio.create_task(self._keep(job, message))
        lost = asyncio.create_task(job.lost.wait())
        with entered(job.context()):
            work = asyncio.create_task(self._call(job))
        try:
            await asyncio.wait({work, lost}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                log.warning("job %s: the lease was lost, so the work is stopped", job.job_id)
                work.cancel()
            await asyncio.wait({work})
            await self._record(job, work)
        finally:
            for task in (keeper, lost, work):
                task.cancel()
            await asyncio.gather(keeper, lost, work, return_exceptions=True)

    async def _call(self, job: ClaimedJob) -> None:
        await self._handlers[job.kind](job)
        if not job.settled:
            raise RuntimeError(f"the handler of {job.kind} neither finished nor postponed its job")

    async def _record(self, job: ClaimedJob, work: asyncio.Task[None]) -> None:
        error = asyncio.CancelledError() if work.cancelled() else work.exception()
        if error is None:
            self._ends["settled"].add()
            self._outages.over(job.organization_id)
        elif job.lost.is_set() or _is_lease_lost(error):
            self._ends["lost"].add()
            log.warning("job %s: somebody else has the lease", job.job_id)
        else:
            try:
                with entered(job.context()):
                    await self._failed(job, error)
            except Exception as second:  # The lease runs out by itself, and the dispatcher frees the job.
                log.warning("job %s: the failure couldn't be recorded: %s", job.job_id, type(second).__name__)

    async def _failed(self, job: ClaimedJob, error: BaseException) -> None:
        name = name_of(error) if isinstance(error, Problem) else type(error).__name__
        telemetry.fail(name)
        log.warning("job %s (%s) failed at attempt %d: %s", job.job_id, job.kind, job.attempt, name, exc_info=error)
        if isinstance(error, PASSING):
            news = error if self._outages.begin(job.organization_id, error) else None
            try:
                await job.retry(name, news)
            except Exception:
                self._outages.over(job.organization_id)  # Nobody was told.
                raise
            self._ends["retried"].add()
        else:
            dead = await job.fail(name, on_dead=self._on_dead)
            self._ends["dead" if dead else "failed"].add()

    async def _keep(self, job: ClaimedJob, message: Msg) -> None:
        """Renew the lease and its grants, and tell JetStream that the work goes on."""
        while self._clock.wall_now() < job.lease_until:
            await asyncio.sleep(RENEW_EVERY_SECONDS)
            await _tell(message.in_progress)
            try:
                answer = await self._desk.RenewLease(
                    job_service_pb2.RenewLeaseRequest(job_id=str(job.job_id), fence=job.fence), timeout=CALL_SECONDS
                )
                job.take(answer.job)
            except grpc.aio.AioRpcError as error:
                if error.code() not in _RENEWABLE:  # Refused: revoked, cancelled, or somebody else's by now.
                    log.warning("job %s: %s", job.job_id, from_rpc_error(error, "the job's API").reason_name)
                    break
        job.lost.set()


def _is_lease_lost(error: BaseException) -> bool:
    return isinstance(error, Problem) and error.reason == Reason.ERROR_REASON_LEASE_LOST


async def _tell(say: Callable[..., Awaitable[None]], *arguments: float) -> None:
    """Say something about a message; JetStream not hearing it costs a redelivery, and nothing else."""
    try:
        await say(*arguments)
    except (nats.errors.Error, nats.errors.MsgAlreadyAckdError, OSError) as error:
        log.debug("JetStream couldn't be told: %s", type(error).__name__)
