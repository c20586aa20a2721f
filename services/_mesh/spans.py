"""A span as this process keeps it: what OpenTelemetry's encoder reads, and no more.

OpenTelemetry's own check, copy and lock for uses that there are none of here, for six times as long. It decides only
what is chosen by trace id; what else is worth keeping is said by whoever is told of beginnings and ends.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from random import getrandbits
from typing import TYPE_CHECKING, Any, Protocol

from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

_LOW_BITS = (1 << 64) - 1
_SAMPLED, _NOT_SAMPLED = TraceFlags(TraceFlags.SAMPLED), TraceFlags(TraceFlags.DEFAULT)
_UNSET = Status()


class Watcher(Protocol):
    """Told of each span of a process. Called from any thread."""

    def on_start(self, span: Span) -> None:
        """It begins."""

    def on_end(self, span: Span) -> None:
        """It has ended."""


class Span:
    """One span. `context` says where it is, `parent` below what; times are nanoseconds since 1970.

    One that no tracer made is a place in a trace that goes on elsewhere, and is kept by nobody.
    """

    # Of what OpenTelemetry's encoder reads besides, there is nothing: an event would hold an exception's message, which
    # may hold what a customer wrote.
    events: Sequence[Any] = ()
    dropped_attributes = dropped_events = dropped_links = 0

    def __init__(
        self,
        context: SpanContext,
        name: str = "",
        kind: SpanKind = SpanKind.INTERNAL,
        parent: SpanContext | None = None,
        links: Sequence[Link] = (),
        attributes: Mapping[str, Any] | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self.context, self.name, self.kind, self.parent, self.links = context, name, kind, parent, links
        self.attributes: dict[str, Any] = dict(attributes) if attributes else {}
        self.status, self.tracer = _UNSET, tracer
        self.start_time = time.time_ns()
        self.end_time: int | None = None

    def get_span_context(self) -> SpanContext:
        """Where it is; as OpenTelemetry's encoder asks for it."""
        return self.context

    def set_attribute(self, key: str, value: str | int | float | bool) -> None:
        """Say something of it, until it has ended."""
        self.attributes[key] = value

    def set_status(self, code: StatusCode, reason: str | None = None) -> None:
        """Say how it ends."""
        self.status = Status(code, reason)

    def end(self, end_time: int | None = None) -> None:
        """End it, once."""
        if self.end_time is None:
            self.end_time = time.time_ns() if end_time is None else end_time
            if self.tracer is not None:
                self.tracer.watcher.on_end(self)

    @property
    def resource(self) -> Resource:
        """The process it is of."""
        assert self.tracer is not None
        return self.tracer.resource

    @property
    def instrumentation_scope(self) -> InstrumentationScope | None:
        """What made it; there is one thing here that does."""
        return None


class Tracer:
    """Makes a process's spans, and marks as sampled what is chosen by trace id.

    What the caller's flag says is of no account: nobody else decides how much we keep. The id's low 64 bits are random
    (W3C trace context, level 2), and are what OpenTelemetry's own ratio sampler compares.
    """

    def __init__(self, resource: Resource, ratio: float, watcher: Watcher) -> None:
        self.resource, self.watcher = resource, watcher
        self._bound = round(ratio * (_LOW_BITS + 1))

    def begin(
        self,
        name: str,
        kind: SpanKind,
        parent: SpanContext | None,
        links: Sequence[Link] = (),
        attributes: Mapping[str, Any] | None = None,
    ) -> Span:
        """A new span below `parent`, or of a new trace."""
        trace_id = new_trace_id() if parent is None else parent.trace_id
        flags = _SAMPLED if trace_id & _LOW_BITS < self._bound else _NOT_SAMPLED
        context = SpanContext(trace_id, new_span_id(), False, flags)
        span = Span(context, name, kind, parent, links, attributes, self)
        self.watcher.on_start(span)
        return span


def new_trace_id() -> int:
    """Random, and never zero, which means none."""
    return getrandbits(128) or 1


def new_span_id() -> int:
    """The same, of a span."""
    return getrandbits(64) or 1
