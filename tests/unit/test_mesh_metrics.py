"""The exposition of metrics: the old text for whoever asks for nothing else, OpenMetrics with exemplars who asks."""

from __future__ import annotations

import asyncio

import pytest
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_open
from prometheus_client.parser import text_string_to_metric_families as read_text

from services._mesh.clock import Clock
from services._mesh.health import Health
from services._mesh.metrics import Metrics, _answer, _wants_open
from services._mesh.settings import OtlpSettings
from services._mesh.telemetry import Telemetry

TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def metrics() -> Metrics:
    made = Metrics()
    made.counter("recoup_rpc_total", "Calls.", rpc="S/M", code="OK").add(3)
    made.counter("recoup_jobs_announced", "Announcements.", service="x").add(2)
    made.gauge("recoup_rpc_running", "Running.").set(1)
    seconds = made.histogram("recoup_rpc_seconds", "Durations.", rpc="S/M")
    seconds.observe(0.02, "f" * 32)
    seconds.observe(0.021, TRACE)
    seconds.observe(0.3)
    seconds.observe(99.0, TRACE)
    return made


def test_openmetrics_has_the_newest_kept_trace_of_each_bucket(metrics: Metrics) -> None:
    families = {family.name: family for family in read_open(metrics.render_open())}  # type: ignore[no-untyped-call]
    samples = families["recoup_rpc_seconds"].samples
    shown = {s.labels["le"]: s.exemplar for s in samples if s.exemplar is not None}
    assert {le: (each.labels, each.value) for le, each in shown.items()} == {
        "0.025": ({"trace_id": TRACE}, 0.021),
        "+Inf": ({"trace_id": TRACE}, 99.0),
    }


def test_both_formats_have_the_same_names_and_values(metrics: Metrics) -> None:
    """An alert means the same whichever the scraper asks for."""
    found = [
        [line.partition(" # ")[0] for line in text.splitlines() if not line.startswith("#")]
        for text in (metrics.render_open(), metrics.render())
    ]
    assert found[0] == found[1]
    assert 'recoup_jobs_announced{service="x"} 2' in found[0]
    assert "trace_id" not in metrics.render()
    assert {family.name for family in read_text(metrics.render())} >= {"recoup_rpc_seconds", "recoup_rpc"}


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("", False),
        ("Accept: */*", False),
        ("Accept: text/plain;version=0.0.4", False),
        ("ACCEPT: application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2", True),
        ("X-Accept: application/openmetrics-text", False),
    ],
)
def test_openmetrics_is_for_whoever_asks_for_it(accept: str, wanted: bool) -> None:
    assert _wants_open(f"GET /metrics HTTP/1.1\r\nHost: x\r\n{accept}\r\n\r\n".encode()) is wanted


@pytest.mark.parametrize(
    ("asked", "status", "said"),
    [
        ("GET /healthz HTTP/1.1", "200 OK", "ok\n"),
        ("GET /readyz HTTP/1.1", "503 Service Unavailable", "not serving: starting\n"),
        ("GET /metrics HTTP/1.1", "200 OK", None),
        ("nonsense", "200 OK", None),
    ],
)
def test_beside_the_metrics_a_probe_is_answered(metrics: Metrics, asked: str, status: str, said: str | None) -> None:
    health = Health(Clock())
    found = _answer(metrics, health.told, f"{asked}\r\n\r\n".encode())
    assert (found[0], found[2]) == (status, metrics.render() if said is None else said)


async def test_a_process_is_ready_by_its_last_look_until_it_is_to_end() -> None:
    health, is_there = Health(Clock()), [False]
    health.needs("NATS", lambda: is_there[0])
    looked: asyncio.Queue[bool] = asyncio.Queue()
    watch = asyncio.create_task(health.watch(looked.put))
    assert (await looked.get(), health.told()) == (False, (False, "not serving: waiting for NATS"))
    is_there[0] = True
    assert (await looked.get(), health.told()) == (True, (True, "serving"))
    health.leave()
    assert health.told() == (False, "not serving: going down")
    watch.cancel()


@pytest.mark.parametrize(
    ("sampled", "seconds", "failed", "shown"),
    [(True, 0.1, False, True), (False, 0.1, False, False), (False, 0.1, True, True), (False, 1.0, False, True)],
)
def test_an_exemplar_is_a_trace_that_can_be_looked_at(sampled: bool, seconds: float, failed: bool, shown: bool) -> None:
    tracing = Telemetry("test", OtlpSettings(endpoint="http://127.0.0.1:1"))
    span = NonRecordingSpan(SpanContext(int(TRACE, 16), 1, is_remote=False, trace_flags=TraceFlags(int(sampled))))
    assert tracing.exemplar(span, seconds, failed=failed) == (TRACE if shown else "")
    tracing.close()


def test_without_a_receiver_nothing_can_be_looked_at() -> None:
    span = NonRecordingSpan(SpanContext(int(TRACE, 16), 1, is_remote=False, trace_flags=TraceFlags(1)))
    assert Telemetry("test", None).exemplar(span, 9.0, failed=True) == ""
