"""A span of our own is sent as OpenTelemetry's own would be."""

from __future__ import annotations

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import Link, SpanContext, SpanKind, StatusCode, TraceFlags

from services._mesh.spans import Span, Tracer
from tests.support.tracing import Ended

PARENT = SpanContext(2**127 + 5, 7, is_remote=True, trace_flags=TraceFlags(1))
LINKED = Link(SpanContext(9, 10, is_remote=True))


def theirs(span: Span) -> ReadableSpan:
    """The same in OpenTelemetry's form."""
    return ReadableSpan(
        span.name,
        span.context,
        span.parent,
        span.resource,
        span.attributes,
        (),
        span.links,
        span.kind,
        None,
        span.status,
        span.start_time,
        span.end_time,
    )


@pytest.mark.parametrize("ratio", [0.0, 1.0])
@pytest.mark.parametrize(("parent", "links"), [(None, ()), (PARENT, (LINKED,))])
@pytest.mark.parametrize("reason", ["", "DENIED"])
def test_a_span_is_encoded_as_opentelemetry_s_own(
    ratio: float, parent: SpanContext | None, links: tuple[Link, ...], reason: str
) -> None:
    ended = Ended()
    given = {"text": "ü", "number": 5, "share": 0.5, "truth": True}
    span = Tracer(Resource({"service.name": "x"}), ratio, ended).begin("call", SpanKind.CLIENT, parent, links, given)
    span.set_attribute("later", 1)
    if reason:
        span.set_status(StatusCode.ERROR, reason)
    span.end()
    assert ended.spans == [span]
    assert span.context.trace_flags.sampled == (ratio == 1.0)
    assert "later" not in given
    sent = encode_spans([span])  # type: ignore[list-item]
    assert sent == encode_spans([theirs(span)])
    (seen,) = sent.resource_spans[0].scope_spans[0].spans
    assert {each.key for each in seen.attributes} == {*given, "later"}
    assert seen.status.message == reason


def test_a_span_ends_once() -> None:
    ended = Ended()
    span = Tracer(Resource({}), 1.0, ended).begin("call", SpanKind.CLIENT, None)
    span.end(span.start_time + 1)
    span.end()
    assert ended.spans == [span]
    assert span.end_time == span.start_time + 1
    assert span.status.status_code is StatusCode.UNSET
