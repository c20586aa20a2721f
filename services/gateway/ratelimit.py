"""Rate limits by GCRA (the generic cell rate algorithm): one number for each key, no timers, bounded memory.

A key is forgotten when its budget is whole again, and never before: forgetting gives nobody anything. Where there are
more keys than are kept, those that come on top share one budget.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import NamedTuple

from services._mesh.clock import monotonic

_KEYS = 50_000
# Of one call, so that no call pays for the forgetting of all.
_MOST_FORGOTTEN = 100
_EVERYBODY_ELSE = ""


class Verdict(NamedTuple):
    """Whether a call may go on; what is left of how much in how long, and when it may be tried again or is whole again,
    in seconds.
    """

    allowed: bool
    limit: int
    window: float
    remaining: int
    retry_after: float
    reset_after: float


class Limiter:
    """Lets `rate` calls a second through for each key, and `burst` at once; keeps `keys` of them apart."""

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = monotonic, keys: int = _KEYS) -> None:
        self.rate, self.burst = rate, burst
        self._interval, self._clock, self._keys = 1.0 / rate, clock, keys
        self._whole_at: dict[str, float] = {}
        # Each key once, with a moment no later than the one at which its budget is whole.
        self._due: list[tuple[float, str]] = []

    def take(self, key: str) -> Verdict:
        """Count a call, if it may go on."""
        return self._judge(key, counts=True)

    def look(self, key: str) -> Verdict | None:
        """What a call would be told now; None where nothing was counted under the key."""
        if key not in self._whole_at and len(self._whole_at) < self._keys:
            return None
        return self._judge(key, counts=False)

    def _judge(self, key: str, *, counts: bool) -> Verdict:
        now = self._clock()
        if self._due and self._due[0][0] <= now:
            self._forget(now)
        if key not in self._whole_at and len(self._whole_at) >= self._keys:
            key = _EVERYBODY_ELSE
        before = max(self._whole_at.get(key, now), now)
        window = self._interval * self.burst
        after = before + self._interval
        if after - now > window + 1e-9:
            return Verdict(False, self.burst, window, 0, after - now - window, before - now)
        if counts:
            if key not in self._whole_at:
                heapq.heappush(self._due, (after, key))
            self._whole_at[key] = after
        whole_at = after if counts else before
        remaining = int((window - (whole_at - now)) / self._interval + 1e-9)
        return Verdict(True, self.burst, window, remaining, 0.0, whole_at - now)

    def _forget(self, now: float) -> None:
        """Drop keys whose budgets are whole."""
        for _ in range(_MOST_FORGOTTEN):
            if not self._due or self._due[0][0] > now:
                return
            key = self._due[0][1]
            whole_at = self._whole_at[key]
            if whole_at > now:
                heapq.heapreplace(self._due, (whole_at, key))
            else:
                heapq.heappop(self._due)
                del self._whole_at[key]

    def __len__(self) -> int:
        return len(self._whole_at)
