"""What is seen of each request at the edge from outside: its span, how many ended how, how long they took."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType

from opentelemetry.trace import SpanKind

from services._mesh import telemetry
from services._mesh.clock import monotonic
from services._mesh.metrics import Counter, Gauge, Histogram, Metrics
from services.gateway.exchange import Exchange

# Of what is asked for at a path that nothing is served at, or that can't be read.
NO_ROUTE = "none"
# Shown as zero from the start: of a count that appears as one, Prometheus sees no increase.
_FAILURES = (500, 503, 504)
# What can be full: budgets of calls (the policies of `RateLimit`), places for what runs, what may come on a connection
# of HTTP/2, which ends then; and places for connections and handshakes, and the time of one, before anything is asked.
LIMITS = (
    *("credential", "actor", "organization", "address", "attempts"),
    *("requests", "streams", "organization_streams", "http2"),
    *("connections", "address_connections", "handshakes", "address_handshakes", "handshake_seconds"),
)


class Watch:
    """The edge's own metrics and spans of requests. A route's label is its template: callers can't make up any."""

    def __init__(self, metrics: Metrics, routes: Iterable[str] = ()) -> None:
        self._metrics = metrics
        self._seconds: dict[str, Histogram] = {}
        self._counts: dict[tuple[str, int], Counter] = {}
        text = "Requests refused because a limit was reached, by the limit."
        self._refused = {limit: metrics.counter("recoup_http_refused", text, limit=limit) for limit in LIMITS}
        self.handshakes: Gauge = metrics.gauge("recoup_http_handshakes", "Connections that are in a TLS handshake.")
        for route in (*routes, NO_ROUTE):
            for status in _FAILURES:
                self._counter(route, status)

    def request(self, exchange: Exchange) -> Seen:
        """To be entered for as long as the request is served."""
        return Seen(self, exchange)

    def count(self, status: int, route: str = NO_ROUTE, refused_by: str = "") -> None:
        """Another answer; one of 5xx makes the current span a failed one."""
        (self._counts.get((route, status)) or self._counter(route, status)).add()
        if refused_by:
            self.refuse(refused_by)
        if status >= 500:
            telemetry.fail(str(status))

    def refuse(self, limit: str) -> None:
        """Another time that a limit was reached."""
        self._refused[limit].add()

    def _counter(self, route: str, status: int) -> Counter:
        counter = self._metrics.counter("recoup_http_total", "Requests served.", status=str(status), route=route)
        self._counts[route, status] = counter
        return counter

    def time(self, route: str, seconds: float, trace_id: str) -> None:
        """How long an answer took; `trace_id` is that of a trace which can be looked at."""
        histogram = self._seconds.get(route)
        if histogram is None:
            text = "Duration of requests served, streams apart."
            histogram = self._seconds[route] = self._metrics.histogram("recoup_http_seconds", text, route=route)
        histogram.observe(seconds, trace_id)


class Seen:
    """One request: its span is current within, and says how it was answered."""

    def __init__(self, watch: Watch, exchange: Exchange) -> None:
        self._watch, self._exchange, self._began = watch, exchange, monotonic()
        self._status, self._is_stream = 0, False
        self._span = telemetry.active().start_span(
            f"{exchange.method} (edge)",
            kind=SpanKind.SERVER,
            trace_parent=exchange.headers.get("traceparent"),
            attributes={"recoup.request_id": exchange.request_id},
        )
        exchange.trace_parent = telemetry.format_parent(self._span.get_span_context())

    def __enter__(self) -> Seen:
        self._token = telemetry.enter(self._span)
        return self

    def answered(self, status: int, *, is_stream: bool) -> None:
        """How it is answered; the answer itself is still to be sent."""
        self._status, self._is_stream = status, is_stream
        route = self._exchange.route or NO_ROUTE
        self._span.set_attributes({"http.response.status_code": status, "http.route": route})
        self._watch.count(status, route, self._exchange.refused_by)

    def __exit__(self, kind: type[BaseException] | None, _error: object, _trace: TracebackType | None) -> None:
        if kind is not None and issubclass(kind, Exception):
            telemetry.fail(kind.__name__)
        telemetry.leave(self._token)
        if self._status and not self._is_stream:
            seconds, failed = monotonic() - self._began, self._status >= 500
            trace_id = telemetry.active().exemplar(self._span, seconds, failed=failed)
            self._watch.time(self._exchange.route or NO_ROUTE, seconds, trace_id)
        self._span.end()
