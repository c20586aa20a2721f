"""Sends spans to an OTLP/HTTP receiver from a thread of its own, little by little.

Making protobuf of a span is pure computing under the interpreter's lock, which the event loop waits for. So it is done
a few spans at a time with rests between, and what is sent is joined from the pieces: concatenated messages are one
message (protobuf, "Last One Wins"). It never holds up whoever ends a span, and forgets the oldest when it is behind.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from services._mesh.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.sdk.trace import ReadableSpan

    from services._mesh.settings import OtlpSettings

    Encode = Callable[[Sequence[ReadableSpan]], bytes]
    Post = Callable[[bytes], bool]

log = logging.getLogger(__name__)

QUEUE = 8_192
BATCH = 512
PIECE = 16
REST_SECONDS = 0.004
_POST_SECONDS = 5.0
_LAST_SECONDS = 7.0


class SpanSender:
    """A queue of ended spans and the thread that empties it, each `every_seconds` or when a batch is full."""

    def __init__(
        self, connect: Callable[[], tuple[Encode, Post]], every_seconds: float, metrics: Metrics | None = None
    ) -> None:
        metrics = metrics or Metrics()
        self._connect, self._every = connect, every_seconds
        self._queue: deque[ReadableSpan] = deque(maxlen=QUEUE)
        self._wake = threading.Event()
        self._is_over = False
        self._sent = metrics.counter("recoup_spans_sent", "Spans that the receiver of traces has taken.")
        self._lost = metrics.counter("recoup_spans_lost", "Spans that were kept and yet not sent.")
        self._thread = threading.Thread(target=self._run, name="spans", daemon=True)
        self._thread.start()

    def put(self, spans: Sequence[ReadableSpan]) -> None:
        """Take spans that have ended. Called from any thread; never waits."""
        over = len(self._queue) + len(spans) - QUEUE
        if over > 0:
            self._lost.add(over)
        self._queue.extend(spans)
        if len(self._queue) >= BATCH and not self._wake.is_set():
            self._wake.set()

    def close(self) -> None:
        """Send what is left, for some seconds at most."""
        self._is_over = True
        self._wake.set()
        self._thread.join(_LAST_SECONDS)

    def _run(self) -> None:
        # In the thread: its imports take a tenth of a second, which the start of the process doesn't wait for.
        encode, post = self._connect()
        while not self._is_over:
            self._wake.wait(self._every)
            self._wake.clear()
            self._send_all(encode, post)
        self._send_all(encode, post)

    def _send_all(self, encode: Encode, post: Post) -> None:
        while self._queue:
            pieces: list[bytes] = []
            count = 0
            while self._queue and count < BATCH:
                piece = [self._queue.popleft() for _ in range(min(PIECE, len(self._queue)))]
                try:
                    pieces.append(encode(piece))
                    count += len(piece)
                except Exception as error:
                    log.warning("%d spans can't be written: %s", len(piece), type(error).__name__)
                    self._lost.add(len(piece))
                # No rest at the end of the process, and none while more comes than goes.
                if not self._is_over and len(self._queue) < QUEUE // 2:
                    time.sleep(REST_SECONDS)
            (self._sent if post(b"".join(pieces)) else self._lost).add(count)


def otlp(settings: OtlpSettings) -> tuple[Encode, Post]:
    """How to write spans, and how to post them to the receiver; what `post` returns is whether they were taken."""
    import requests
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

    # A receiver that is down must not fill our own log.
    logging.getLogger("urllib3").setLevel(logging.CRITICAL)
    session, url = requests.Session(), settings.endpoint.rstrip("/") + "/v1/traces"
    session.trust_env = False  # Where traces go is configured, and by nothing else.
    session.verify = str(settings.ca) if settings.ca else True

    def post(body: bytes) -> bool:
        try:
            headers = {"Content-Type": "application/x-protobuf"}
            return session.post(url, body, headers=headers, timeout=_POST_SECONDS, allow_redirects=False).ok
        except requests.RequestException:
            return False

    return lambda spans: encode_spans(spans).SerializePartialToString(), post
