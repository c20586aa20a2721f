"""The unit of work: a state change, its events, its jobs and the answer to a repeated request, in one transaction.

Owns when an event gets its counter (last, so that the counter's row is locked as briefly as can be). It must not know
what any event means.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

import rfc8785
from google.protobuf.message import Message
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from services._mesh.clock import Clock
from services._mesh.context import CallContext, current
from services._mesh.database import Database
from services._mesh.errors import AlreadyExists, Conflict, Reason, dependency_down
from services._mesh.ids import uuid7
from services._mesh.telemetry import trace_parent

R = TypeVar("R", bound=Message)
EVENT_FORMAT = 1
# Why a process acts for itself, or under a grant: nobody's role.
SYSTEM_ROLE = "SYSTEM"


class EventOwed(Exception):
    """A use case changed state under a rule that names an audit action, and committed without that event."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to `target`, such as "actions/<uuid>". `metadata` is text, sanitized by the caller."""

    event_id: UUID
    action: str
    target: str
    result: str
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class NewJob:
    """Work to be done later. `warrant` is signed over exactly these facts."""

    job_id: UUID
    kind: str
    subject_id: UUID
    due_at: datetime
    warrant: str


class UnitOfWork:
    """One transaction in one organization. Made by `Store.begin`; `connection` runs the service's SQL."""

    def __init__(self, connection: AsyncConnection, organization_id: UUID, schema: str, clock: Clock) -> None:
        self.connection = connection
        self.organization_id = organization_id
        self.schema = schema
        self.now = clock.now()
        self.wall_now = clock.wall_now()
        self._events: list[Event] = []

    async def execute(self, statement: Any, parameters: Any = None) -> Any:
        """Run a statement within this transaction."""
        return await self.connection.execute(statement, parameters)

    def emit(self, action: str, target: str, metadata: Mapping[str, Any] | None = None, result: str = "OK") -> UUID:
        """Record an event; it is written with the commit, or not at all. Returns its id."""
        event = Event(uuid7(), action, target, result, dict(metadata or {}))
        self._events.append(event)
        return event.event_id

    async def enqueue(self, job: NewJob) -> None:
        """Insert a job's row; the dispatcher finds it when it is due. The same job twice is one job."""
        await self.connection.execute(
            text(
                f"INSERT INTO {self.schema}.jobs (organization_id, job_id, kind, subject_id, due_at, status, warrant,"
                " trace_parent, created_at) VALUES (:organization_id, :job_id, :kind, :subject_id, :due_at, 'READY',"
                " :warrant, :trace_parent, :now) ON CONFLICT (organization_id, kind, subject_id, due_at) DO NOTHING"
            ),
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

    def emitted(self) -> frozenset[str]:
        """The audit actions recorded so far."""
        return frozenset(event.action for event in self._events)

    async def flush_events(self, context: CallContext | None) -> None:
        """Write the events with their counters: the last statement of the transaction."""
        if not self._events:
            return
        await self.connection.execute(
            text(_INSERT_EVENTS.format(schema=self.schema)),
            {
                "organization_id": self.organization_id,
                "count": len(self._events),
                "ids": [event.event_id for event in self._events],
                "actions": [event.action for event in self._events],
                "payloads": [self._payload(event, context) for event in self._events],
                "now": self.now,
                "trace_parent": trace_parent(),
            },
        )
        self._events.clear()

    def _payload(self, event: Event, context: CallContext | None) -> bytes:
        person = context.responsible_person if context else None
        return rfc8785.dumps(
            {
                "v": EVENT_FORMAT,
                "event_id": str(event.event_id),
                "organization_id": str(self.organization_id),
                "action": event.action,
                "target": event.target,
                "result": event.result,
                "actor": context.actor if context else f"process:{self.schema}",
                "responsible_person": str(person) if person else "",
                "role": (context.role if context else "") or SYSTEM_ROLE,
                "occurred_at": self.now.isoformat(timespec="microseconds").replace("+00:00", "Z"),
                "request_id": context.request_id if context else "",
                "trace_id": context.trace_id if context else "",
                "authority": context.authority if context else "system",
                "metadata": dict(event.metadata),
            }
        )


# The counter is taken and the rows are written in one statement. `ordinality` keeps the order of emission.
_INSERT_EVENTS = """
WITH taken AS (
  INSERT INTO {schema}.outbox_counters AS c (organization_id, value) VALUES (:organization_id, :count)
  ON CONFLICT (organization_id) DO UPDATE SET value = c.value + :count RETURNING c.value
)
INSERT INTO {schema}.outbox (organization_id, event_id, counter, action, payload, occurred_at, trace_parent)
SELECT :organization_id, e.event_id, taken.value - :count + e.place, e.action, e.payload, :now, :trace_parent
FROM taken, unnest(CAST(:ids AS uuid[]), CAST(:actions AS text[]), CAST(:payloads AS bytea[]))
  WITH ORDINALITY AS e(event_id, action, payload, place)
"""

_REPLAY = """
SELECT body_sha256, response FROM {schema}.idempotency
WHERE organization_id = :organization_id AND actor = :actor AND rpc = :rpc AND request_id = :request_id
"""
_REMEMBER = """
INSERT INTO {schema}.idempotency (organization_id, actor, rpc, request_id, body_sha256, response, created_at)
VALUES (:organization_id, :actor, :rpc, :request_id, :body_sha256, :response, :now)
"""
_LOCK = "SELECT pg_try_advisory_xact_lock(hashtextextended(:name, 0))"
_FORGET = "DELETE FROM {schema}.idempotency WHERE organization_id = :organization_id AND created_at < :before"
REPLAY_PERIOD = timedelta(days=7)
# Old answers are swept by one write in a hundred: often enough to bound the table, seldom enough not to be felt.
_FORGET_SHARE = 0.01


class Store:
    """Begins units of work for one service under one database role."""

    def __init__(self, database: Database, schema: str, clock: Clock) -> None:
        self._database, self.schema, self._clock = database, schema, clock

    @asynccontextmanager
    async def read(self, organization_id: UUID | None = None) -> AsyncIterator[AsyncConnection]:
        """A transaction to read in, in the current call's organization. Raises Problem when the database is away."""
        async with _translated(), self._database.scoped(organization_id or current().organization()) as connection:
            yield connection

    @asynccontextmanager
    async def begin(
        self, organization_id: UUID | None = None, context: CallContext | None = None
    ) -> AsyncIterator[UnitOfWork]:
        """A unit of work in the current call's organization, or in the one given for background work."""
        scope = organization_id or current().organization()
        async with _translated(), self._database.scoped(scope) as connection:
            work = UnitOfWork(connection, scope, self.schema, self._clock)
            yield work
            await work.flush_events(context)

    async def replayed(self, request: Message, response: type[R]) -> R | None:
        """The answer that this very request got before, or None. For use cases that gather before they write."""
        context = current()
        if not _request_id(request):
            return None
        async with self.read() as connection:
            return await self._find_answer(connection, context, request, response)

    async def write(self, request: Message, response: type[R], decide: Callable[[UnitOfWork], Awaitable[R]]) -> R:
        """Run `decide` in a unit of work, at most once for each `request_id`, and see that the owed event is there.

        Raises AlreadyExists (REQUEST_ID_REUSED) for another body under the same id, Conflict (REQUEST_IN_FLIGHT) while
        the first is running, EventOwed when the rule's audit action wasn't emitted.
        """
        context = current()
        async with self.begin(context=context) as work:
            request_id = _request_id(request)
            if request_id:
                await self._lock(work.connection, context, request_id)
                earlier = await self._find_answer(work.connection, context, request, response)
                if earlier is not None:
                    return earlier
            answer = await decide(work)
            if context.audit_action and context.audit_action not in work.emitted():
                raise EventOwed(f"{context.rpc} owes the event {context.audit_action}")
            if request_id:
                await self._remember(work, context, request, answer)
            await work.flush_events(context)
            return answer

    async def _lock(self, connection: AsyncConnection, context: CallContext, request_id: str) -> None:
        name = f"{context.organization_id}/{context.actor}/{context.rpc}/{request_id}"
        if not (await connection.execute(text(_LOCK), {"name": name})).scalar():
            raise Conflict(
                Reason.ERROR_REASON_REQUEST_IN_FLIGHT,
                "The same request is being worked on. Ask again for its answer.",
                {"request_id": request_id},
            )

    async def _find_answer(
        self, connection: AsyncConnection, context: CallContext, request: Message, response: type[R]
    ) -> R | None:
        found = (
            await connection.execute(text(_REPLAY.format(schema=self.schema)), _identity(context, request))
        ).one_or_none()
        if found is None:
            return None
        if bytes(found.body_sha256) != _digest(request):
            raise AlreadyExists(
                Reason.ERROR_REASON_REQUEST_ID_REUSED,
                "request_id was used before with another body. Use a new one.",
                {"request_id": _request_id(request)},
            )
        return response.FromString(bytes(found.response))

    async def _remember(self, work: UnitOfWork, context: CallContext, request: Message, answer: Message) -> None:
        if random.random() < _FORGET_SHARE:
            await work.execute(
                text(_FORGET.format(schema=self.schema)),
                {"organization_id": work.organization_id, "before": work.wall_now - REPLAY_PERIOD},
            )
        await work.execute(
            text(_REMEMBER.format(schema=self.schema)),
            {
                **_identity(context, request),
                "body_sha256": _digest(request),
                "response": answer.SerializeToString(),
                "now": work.wall_now,
            },
        )


def _identity(context: CallContext, request: Message) -> dict[str, Any]:
    return {
        "organization_id": context.organization(),
        "actor": context.actor,
        "rpc": context.rpc,
        "request_id": _request_id(request),
    }


def _request_id(request: Message) -> str:
    return str(getattr(request, "request_id", ""))


def _digest(request: Message) -> bytes:
    return hashlib.sha256(request.SerializeToString(deterministic=True)).digest()


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    """A database that is away is a dependency that is down, not a fault of ours."""
    try:
        yield
    except (OSError, TimeoutError) as error:
        raise dependency_down("database") from error
    except DBAPIError as error:
        if error.connection_invalidated or _is_connection_loss(error):
            raise dependency_down("database") from error
        raise


def _is_connection_loss(error: DBAPIError) -> bool:
    code = getattr(error.orig, "sqlstate", None) or ""
    # Class 08 connection exceptions, 57P0x the server is going down or up, 53300 too many connections.
    return str(code).startswith(("08", "57P")) or code == "53300"
