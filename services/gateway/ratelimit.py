"""Rate limits by GCRA (the generic cell rate algorithm): one number for each key, no timers, bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from services._mesh.clock import monotonic
from services._mesh.limits import BoundedCache

_KEYS = 50_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a call may go on; what is left, and when it may be tried again or is whole again, in seconds."""

    allowed: bool
    limit: int
    remaining: int
    retry_after: float
    reset_after: float


class Limiter:
    """Lets `rate` calls a second through for each key, and `burst` at once."""

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = monotonic) -> None:
        self._interval, self._burst, self._clock = 1.0 / rate, burst, clock
        self._arrivals: BoundedCache[str, float] = BoundedCache(_KEYS)

    def take(self, key: str, cost: int = 1) -> Verdict:
        """Count a call; `cost` 0 only looks."""
        now = self._clock()
        expected = max(self._arrivals.get(key) or now, now)
        tolerance = self._interval * self._burst
        after = expected + cost * self._interval
        if after - now > tolerance + 1e-9:
            return Verdict(False, self._burst, 0, after - now - tolerance, expected - now)
        if cost:
            self._arrivals.put(key, after, tolerance)
        remaining = int((tolerance - (after - now)) / self._interval + 1e-9)
        return Verdict(True, self._burst, remaining, 0.0, after - now)
