"""The tries of one call: how long is left, and whether and when there is another.

Repeated is what was refused before anything was done, and what its service knows again: a change with a `request_id`
(AIP-155) gets the first one's answer. Reads are repeated by gRPC itself (`calling.channel_options`); streams, which it
repeats by another rule, are opened again here.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import grpc

from recoup_client.errors import RecoupError

# Of a passport; the last one where its key is trusted no more.
STALE = frozenset({"CREDENTIAL_EXPIRED", "CREDENTIAL_REVOKED", "CREDENTIAL_INVALID"})
REQUEST_ID_KEY = "recoup-request-id"
MOST = 3
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 1.0


class Attempts:
    """`request` is what is asked for, `seconds` what all tries have together."""

    def __init__(
        self, request: Any, seconds: float, *, is_stream: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        # What all tries are called in logs and traces: a change goes by the name that its service knows it by.
        self.request_id = str(getattr(request, "request_id", "")) or str(uuid4())
        self._may_repeat = is_stream or bool(getattr(request, "request_id", ""))
        self._clock, self._ends_at, self._tried = clock, clock() + seconds, 1
        # Whether the next try needs another passport than the last one.
        self.is_fresh = False
        self._was_renewed = False

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return max(0.0, self._ends_at - self._clock())

    def pause(self, error: RecoupError) -> float | None:
        """Seconds to wait for the next try; None where there is none."""
        self.is_fresh = not self._was_renewed and error.reason in STALE
        if self.is_fresh:
            self._was_renewed = True
            return 0.0
        if not self._may_repeat or self._tried >= MOST or not _passes(error):
            return None
        drawn = random.uniform(0, min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (self._tried - 1)))
        named = error.metadata.get("retry_after_seconds", "")
        seconds = drawn + (float(named) if named.isdecimal() else 0.0)
        self._tried += 1
        return seconds if seconds < self.left else None


def _passes(error: RecoupError) -> bool:
    """Nobody is there, or is going away; or the same request is worked on still."""
    is_away = error.code is grpc.StatusCode.UNAVAILABLE or (
        error.code is grpc.StatusCode.CANCELLED and not error.reason
    )
    return is_away or error.reason == "REQUEST_IN_FLIGHT"
