"""Counts and times what the process does, and shows it in Prometheus' text format on a loopback port.

Small on purpose: one event loop needs no locks, and labels come from descriptors and fixed words, never from callers.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import TypeVar

from services._mesh.listening import listening_socket

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
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

    def lines(self, name: str, labels: Labels) -> Iterator[str]:
        """The exposition of this one series."""
        yield f"{name}{_render(labels)} {self.value:.15g}"


class Gauge(Counter):
    """A value that goes both ways."""

    def set(self, value: float) -> None:
        """Sets the value."""
        self.value = value


class Histogram:
    """A distribution of seconds."""

    def __init__(self) -> None:
        self._counts = [0] * (len(_BUCKETS) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """Counts one duration."""
        self._counts[bisect_left(_BUCKETS, seconds)] += 1
        self._sum += seconds

    def lines(self, name: str, labels: Labels) -> Iterator[str]:
        """The exposition of this one series, with cumulative buckets."""
        total = 0
        for bound, count in zip((*map(str, _BUCKETS), "+Inf"), self._counts, strict=True):
            total += count
            yield f"{name}_bucket{_render((*labels, ('le', bound)))} {total}"
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
        lines: list[str] = []
        for name, (kind, text, series) in sorted(self._families.items()):
            lines += [f"# HELP {name} {text}", f"# TYPE {name} {_KINDS[kind]}"]
            for labels, each in sorted(series.items()):
                lines += each.lines(name, labels)
        return "\n".join(lines) + "\n"

    def _series(self, kind: type[S], name: str, text: str, labels: dict[str, str]) -> S:
        known, _, series = self._families.setdefault(name, (kind, text, {}))
        if known is not kind:
            raise ValueError(f"{name} is a {_KINDS[known]}")
        found = series.setdefault(tuple(sorted(labels.items())), kind())
        assert isinstance(found, kind)
        return found


async def serve(metrics: Metrics, address: str) -> asyncio.Server:
    """Answers every HTTP request at `address` with the exposition. The settings allow loopback only.

    Raises Unlistenable.
    """

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_READ_SECONDS):
                await reader.readuntil(b"\r\n\r\n")
            body = metrics.render().encode()
            head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close\r\n"
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass  # Whoever scrapes will come again.
        finally:
            writer.close()

    listener = listening_socket(address, "process.metrics")
    return await asyncio.start_server(answer, sock=listener, limit=_MAX_HEADER_BYTES)


def _render(labels: Sequence[tuple[str, str]]) -> str:
    return "{" + ",".join(f'{key}="{value}"' for key, value in labels) + "}" if labels else ""
