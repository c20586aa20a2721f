"""What the edge's traces say of an organization: what identity let the caller into, and nothing before."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from services._mesh import telemetry
from services._mesh.descriptors import Effect, Scope
from services._mesh.errors import NotFound
from services.gateway.calling import Caller
from services.gateway.exchange import blank
from services.gateway.session import Session
from tests.support.things import ACME

ROUTE = SimpleNamespace(service="scanner", rule=SimpleNamespace(scope=Scope.ORGANIZATION, effect=Effect.READ))
COUNTING = SimpleNamespace(count_verified=AsyncMock(), count_stranger=lambda *_: None)


class Office:
    """Lets in, or doesn't."""

    def __init__(self, *, lets_in: bool) -> None:
        self._lets_in = lets_in

    async def passport(self, *_: str) -> Any:
        if not self._lets_in:
            raise NotFound
        return SimpleNamespace(token="t", passport=None)


@pytest.mark.parametrize("lets_in", [True, False])
async def test_a_trace_names_an_organization_once_it_has_let_the_caller_in(
    monkeypatch: pytest.MonkeyPatch, lets_in: bool
) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing = telemetry.Telemetry("test", None)
    tracing._provider, tracing.tracer = provider, provider.get_tracer("test")
    monkeypatch.setattr(telemetry, "_active", tracing)
    office: Any = Office(lets_in=lets_in)
    route: Any = ROUTE
    counting: Any = COUNTING
    caller = Caller([], office, lambda _: office, counting, counting)

    with tracing.span("edge"):
        try:
            await caller.admit(blank("GET"), route, Session.of("session"), str(ACME))
            tracing.start_span("call").end()
        except NotFound:
            assert not lets_in
    said = {span.name: (span.attributes or {}).get(telemetry.ORGANIZATION) for span in exporter.get_finished_spans()}
    assert said == ({"call": str(ACME), "edge": str(ACME)} if lets_in else {"edge": None})
