"""Which spans are sent: a share of the traces, and of the others each part that failed or was slow."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.trace import Span, SpanKind, StatusCode, set_span_in_context

from services._mesh import sampling, span_sending, telemetry
from services._mesh.sampling import ByTraceId, KeepWorth
from services._mesh.settings import OtlpSettings

OTLP = OtlpSettings(endpoint="http://127.0.0.1:1", ratio=0.5, slow_seconds=1.0, slow_job_seconds=60.0)
SECOND = 10**9


class Kept:
    """A process's tracing, and the names of the spans that it would send."""

    def __init__(self, settings: OtlpSettings = OTLP, max_waiting: int = sampling.MAX_WAITING) -> None:
        self.names: list[str] = []
        self.processor = KeepWorth(lambda spans: self.names.extend(s.name for s in spans), settings, max_waiting)
        self.provider = TracerProvider(ByTraceId(settings.ratio), shutdown_on_exit=False)
        self.provider.add_span_processor(self.processor)
        self.tracing = telemetry.Telemetry("test", None)
        self.tracing._provider, self.tracing.tracer = self.provider, self.provider.get_tracer("test")

    def begin(self, name: str, parent: str | Span, kind: SpanKind = SpanKind.SERVER) -> Span:
        if isinstance(parent, str):
            return self.tracing.start_span(name, kind=kind, trace_parent=parent)
        return self.tracing.tracer.start_span(name, set_span_in_context(parent), kind)


def caller(number: int, *, chosen: bool, flag: int = 1) -> str:
    """A traceparent from outside whose trace is in the share, or isn't; the caller's flag says what it likes."""
    low = number if chosen else (1 << 64) - number
    return f"00-{1:016x}{low:016x}-{number:016x}-{flag:02x}"


def end(span: Span, *, seconds: float = 0.0, failed: bool = False) -> None:
    assert isinstance(span, ReadableSpan)
    assert span.start_time is not None
    if failed:
        span.set_status(StatusCode.ERROR, "X")
    span.end(span.start_time + int(seconds * SECOND))


@pytest.mark.parametrize("flag", [0, 1])
def test_the_trace_id_alone_chooses_and_the_flag_says_so_to_whoever_comes_after(flag: int) -> None:
    kept = Kept()
    for number, chosen in ((1, True), (2, False)):
        root = kept.begin(f"root {chosen}", caller(number, chosen=chosen, flag=flag))
        child = kept.begin(f"child {chosen}", root)
        for span in (child, root):
            assert telemetry.format_parent(span.get_span_context())[-2:] == ("01" if chosen else "00")
            end(span)
    assert kept.names == ["child True", "root True"]


@pytest.mark.parametrize(("ratio", "low", "high"), [(0.0, 0, 0), (0.1, 60, 140), (1.0, 1000, 1000)])
def test_the_share_of_new_traces_is_the_configured_one(ratio: float, low: int, high: int) -> None:
    kept = Kept(OtlpSettings(endpoint=OTLP.endpoint, ratio=ratio))
    for _ in range(1000):
        kept.tracing.tracer.start_span("x").end()
    assert low <= len(kept.names) <= high
    assert kept.processor.waiting == 0


@pytest.mark.parametrize("bad", ["root", "child", "slow root", "slow child"])
def test_a_part_that_failed_or_was_slow_is_kept_whole(bad: str) -> None:
    kept = Kept()
    root = kept.begin("root", caller(1, chosen=False))
    child, other = kept.begin("child", root), kept.begin("other", root)
    end(other)
    assert kept.processor.waiting == 1
    end(child, failed=bad == "child", seconds=1.0 if bad == "slow child" else 0.999)
    assert not kept.names  # Whether it is worth it shows at its end, also where a part of it is known to be bad.
    end(root, failed=bad == "root", seconds=1.0 if bad == "slow root" else 0.999)
    assert kept.names == ["other", "child", "root"]
    assert kept.processor.waiting == 0


def test_a_job_may_take_longer_than_a_request() -> None:
    kept = Kept()
    for name, seconds in (("job", 59.9), ("slow job", 60.0)):
        job = kept.begin(name, caller(1, chosen=False), SpanKind.CONSUMER)
        end(kept.begin(f"call of {name}", job, SpanKind.CLIENT), seconds=5.0)
        end(job, seconds=seconds)
    assert kept.names == ["call of slow job", "slow job"]


def test_one_request_s_failure_keeps_nothing_of_another_s_even_where_both_name_the_same_trace() -> None:
    kept = Kept()
    parent = caller(1, chosen=False)
    good, bad = kept.begin("good", parent), kept.begin("bad", parent)
    inner_good, inner_bad = kept.begin("in good", good), kept.begin("in bad", bad)
    end(inner_bad, failed=True)
    end(inner_good)
    end(bad)
    end(good)
    assert kept.names == ["in bad", "bad"]
    assert kept.processor.waiting == 0


