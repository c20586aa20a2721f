"""Counts and times what the process does, and shows it in Prometheus' text format, or OpenMetrics where that is asked
for, on a loopback port.

Small on purpose: one event loop needs no locks, and labels come from descriptors and fixed words, never from callers.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from services._mesh.listening import listening_socket

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_TEXT, _OPEN = "text/plain; version=0.0.4", "application/openmetrics-text; version=1.0.0; charset=utf-8"
_PLAIN = "text/plain; charset=utf-8"
_READ_SECONDS = 5.0
_MAX_HEADER_BYTES = 8192

Labels = tuple[tuple[str, str], ...]


class Counter:
    """A count that only rises."""

    def __init__(self) -> None:
        self.value = 0.0

    def add(self, amount: float = 1.0) -> None:
        """Counts."""
        self.value += amount

    def lines(self, name: str, labels: Labels, *, exemplars: bool = False) -> Iterator[str]:
        """The exposition of this one series, which has no exemplars."""
        yield f"{name}{_render(labels)} {self.value:.15g}"


class Gauge(Counter):
    """A value that goes both ways."""

    def set(self, value: float) -> None:
        """Sets the value."""
        self.value = value


class Histogram:
    """A distribution of seconds, with the newest trace that is kept for each bucket."""

    def __init__(self) -> None:
        self._counts = [0] * (len(_BUCKETS) + 1)
        self._sum = 0.0
        self._exemplars: dict[int, tuple[str, float, float]] = {}

    def observe(self, seconds: float, trace_id: str = "") -> None:
        """Counts one duration; `trace_id` is that of a trace which can be looked at."""
        place = bisect_left(_BUCKETS, seconds)
        self._counts[place] += 1
        self._sum += seconds
        if trace_id:
            self._exemplars[place] = trace_id, seconds, time.time()

    def lines(self, name: str, labels: Labels, *, exemplars: bool = False) -> Iterator[str]:
        """The exposition of this one series, with cumulative buckets, each with its exemplar where there is one."""
        total = 0
        for place, (bound, count) in enumerate(zip((*map(str, _BUCKETS), "+Inf"), self._counts, strict=True)):
            total += count
            line = f"{name}_bucket{_render((*labels, ('le', bound)))} {total}"
            if exemplars and place in self._exemplars:
                trace_id, seconds, at = self._exemplars[place]
                line += f' # {{trace_id="{trace_id}"}} {seconds:.6f} {at:.3f}'
            yield line
        yield f"{name}_sum{_render(labels)} {self._sum:.6f}"
        yield f"{name}_count{_render(labels)} {total}"


Series = Counter | Gauge | Histogram
S = TypeVar("S", Counter, Gauge, Histogram)
_KINDS = {Counter: "counter", Gauge: "gauge", Histogram: "histogram"}


class Metrics:
    """All series of a process. A series is made once and kept by whoever counts in it."""

    def __init__(self) -> None:
        self._families: dict[str, tuple[type[Series], str, dict[Labels, Series]]] = {}

    def counter(self, name: str, text: str, **labels: str) -> Counter:
        """The counter `name` with these labels; `text` is what a person reads about it."""
        return self._series(Counter, name, text, labels)

    def gauge(self, name: str, text: str, **labels: str) -> Gauge:
        """The gauge `name` with these labels."""
        return self._series(Gauge, name, text, labels)

    def histogram(self, name: str, text: str, **labels: str) -> Histogram:
        """The histogram of seconds `name` with these labels."""
        return self._series(Histogram, name, text, labels)

    def render(self) -> str:
        """The text exposition format, version 0.0.4."""
        return "\n".join(self._lines(lambda name, kind: (name, kind))) + "\n"

    def render_open(self) -> str:
        """OpenMetrics 1.0, with exemplars, under the same names: a counter whose name it wouldn't allow has no type."""
        return "\n".join((*self._lines(_open_family, exemplars=True), "# EOF")) + "\n"

    def _lines(self, family: Callable[[str, str], tuple[str, str]], *, exemplars: bool = False) -> Iterator[str]:
        for name, (kind, text, series) in sorted(self._families.items()):
            shown, type_name = family(name, _KINDS[kind])
            yield f"# HELP {shown} {text}"
            yield f"# TYPE {shown} {type_name}"
            for labels, each in sorted(series.items()):
                yield from each.lines(name, labels, exemplars=exemplars)

    def _series(self, kind: type[S], name: str, text: str, labels: dict[str, str]) -> S:
        known, _, series = self._families.setdefault(name, (kind, text, {}))
        if known is not kind:
            raise ValueError(f"{name} is a {_KINDS[known]}")
        found = series.setdefault(tuple(sorted(labels.items())), kind())
        assert isinstance(found, kind)
        return found


def _open_family(name: str, kind: str) -> tuple[str, str]:
    """A family's name and type in OpenMetrics, where a counter's samples are called like it with `_total` behind."""
    if kind != "counter":
        return name, kind
    return (name.removesuffix("_total"), kind) if name.endswith("_total") else (name, "unknown")


async def serve(metrics: Metrics, address: str, health: Callable[[], tuple[bool, str]]) -> asyncio.Server:
    """Answers HTTP requests at `address` with the exposition, and for whoever can't ask by gRPC under mTLS, a probe for
    one: `/healthz` whether the process answers at all, `/readyz` what `health` says. The settings allow loopback only.

    Raises Unlistenable.
    """

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_READ_SECONDS):
                asked = await reader.readuntil(b"\r\n\r\n")
            status, kind, text = _answer(metrics, health, asked)
            head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nConnection: close\r\n"
            body = text.encode()
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass  # Whoever scrapes will come again.
        finally:
            writer.close()

    listener = listening_socket(address, "process.metrics")
    return await asyncio.start_server(answer, sock=listener, limit=_MAX_HEADER_BYTES)


def _answer(metrics: Metrics, health: Callable[[], tuple[bool, str]], asked: bytes) -> tuple[str, str, str]:
    """Status, content type and text for a request's head."""
    path = asked.partition(b"\r\n")[0].split(b" ")[1:2]
    if path == [b"/healthz"]:
        return "200 OK", _PLAIN, "ok\n"
    if path == [b"/readyz"]:
        serves, said = health()
        return "200 OK" if serves else "503 Service Unavailable", _PLAIN, f"{said}\n"
    if _wants_open(asked):
        return "200 OK", _OPEN, metrics.render_open()
    return "200 OK", _TEXT, metrics.render()


def _wants_open(head: bytes) -> bool:
    """Whether a request's Accept names OpenMetrics; Prometheus asks for it first, and for the older text after it."""
    lines = (line.partition(b":") for line in head.lower().split(b"\r\n"))
    return any(name == b"accept" and b"application/openmetrics-text" in value for name, _, value in lines)


def _render(labels: Sequence[tuple[str, str]]) -> str:
    return "{" + ",".join(f'{key}="{value}"' for key, value in labels) + "}" if labels else ""
