"""Which spans are worth sending: a share of all traces, chosen by trace id, and whatever failed or was slow.

The share is the same in every process, so that what is kept is kept whole; the W3C flag says the choice to whoever
comes after. Of any other trace, a process keeps its own part if that part saw the failure or the slowness: its spans
wait, bounded, until the last of them has ended. It must not look at what spans say, but for how they ended.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind, StatusCode, TraceState
from opentelemetry.util.types import Attributes

from services._mesh.settings import OtlpSettings

_LOW_BITS = (1 << 64) - 1
MAX_WAITING = 16_384  # Spans, of all traces together.
MAX_OF_ONE = 1_024  # Spans that wait of one local trace; what comes after them is left out.
MAX_OPEN = 65_536  # Spans that have begun and not ended.

Keep = Callable[[Sequence[ReadableSpan]], None]


class ByTraceId(Sampler):
    """Records everything, and marks as sampled what its trace id chooses.

    What the caller's flag says is of no account: nobody else decides how much we keep. The id's low 64 bits are random
    (W3C trace context, level 2), and are what OpenTelemetry's own ratio sampler compares.
    """

    def __init__(self, ratio: float) -> None:
        self._bound = round(ratio * (_LOW_BITS + 1))

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """The choice; it depends on `trace_id` alone."""
        is_chosen = trace_id & _LOW_BITS < self._bound
        return SamplingResult(Decision.RECORD_AND_SAMPLE if is_chosen else Decision.RECORD_ONLY, attributes)

    def get_description(self) -> str:
        """As OpenTelemetry wants it."""
        return f"ByTraceId{{{self._bound / (_LOW_BITS + 1)}}}"


@dataclass(eq=False)
class _Part:
    """The spans below one local root: a request, a job, or whatever begins here."""

    slow_ns: float
    running: int = 0
    is_worth: bool = False
    is_dropped: bool = False
    spans: list[ReadableSpan] = field(default_factory=list)


class KeepWorth(SpanProcessor):
    """Gives `keep` the spans of chosen traces as they end, and those of a local part that is worth it when it is over.

    Called from any thread. Beyond its bounds the oldest part is given up: of it, only spans are kept that end badly
    from then on, each by itself.
    """

    def __init__(self, keep: Keep, settings: OtlpSettings, max_waiting: int = MAX_WAITING) -> None:
        self._keep, self._max_waiting = keep, max_waiting
        self._slow_ns, self._slow_job_ns = settings.slow_seconds * 1e9, settings.slow_job_seconds * 1e9
        self._lock = threading.Lock()
        self._part_of: dict[int, _Part] = {}
        # Those with waiting spans, the oldest first; the value is of no use.
        self._waiting: OrderedDict[_Part, None] = OrderedDict()
        self._count = 0

    @property
    def waiting(self) -> int:
        """How many spans wait for the end of their part."""
        return self._count

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Notes of what part the span is."""
        context = span.context
        if context is None or context.trace_flags.sampled:
            return
        with self._lock:
            if len(self._part_of) >= MAX_OPEN:
                return
            parent = span.parent
            part = None if parent is None or parent.is_remote else self._part_of.get(parent.span_id)
            if part is None:
                part = _Part(self._slow_job_ns if span.kind is SpanKind.CONSUMER else self._slow_ns)
            part.running += 1
            self._part_of[context.span_id] = part

    def on_end(self, span: ReadableSpan) -> None:
        """Keeps the span, or has it wait for those around it."""
        context = span.context
        if context is None:
            return
        if context.trace_flags.sampled:
            self._keep((span,))
            return
        with self._lock:
            worth = self._ended(span, self._part_of.pop(context.span_id, None))
        if worth:
            self._keep(worth)

    def _ended(self, span: ReadableSpan, part: _Part | None) -> Sequence[ReadableSpan]:
        """What is to be kept now."""
        if part is None:
            return (span,) if _is_worth(span, self._slow_ns) else ()
        part.running -= 1
        part.is_worth = part.is_worth or _is_worth(span, part.slow_ns)
        if part.is_dropped:
            return (span,) if _is_worth(span, part.slow_ns) else ()
        if len(part.spans) < MAX_OF_ONE:
            part.spans.append(span)
            self._waiting[part] = None
            self._count += 1
        if part.running == 0:
            self._forget(part)
            return part.spans if part.is_worth else ()
        while self._count > self._max_waiting:
            oldest = next(iter(self._waiting))
            self._forget(oldest)
            oldest.is_dropped, oldest.spans = True, []
        return ()

    def _forget(self, part: _Part) -> None:
        if part in self._waiting:
            del self._waiting[part]
            self._count -= len(part.spans)


def _is_worth(span: ReadableSpan, slow_ns: float) -> bool:
    if span.status.status_code is StatusCode.ERROR:
        return True
    return span.start_time is not None and span.end_time is not None and span.end_time - span.start_time >= slow_ns
