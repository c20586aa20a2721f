"""Wraps each handler in the mesh's conventions: peer, metrics and trace, deadline, authority, access, limits, errors.

It is one wrapper per RPC, not a chain of gRPC interceptors: the order can be read in one place, no RPC can be
registered without it, and a call costs a few microseconds instead of a coroutine per step.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry.trace import Span, SpanKind, StatusCode

from services._mesh import telemetry
from services._mesh.access import Gate, told_request_id
from services._mesh.clock import monotonic
from services._mesh.context import CallContext, entered
from services._mesh.errors import (
    DETAILS_KEY,
    DeadlinePassed,
    Denied,
    Internal,
    NotFound,
    Problem,
    Reason,
    Unauthenticated,
    Unavailable,
    to_status,
)
from services._mesh.metrics import Counter, Metrics
from services._mesh.peers import Peer

Wire = Any  # grpc.aio.ServicerContext with raw bytes on both sides
Unary = Callable[[Any, Wire], Awaitable[Any]]
Stream = Callable[[Any, Wire], AsyncIterator[Any]]
_log = logging.getLogger(__name__)
TRACE_KEY = "traceparent"
_OUR_FAULT = frozenset({grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNAVAILABLE})


class Draining:
    """Streams that run, so that they can be ended when the process goes down instead of holding it up."""

    def __init__(self) -> None:
        self.begun = False
        self.streams: set[asyncio.Task[Any]] = set()

    def begin(self) -> None:
        """Ends all streams; their callers get UNAVAILABLE and go elsewhere."""
        self.begun = True
        for task in self.streams:
            task.cancel()


@dataclass(slots=True)
class _Call:
    """What is known of a running call, for its errors, metrics and trace."""

    peer: Peer | None = None
    context: CallContext | None = None
    span: Span | None = None
    code: grpc.StatusCode = grpc.StatusCode.OK


class Handler:
    """Runs one RPC's handler behind its gate."""

    def __init__(self, gate: Gate, metrics: Metrics, draining: Draining) -> None:
        self._gate = gate
        self._metrics = metrics
        self._draining = draining
        self._name = gate.rule.name
        service, _, method = self._name.partition("/")
        self._attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
        self._seconds = metrics.histogram("recoup_rpc_seconds", "Duration of calls served.", rpc=self._name)
        self._running = metrics.gauge("recoup_rpc_running", "Calls being served.", rpc=self._name)
        self._codes: dict[grpc.StatusCode, Counter] = {}

    def unary(self, behavior: Unary) -> grpc.RpcMethodHandler[bytes, bytes]:
        """The gRPC handler of an RPC with one response."""

        async def answer(request: Any, _wire: Wire) -> bytes:
            response = await behavior(request, _wire)
            if not isinstance(response, self._gate.rule.response):
                raise TypeError(f"{self._name} answered {type(response).__name__}")
            return response.SerializeToString()

        async def handle(raw: bytes, wire: Wire) -> bytes:
            result = await self._run(raw, wire, answer)
            assert isinstance(result, bytes)
            return result

        return grpc.unary_unary_rpc_method_handler(handle)

    def stream(self, behavior: Stream) -> grpc.RpcMethodHandler[bytes, bytes]:
        """The gRPC handler of an RPC that streams responses."""

        async def answer(request: Any, wire: Wire) -> None:
            async for response in behavior(request, wire):
                await wire.write(response.SerializeToString())

        async def handle(raw: bytes, wire: Wire) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._draining.streams.add(task)
            try:
                await self._run(raw, wire, answer)
            finally:
                self._draining.streams.discard(task)

        return grpc.unary_stream_rpc_method_handler(handle)

    async def _run(self, raw: bytes, wire: Wire, answer: Unary) -> Any:
        began, call = monotonic(), _Call()
        self._running.add(1)
        try:
            return await self._admitted(raw, wire, answer, call)
        except asyncio.CancelledError:
            if not self._draining.begun:
                call.code = grpc.StatusCode.CANCELLED  # The caller went away.
                raise
            problem: Problem = Unavailable(Reason.ERROR_REASON_SHUTTING_DOWN, "The process is going down.")
            call.code = problem.code
        except Exception as error:
            problem = self._problem(error, call)
            call.code = problem.code
        finally:  # Once for each call, with how it ended.
            self._running.add(-1)
            self._finish(call, monotonic() - began)
        details = ((DETAILS_KEY, to_status(problem).SerializeToString()),)
        return await wire.abort(problem.code, problem.message, details)

    async def _admitted(self, raw: bytes, wire: Wire, answer: Unary, call: _Call) -> Any:
        gate = self._gate
        metadata = dict(wire.invocation_metadata() or ())
        peer = call.peer = gate.peer(wire.auth_context())
        parent, attributes = metadata.get(TRACE_KEY), self._attributes
        if parent is None:  # The trace begins here, and no edge said what the request is called.
            attributes = {**attributes, **told_request_id(metadata)}
        span = call.span = telemetry.active().start_span(
            self._name, kind=SpanKind.SERVER, trace_parent=parent, attributes=attributes
        )
        token = telemetry.enter(span)
        try:
            budget = gate.budget(wire.time_remaining())
            authority = gate.authority(metadata, peer)
            context = call.context = gate.context(authority, peer, metadata, telemetry.trace_id(), budget)
            if context.organization_id is not None:
                telemetry.belongs_to(context.organization_id)
            gate.authorize(authority)
            request = gate.request(raw, context.organization_id)
            context = call.context = gate.with_request_id(context, request)
            with entered(context):
                return await self._timed(answer, request, wire, budget)
        finally:
            telemetry.leave(token)

    async def _timed(self, answer: Unary, request: Any, wire: Wire, budget: float | None) -> Any:
        try:
            async with asyncio.timeout(budget) as limit:
                return await answer(request, wire)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise DeadlinePassed(
                Reason.ERROR_REASON_DEADLINE_TOO_SHORT, "The call took longer than its deadline allows."
            ) from error

    def _problem(self, error: Exception, call: _Call) -> Problem:
        """The problem that the caller is told; what we didn't foresee is logged whole and told as nothing."""
        trace_id = call.context.trace_id if call.context is not None else telemetry.trace_id()
        if not isinstance(error, Problem):
            _log.error("%s failed", self._name, exc_info=error, extra={"failed_trace_id": trace_id})
            return Internal(trace_id)
        if isinstance(error, Denied | Unauthenticated | NotFound):
            self._gate.note(error, call.context, call.peer, trace_id)
        return error

    def _finish(self, call: _Call, seconds: float) -> None:
        failed, trace_id = call.code in _OUR_FAULT, ""
        if call.span is not None:
            trace_id = telemetry.active().exemplar(call.span, seconds, failed=failed)
        self._seconds.observe(seconds, trace_id)
        counter = self._codes.get(call.code)
        if counter is None:
            counter = self._codes[call.code] = self._metrics.counter(
                "recoup_rpc_total", "Calls served, by their end.", rpc=self._name, code=call.code.name
            )
        counter.add()
        if call.span is None:
            return
        call.span.set_attribute("rpc.grpc.status_code", int(call.code.value[0]))
        if failed:
            call.span.set_status(StatusCode.ERROR, call.code.name)
        call.span.end()
