"""Spans that a test looks at instead of sending them."""

from __future__ import annotations

from opentelemetry.sdk.resources import Resource

from services._mesh import telemetry
from services._mesh.spans import Span, Tracer, Watcher


class Ended:
    """Every span that has ended, in that order."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def on_start(self, span: Span) -> None:
        """It isn't over."""

    def on_end(self, span: Span) -> None:
        """Keeps it."""
        self.spans.append(span)


def recording(watcher: Watcher, ratio: float = 1.0) -> telemetry.Telemetry:
    """Tracing that tells this one of its spans, and sends none."""
    made = telemetry.Telemetry("test", None)
    made._tracer = Tracer(Resource({"service.name": "test"}), ratio, watcher)
    return made
