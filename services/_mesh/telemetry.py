"""Traces across gRPC, SQL and JetStream: one way to make spans, W3C traceparent to carry them, OTLP/HTTP to send them.

Without a receiver no SDK is loaded; trace ids still go from process to process, so that errors and logs can be joined.
The contrib instrumentation for grpc.aio isn't used: it can hang a call and lose cancellations
(opentelemetry-python-contrib #3271, #3066).
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from uuid import UUID

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, StatusCode, TraceFlags

from services._mesh.build import this_build

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

    from services._mesh.metrics import Metrics
    from services._mesh.settings import OtlpSettings
    from services._mesh.span_sending import SpanSender

TRACE_PARENT = "traceparent"
ORGANIZATION = "recoup.organization_id"
# Whom the current request or job is about, for the spans of all that it does.
_organization: ContextVar[str] = ContextVar("organization", default="")
_SHAPE = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


class Telemetry:
    """The process's tracing. Made once, closed last, so that the spans of the shutdown still arrive."""

    def __init__(self, process: str, otlp: OtlpSettings | None, metrics: Metrics | None = None) -> None:
        self._provider: TracerProvider | None = None
        self._sender: SpanSender | None = None
        self._slow_seconds = otlp.slow_seconds if otlp else 0.0
        if otlp is not None:
            self._provider, self._sender = _provider(process, otlp, metrics)
        self.tracer = trace.get_tracer("recoup", tracer_provider=self._provider)

    @property
    def recording(self) -> bool:
        """Whether spans go anywhere."""
        return self._provider is not None

    def start_span(
        self,
        name: str,
        *,
        kind: SpanKind = SpanKind.INTERNAL,
        trace_parent: str | None = None,
        links: Sequence[str] = (),
        attributes: Mapping[str, Any] | None = None,
    ) -> Span:
        """A new span under `trace_parent` (W3C), or under the current one. The caller ends it.

        `links` are the traceparents of spans that caused this one without being its parent, such as the first
        delivery of a message that comes again.
        """
        parent = _remote(trace_parent) if trace_parent else None
        if self._provider is None:
            known = parent or trace.get_current_span().get_span_context()
            return NonRecordingSpan(known if known.is_valid else _new_root())
        about = _organization.get()
        if about:
            attributes = {**(attributes or {}), ORGANIZATION: about}
        within = None if parent is None else trace.set_span_in_context(NonRecordingSpan(parent))
        linked = [Link(each) for text in links if (each := _remote(text)) is not None]
        return self.tracer.start_span(name, within, kind, attributes, linked or None)

    @contextmanager
    def span(
        self,
        name: str,
        *,
        kind: SpanKind = SpanKind.INTERNAL,
        trace_parent: str | None = None,
        links: Sequence[str] = (),
        attributes: Mapping[str, Any] | None = None,
    ) -> Iterator[Span]:
        """A span that is current within the block, and that an exception marks as failed by its type alone."""
        span = self.start_span(name, kind=kind, trace_parent=trace_parent, links=links, attributes=attributes)
        token = enter(span)
        try:
            yield span
        except Exception as error:
            # The message may hold what a customer wrote; the type doesn't.
            span.set_status(StatusCode.ERROR, type(error).__name__)
            raise
        finally:
            leave(token)
            span.end()

    def exemplar(self, span: Span, seconds: float, *, failed: bool) -> str:
        """The trace id of a request that can be looked at, in hex; empty where its spans aren't sent."""
        context = span.get_span_context()
        if self._provider is None or not (context.trace_flags.sampled or failed or seconds >= self._slow_seconds):
            return ""
        return f"{context.trace_id:032x}"

    def close(self) -> None:
        """Sends what is left; blocks for some seconds at most, so call it off the event loop."""
        if self._provider is not None:
            self._provider.shutdown()
        if self._sender is not None:
            self._sender.close()


_active: Telemetry = Telemetry("unstarted", None)


def start(process: str, otlp: OtlpSettings | None, metrics: Metrics | None = None) -> Telemetry:
    """Makes the process's tracing the one that `active` returns."""
    global _active
    _active = Telemetry(process, otlp, metrics)
    return _active