def test_what_outlives_its_root_is_waited_for_and_what_begins_later_stands_for_itself() -> None:
    kept = Kept()
    root = kept.begin("root", caller(1, chosen=False))
    late = kept.begin("late", root)
    end(root)
    end(late, failed=True)
    assert kept.names == ["root", "late"]
    end(kept.begin("after", root))
    end(kept.begin("failed after", root), failed=True)
    assert kept.names == ["root", "late", "failed after"]


def test_beyond_the_bound_the_oldest_part_is_given_up_but_for_what_fails_in_it() -> None:
    kept = Kept(max_waiting=4)
    old, new = (kept.begin(name, caller(n, chosen=False)) for n, name in enumerate(("old", "new"), start=1))
    for number in range(3):
        end(kept.begin(f"old {number}", old))
    for number in range(2):
        end(kept.begin(f"new {number}", new))
    assert kept.processor.waiting == 2
    end(kept.begin("old again", old))
    end(new, failed=True)
    end(old, failed=True)
    assert kept.names == ["new 0", "new 1", "new", "old"]
    assert kept.processor.waiting == 0


def test_one_part_holds_so_many_spans_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "MAX_OF_ONE", 3)
    kept = Kept()
    root = kept.begin("root", caller(1, chosen=False))
    for number in range(5):
        end(kept.begin(str(number), root))
    end(root, failed=True)
    assert kept.names == ["0", "1", "2"]
    assert kept.processor.waiting == 0


def test_spans_that_never_end_are_forgotten_about(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "MAX_OPEN", 2)
    kept = Kept()
    spans = [kept.begin(str(n), caller(n, chosen=False)) for n in range(1, 5)]
    assert len(kept.processor._part_of) == 2
    for span in spans:
        end(span, failed=True)
    assert sorted(kept.names) == ["1", "2", "3", "4"]
    assert not kept.processor._part_of


class Receiver:
    """Takes what is posted, once it is let; encodes a span as its name."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.open = threading.Event()
        self.posting = threading.Event()
        self.takes = True

    def connect(self) -> tuple[span_sending.Encode, span_sending.Post]:
        return self.encode, self.post

    def encode(self, spans: Sequence[ReadableSpan]) -> bytes:
        return b"".join(span.name.encode() for span in spans)

    def post(self, body: bytes) -> bool:
        self.posting.set()
        assert self.open.wait(10)
        self.bodies.append(body)
        return self.takes


@contextmanager
def sender(receiver: Receiver) -> Iterator[span_sending.SpanSender]:
    made = span_sending.SpanSender(receiver.connect, 60.0)
    try:
        yield made
    finally:
        receiver.open.set()
        made.close()


def spans(count: int, name: str = "x") -> list[ReadableSpan]:
    return [ReadableSpan(name)] * count


def test_spans_are_sent_in_batches_and_the_rest_at_the_end() -> None:
    receiver = Receiver()
    receiver.open.set()
    with sender(receiver) as made:
        made.put(spans(span_sending.BATCH))
        assert receiver.posting.wait(10)
        made.put(spans(3, "y"))
    assert receiver.bodies == [b"x" * span_sending.BATCH, b"yyy"]
    assert made._sent.value == span_sending.BATCH + 3


def test_a_receiver_that_hangs_or_refuses_costs_bounded_memory_and_what_is_lost_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(span_sending, "REST_SECONDS", 0.0)
    receiver = Receiver()
    receiver.takes = False
    with sender(receiver) as made:
        made.put(spans(span_sending.BATCH, "a"))
        assert receiver.posting.wait(10)
        made.put(spans(span_sending.QUEUE, "b"))
        made.put(spans(10, "c"))
        assert len(made._queue) == span_sending.QUEUE
        assert made._lost.value == 10
    assert sum(map(len, receiver.bodies)) == span_sending.BATCH + span_sending.QUEUE
    assert (made._sent.value, made._lost.value) == (0, span_sending.BATCH + span_sending.QUEUE + 10)


def test_a_span_that_can_t_be_written_doesn_t_end_the_sending() -> None:
    receiver = Receiver()
    receiver.open.set()
    receiver.encode = lambda spans: b"ok" if spans[0].name == "good" else 1 / 0  # type: ignore[assignment,return-value,method-assign]
    with sender(receiver) as made:
        made.put(spans(span_sending.PIECE, "bad"))
        made.put(spans(1, "good"))
    assert receiver.bodies == [b"ok"]
    assert made._lost.value == span_sending.PIECE
