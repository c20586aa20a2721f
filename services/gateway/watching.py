"""What is seen of each request at the edge from outside: its span, how many ended how, how long they took."""

from __future__ import annotations

from types import TracebackType

from opentelemetry.trace import SpanKind

from services._mesh import telemetry
from services._mesh.clock import monotonic
from services._mesh.metrics import Metrics
from services.gateway.exchange import Exchange


class Watch:
    """The edge's own metrics and spans of requests."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.seconds = metrics.histogram("recoup_http_seconds", "Duration of requests served, streams apart.")

    def request(self, exchange: Exchange) -> Seen:
        """To be entered for as long as the request is served."""
        return Seen(self, exchange)

    def count(self, status: int) -> None:
        """Another answer; one of 5xx makes the current span a failed one."""
        self._metrics.counter("recoup_http_total", "Requests served.", status=str(status)).add()
        if status >= 500:
            telemetry.fail(str(status))


class Seen:
    """One request: its span is current within, and says how it was answered."""

    def __init__(self, watch: Watch, exchange: Exchange) -> None:
        self._watch, self._began = watch, monotonic()
        self._status, self._is_stream = 0, False
        self._span = telemetry.active().start_span(
            f"{exchange.method} (edge)",
            kind=SpanKind.SERVER,
            trace_parent=exchange.headers.get("traceparent"),
            attributes={"recoup.request_id": exchange.request_id},
        )

    def __enter__(self) -> Seen:
        self._token = telemetry.enter(self._span)
        return self

    def answered(self, status: int, *, is_stream: bool) -> None:
        """How it is answered; the answer itself is still to be sent."""
        self._status, self._is_stream = status, is_stream
        self._span.set_attribute("http.response.status_code", status)
        self._watch.count(status)

    def __exit__(self, kind: type[BaseException] | None, _error: object, _trace: TracebackType | None) -> None:
        if kind is not None and issubclass(kind, Exception):
            telemetry.fail(kind.__name__)
        telemetry.leave(self._token)
        if self._status and not self._is_stream:
            seconds, failed = monotonic() - self._began, self._status >= 500
            self._watch.seconds.observe(seconds, telemetry.active().exemplar(self._span, seconds, failed=failed))
        self._span.end()