def active() -> Telemetry:
    """The process's tracing; before `start`, one that records nothing."""
    return _active


def enter(span: Span) -> Any:
    """Makes `span` current; the result goes to `leave`."""
    return otel_context.attach(trace.set_span_in_context(span))


def leave(token: Any) -> None:
    """Undoes `enter`."""
    otel_context.detach(token)


def belongs_to(organization_id: UUID | str) -> None:
    """Whom the current span is about, and all that begin within this task from now on."""
    _organization.set(str(organization_id))
    trace.get_current_span().set_attribute(ORGANIZATION, str(organization_id))


def fail(reason: str) -> None:
    """Marks the current span as failed, by a word that holds nothing of what a customer wrote."""
    trace.get_current_span().set_status(StatusCode.ERROR, reason)


def trace_parent() -> str:
    """The current span as W3C traceparent; empty where there is none."""
    return format_parent(trace.get_current_span().get_span_context())


def format_parent(context: SpanContext) -> str:
    """A span's W3C traceparent; empty for an invalid one."""
    if not context.is_valid:
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"


def trace_id() -> str:
    """The current trace id in hex; empty where there is none."""
    context = trace.get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else ""


def instrument_engine(engine: Any) -> None:
    """Gives each SQL statement of a SQLAlchemy (async) engine a span. Statements hold no values, so they may be
    shown.
    """
    from sqlalchemy import event

    target = getattr(engine, "sync_engine", engine)
    event.listen(target, "before_cursor_execute", _before_sql)
    event.listen(target, "after_cursor_execute", _after_sql)
    event.listen(target, "handle_error", _failed_sql)


@contextmanager
def sql_span(statement: str) -> Iterator[None]:
    """The span of a statement that goes past SQLAlchemy."""
    if not _active.recording:
        yield
        return
    span = _sql_span(statement)
    try:
        yield
    except Exception as error:
        span.set_status(StatusCode.ERROR, type(error).__name__)
        raise
    finally:
        span.end()


def _sql_span(statement: str) -> Span:
    # The first word names the span; the whole text is an attribute, as OpenTelemetry's database conventions say.
    return _active.start_span(
        f"sql {statement.lstrip()[:24].split(None, 1)[0].upper()}",
        kind=SpanKind.CLIENT,
        attributes={"db.system.name": "postgresql", "db.query.text": statement[:500]},
    )


def _before_sql(_conn: Any, _cursor: Any, statement: str, _parameters: Any, context: Any, _many: bool) -> None:
    if _active.recording and context is not None:
        context.recoup_span = _sql_span(statement)


def _after_sql(_conn: Any, _cursor: Any, _statement: str, _parameters: Any, context: Any, _many: bool) -> None:
    span = getattr(context, "recoup_span", None)
    if span is not None:
        span.end()


def _failed_sql(failure: Any) -> None:
    span = getattr(failure.execution_context, "recoup_span", None)
    if span is not None:
        span.set_status(StatusCode.ERROR, type(failure.original_exception).__name__)
        span.end()


def _remote(text: str) -> SpanContext | None:
    match = _SHAPE.fullmatch(text)
    if match is None:
        return None
    context = SpanContext(
        int(match[1], 16), int(match[2], 16), is_remote=True, trace_flags=TraceFlags(int(match[3], 16))
    )
    return context if context.is_valid else None


def _new_root() -> SpanContext:
    return SpanContext(secrets.randbits(128) | 1, secrets.randbits(64) | 1, is_remote=False)


def _provider(process: str, otlp: OtlpSettings, metrics: Metrics | None) -> tuple[TracerProvider, SpanSender]:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

    from services._mesh import span_sending
    from services._mesh.sampling import ByTraceId, KeepWorth

    sender = span_sending.SpanSender(lambda: span_sending.otlp(otlp), otlp.every_seconds, metrics)
    built = this_build()
    resource = Resource({"service.name": process, "service.version": f"{built.version}+{built.revision[:12]}"})
    provider = TracerProvider(ByTraceId(otlp.ratio), resource, shutdown_on_exit=False)
    provider.add_span_processor(KeepWorth(sender.put, otlp))
    return provider, sender
