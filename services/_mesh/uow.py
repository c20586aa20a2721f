"""The unit of work: a state change, its events, its jobs and the answer to a repeated request, in one transaction.

Owns the order of these (events last, so that the counter's row is locked as briefly as can be) and that an owed event
is there. It must not know what any event means.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from google.protobuf.message import Message
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services._mesh import outbox
from services._mesh.clock import Clock
from services._mesh.context import CallContext, current, find_current
from services._mesh.database import Database, problem_of, sqlstate_of
from services._mesh.idempotency import repeatable
from services._mesh.ids import uuid7
from services._mesh.outbox import PLATFORM, RESULTS, Event, EventOwed
from services._mesh.resource_limits import ResourceLimits
from services._mesh.telemetry import trace_parent

__all__ = ["PLATFORM", "Event", "EventOwed", "NewJob", "Store", "UnitOfWork"]

R = TypeVar("R", bound=Message)
# Raised by `require_event` (schema.py) when state changes without an event.
_OWED_STATE = "RC001"


@dataclass(frozen=True, slots=True)
class NewJob:
    """Work to be done later, made by `jobs.Planner`. `warrant` is signed over exactly these facts."""

    job_id: UUID
    kind: str
    subject_id: UUID
    due_at: datetime
    warrant: str


class UnitOfWork:
    """One transaction in one organization. Made by `Store`; `connection` runs the service's SQL.

    `now` is the injected clock's, the same for the whole transaction: the `:now` of its SQL. `wall_now` is for leases.
    """

    def __init__(
        self,
        connection: AsyncConnection,
        organization_id: UUID,
        schema: str,
        clock: Clock,
        context: CallContext | None = None,
    ) -> None:
        self.connection = connection
        self.organization_id = organization_id
        self.schema = schema
        self.now = clock.now()
        self.wall_now = clock.wall_now()
        self.planned_jobs = 0
        self._context = context
        self._events: list[Event] = []
        self._written: set[str] = set()

    async def execute(self, statement: Any, parameters: Any = None) -> Any:
        """Run a statement within this transaction."""
        return await self.connection.execute(statement, parameters)

    def emit(self, action: str, target: str, metadata: Mapping[str, Any] | None = None, result: str = "OK") -> UUID:
        """Record an event; it is written with the commit, or not at all. Returns its id.

        Actor, role, request, trace and authority come from the call's context.
        """
        if result not in RESULTS:
            raise ValueError(f"an event's result is one of {sorted(RESULTS)}")
        event = Event(uuid7(), action, target, result, dict(metadata or {}))
        self._events.append(event)
        return event.event_id

    async def enqueue(self, job: NewJob) -> None:
        """Insert a job's row; the dispatcher finds it when it is due.

        The same work (kind, subject and moment) planned twice is one job.
        """
        await self.connection.execute(
            text(_INSERT_JOB.format(schema=self.schema)),
            {
                "organization_id": self.organization_id,
                "job_id": job.job_id,
                "kind": job.kind,
                "subject_id": job.subject_id,
                "due_at": job.due_at,
                "warrant": job.warrant,
                "trace_parent": trace_parent(),
                "now": self.now,
            },
        )
        self.planned_jobs += 1

    async def cancel_jobs(self, kind: str, subject_id: UUID) -> int:
        """Cancel the jobs of a kind about a subject that nobody has finished; returns how many.

        A worker that holds one of them loses its lease: it can't commit any more.
        """
        cancelled = await self.connection.execute(
            text(_CANCEL_JOBS.format(schema=self.schema)),
            {"organization_id": self.organization_id, "kind": kind, "subject_id": subject_id},
        )
        return int(cancelled.rowcount)

    def emitted(self) -> frozenset[str]:
        """The audit actions recorded so far."""
        return frozenset(event.action for event in self._events) | self._written

    async def flush_events(self, context: CallContext | None = None) -> None:
        """Write the events with their counters: the last statement of the transaction."""
        if not self._events:
            return
        events, self._events = self._events, []
        self._written.update(event.action for event in events)
        await outbox.write(
            self.connection, self.schema, self.organization_id, events, context or self._context, self.now
        )

    def require_owed(self, context: CallContext | None) -> None:
        """Raises EventOwed where the RPC's rule names an audit action that wasn't emitted."""
        if context is not None and context.audit_action and context.audit_action not in self.emitted():
            raise EventOwed(f"{context.rpc} owes the event {context.audit_action}")


_INSERT_JOB = """
INSERT INTO {schema}.jobs
  (organization_id, job_id, kind, subject_id, planned_for, due_at, status, warrant, trace_parent, created_at)
