"""A small OTLP/HTTP receiver: keeps the spans that processes send, and shows one trace as a tree."""

from __future__ import annotations

import gzip
import json
import sys
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

SPANS_FILE = "spans.jsonl"
MAX_SPANS = 500_000
MAX_BODY = 8 * 1024 * 1024


@dataclass(frozen=True)
class SeenSpan:
    """A span as it was received: ids in hexadecimal, times in nanoseconds since 1970."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    process: str
    start_ns: int
    end_ns: int
    failed: bool
    organization_id: str = ""
    request_id: str = ""
    # The traces that it comes from without being in them: of a message that comes again, the first delivery's.
    linked: tuple[str, ...] = ()


class Spans:
    """All received spans, in memory up to a bound and in a file of one JSON object a line."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self._spans: list[SeenSpan] = []
        self.whole: Path | None = None  # A file for all that comes, attributes and all, where a test looks into it.
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")

    def take(self, body: bytes) -> None:
        """Keep the spans of one export request."""
        request = ExportTraceServiceRequest.FromString(body)
        found = list(_read(request))
        with self._lock, self._path.open("a", encoding="utf-8") as file:
            self._spans += found[: max(0, MAX_SPANS - len(self._spans))]
            file.writelines(json.dumps(asdict(span)) + "\n" for span in found)
            if self.whole is not None:
                with self.whole.open("ab") as whole:
                    whole.write(body)

    def all(self) -> list[SeenSpan]:
        """A copy of what was received."""
        with self._lock:
            return list(self._spans)

    def trace(self, trace_id: str) -> list[SeenSpan]:
        """The spans of one trace, by start."""
        return sorted((s for s in self.all() if s.trace_id == trace_id), key=lambda span: span.start_ns)


def _read(request: ExportTraceServiceRequest) -> Iterator[SeenSpan]:
    for resource in request.resource_spans:
        process = next((a.value.string_value for a in resource.resource.attributes if a.key == "service.name"), "")
        for scope in resource.scope_spans:
            for span in scope.spans:
                said = {a.key: a.value.string_value for a in span.attributes if a.key.startswith("recoup.")}
                yield SeenSpan(
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    span.name,
                    process,
                    span.start_time_unix_nano,
                    span.end_time_unix_nano,
                    span.status.code == 2,
                    said.get("recoup.organization_id", ""),
                    said.get("recoup.request_id", ""),
                    tuple(link.trace_id.hex() for link in span.links),
                )


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A process that ended before its answer came has nobody who would read of it."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


def serve(spans: Spans) -> tuple[ThreadingHTTPServer, str]:
    """Receive on a free loopback port, from a thread; returns the server and its base address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", "0"))
            if length > MAX_BODY:
                self.send_error(413)
                return
            body = self.rfile.read(length)
            spans.take(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            """Nobody reads these."""

    server = _Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, name="otlp", daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_address[1]}"


def tree(spans: Iterable[SeenSpan]) -> list[tuple[int, SeenSpan]]:
    """A trace as (depth, span), parents before children; spans whose parent wasn't received are roots."""
    spans = list(spans)
    known = {span.span_id for span in spans}
    children: dict[str, list[SeenSpan]] = defaultdict(list)
    for span in sorted(spans, key=lambda each: each.start_ns):
        children[span.parent_id if span.parent_id in known else ""].append(span)

    def walk(parent: str, depth: int) -> Iterator[tuple[int, SeenSpan]]:
        for span in children[parent]:
            yield depth, span
            yield from walk(span.span_id, depth + 1)

    return list(walk("", 0))
