"""`recoup trace`: the tree of what one request did, from the spans that the local mesh received."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link, SpanContext, StatusCode, get_tracer, set_span_in_context

from recoup_local.otlp import SPANS_FILE, Spans
from recoup_local.tracing import trace


def run(state: Path, *arguments: str) -> Result:
    return CliRunner().invoke(trace, [*arguments, "--state", str(state)], env={"COLUMNS": "160"})


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """What two processes sent: the edge's request "r-1" that a service failed at, and another request's."""
    edge, service = InMemorySpanExporter(), InMemorySpanExporter()
    tracers = []
    for name, exporter in (("gateway", edge), ("scanner", service)):
        provider = TracerProvider(resource=Resource({"service.name": name}))
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        tracers.append(get_tracer("test", tracer_provider=provider))
    root = tracers[0].start_span("GET (edge)", attributes={"recoup.request_id": "r-1"})
    call = tracers[1].start_span("Scanner/[red]Get", set_span_in_context(root))
    statement = tracers[1].start_span("sql SELECT", set_span_in_context(call))
    below = tracers[1].start_span("lookup", set_span_in_context(statement))
    for span in (below, statement):
        span.end()
    call.set_status(StatusCode.ERROR, "X")
    call.end()
    root.end()
    tracers[0].start_span("POST (edge)", attributes={"recoup.request_id": "r-2"}).end()
    spans = Spans(tmp_path / SPANS_FILE)
    for exporter in (service, edge):
        spans.take(encode_spans(exporter.get_finished_spans()).SerializeToString())
    return tmp_path


def test_one_requests_spans_are_shown_as_a_tree_over_all_processes(state: Path) -> None:
    shown = run(state, "r-1")
    assert shown.exit_code == 0, shown.output
    assert "4 spans over 2 processes" in shown.output
    assert "1 failed" in shown.output
    lines = [line for line in shown.output.splitlines() if "+" in line]
    assert [line.index(name) for line, name in zip(lines, ("GET", "Scanner", "lookup"), strict=True)] == [4, 8, 12]
    assert "Scanner/[red]Get failed  scanner" in shown.output  # A name is no markup.
    assert "sql SELECT" not in shown.output
    assert "POST" not in shown.output
    assert "sql SELECT" in run(state, "r-1", "--sql").output


def test_a_trace_id_does_as_well_and_json_has_everything(state: Path) -> None:
    found = json.loads(run(state, "r-1", "--json").output)
    assert [(each["depth"], each["name"]) for each in found] == [
        (0, "GET (edge)"),
        (1, "Scanner/[red]Get"),
        (2, "sql SELECT"),
        (3, "lookup"),
    ]
    assert json.loads(run(state, found[0]["trace_id"], "--json").output) == found


def test_into_a_file_each_line_goes_whole(state: Path) -> None:
    narrow = CliRunner().invoke(trace, ["r-1", "--state", str(state)], env={"COLUMNS": "20"})
    lines = narrow.output.splitlines()
    assert len(lines) == 4
    assert lines[-1].endswith(" ms")


def test_what_a_running_mesh_has_yet_to_send_is_waited_for(state: Path) -> None:
    """The edge's part, which the others hang below, arrives while the command looks."""
    file = state / SPANS_FILE
    before = file.read_text()
    edge = next(line for line in before.splitlines(keepends=True) if '"GET (edge)"' in line)
    file.write_text(before.replace(edge, ""))
    trace_id = json.loads(edge)["trace_id"]
    early = run(state, trace_id)
    assert (early.exit_code, "not all of it is here" in early.stderr) == (0, True)
    assert "GET (edge)" not in early.output
    (state / "facts.json").write_text("{}")
    arrival = threading.Timer(0.2, lambda: file.write_text(before))
    arrival.start()
    late = run(state, trace_id)
    arrival.join()
    assert (late.exit_code, late.stderr) == (0, "")
    assert "GET (edge)" in late.output


def test_a_job_that_came_again_is_shown_behind_the_trace_that_it_is_linked_to(state: Path) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(resource=Resource({"service.name": "scanner-worker"}))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = get_tracer("test", tracer_provider=provider)
    first = json.loads(run(state, "r-1", "--json").output)[0]
    context = SpanContext(int(first["trace_id"], 16), int(first["span_id"], 16), is_remote=True)
    again = tracer.start_span("job jobs.scanner.scan", links=[Link(context)])
    tracer.start_span("EC2 DescribeVolumes", set_span_in_context(again)).end()
    again.end()
    spans = Spans(state / "again.jsonl")
    spans.take(encode_spans(exporter.get_finished_spans()).SerializeToString())
    with (state / SPANS_FILE).open("a") as file:
        file.write((state / "again.jsonl").read_text())
    shown = run(state, "r-1").output
    assert (
        shown.index("trace " + first["trace_id"]) < shown.index("job jobs.scanner.scan") < shown.index("EC2 Describe")
    )
    assert "2 spans over 1 process, " in shown
    assert f"linked to trace {first['trace_id']}" in shown


def test_what_isnt_there_is_said_and_a_line_being_written_is_left_alone(state: Path) -> None:
    with (state / SPANS_FILE).open("a") as file:
        file.write('{"trace_id": "half')
    assert run(state, "r-2").exit_code == 0
    unknown = run(state, "r-3")
    assert (unknown.exit_code, "no span of request r-3" in unknown.stderr) == (1, True)
    nothing = run(state / "elsewhere", "r-1")
    assert (nothing.exit_code, "--state" in nothing.stderr) == (3, True)