VALUES (:organization_id, :job_id, :kind, :subject_id, :due_at, :due_at, 'READY', :warrant, :trace_parent, :now)
ON CONFLICT (organization_id, kind, subject_id, planned_for) DO NOTHING
"""
# A higher fence takes the lease from whoever holds it. Without its warrant a job can't be claimed again, not even by a
# worker that sets its row back: the warrant is the one thing that workers can't write.
_CANCEL_JOBS = """
UPDATE {schema}.jobs SET status = 'CANCELLED', fence = fence + 1, warrant = ''
WHERE organization_id = :organization_id AND kind = :kind AND subject_id = :subject_id
  AND status IN ('READY', 'LEASED')
"""


class Store:
    """Begins units of work for one service under one database role.

    `on_events` and `on_jobs` are called after a commit that wrote any: the relay's and the dispatcher's `wake`. NOTIFY
    isn't used for it: it takes a lock of the whole database at each commit. What another process writes is found by
    the tasks' own sweep.
    """

    def __init__(self, database: Database, schema: str, clock: Clock) -> None:
        self._database, self.schema, self._clock = database, schema, clock
        self.on_events: Callable[[], None] = _nothing
        self.on_jobs: Callable[[], None] = _nothing

    @asynccontextmanager
    async def read(self, organization_id: UUID | None = None) -> AsyncIterator[AsyncConnection]:
        """A read-only transaction in the current call's organization. Raises Problem when the database is away."""
        organization_id = organization_id or current().organization()
        limits = _limits_of(find_current())
        async with _translated(), self._database.scoped(organization_id, read_only=True, limits=limits) as connection:
            yield connection

    @asynccontextmanager
    async def begin(
        self, organization_id: UUID | None = None, context: CallContext | None = None, *, interim: bool = False
    ) -> AsyncIterator[UnitOfWork]:
        """A unit of work in the current call's organization, or in the one given for background work.

        Within an RPC that changes state it commits only together with the event that the RPC's rule names (else
        EventOwed), unless it is `interim`: one of several, of which another one emits it.
        """
        context = context or find_current()
        scope = organization_id or current().organization()
        async with _translated(), self._database.scoped(scope, limits=_limits_of(context)) as connection:
            work = UnitOfWork(connection, scope, self.schema, self._clock, context)
            yield work
            if not interim:
                work.require_owed(context)
            await work.flush_events()
        if work.emitted():
            self.on_events()
        if work.planned_jobs:
            self.on_jobs()

    async def replayed(self, request: Message, response: type[R], organization_id: UUID | None = None) -> R | None:
        """The answer that this very request got before, or None. For use cases that gather before they write."""
        context = current()
        scope = organization_id or context.organization()
        repeated = repeatable(self.schema, scope, context, request)
        if repeated is None:
            return None
        async with self.read(scope) as connection:
            return await repeated.find(connection, response)

    async def write(
        self,
        request: Message,
        response: type[R],
        decide: Callable[[UnitOfWork], Awaitable[R]],
        organization_id: UUID | None = None,
    ) -> R:
        """Run `decide` in a unit of work, at most once for each `request_id`, and see that the owed event is there.

        `organization_id` is for an RPC that runs before an organization is chosen. Raises AlreadyExists
        (REQUEST_ID_REUSED) for another body under the same id, Conflict (REQUEST_IN_FLIGHT) while the first is
        running, EventOwed when the rule's audit action wasn't emitted.
        """
        context = current()
        scope = organization_id or context.organization()
        repeated = repeatable(self.schema, scope, context, request)
        async with self.begin(scope, context, interim=True) as work:
            if repeated is not None:
                await repeated.lock(work.connection)
                earlier = await repeated.find(work.connection, response)
                if earlier is not None:
                    return earlier
            answer = await decide(work)
            work.require_owed(context)
            if repeated is not None:
                await repeated.remember(work.connection, answer, work.wall_now)
            await work.flush_events()
        return answer


def _nothing() -> None:
    pass


def _limits_of(context: CallContext | None) -> ResourceLimits | None:
    """What the caller's role is limited to; nothing for who calls for nobody."""
    return context.passport.limits if context is not None and context.passport is not None else None


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    """A database that is away is a dependency that is down, not a fault of ours."""
    try:
        yield
    except Exception as error:
        if sqlstate_of(error) == _OWED_STATE:
            raise EventOwed(str(error)) from error
        problem = problem_of(error)
        if problem is None:
            raise
        raise problem from error
