"""The two clocks: the wall clock for trust (TLS, tokens, leases) and the injected clock for ages and due
dates.

Nothing else in the services reads the time, and SQL gets it as `:now`.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path


def _wall() -> datetime:
    return datetime.now(UTC)


class Clock:
    """Both clocks, as aware UTC datetimes. A test passes its own functions."""

    def __init__(self, now: Callable[[], datetime] = _wall, wall: Callable[[], datetime] = _wall) -> None:
        self._now = now
        self._wall = wall

    def now(self) -> datetime:
        """The injected clock: ages, windows, `due_at`, approval, quarantine and elevation expiry."""
        return self._now()

    def wall_now(self) -> datetime:
        """The wall clock: TLS, tokens, grants, leases, key caches."""
        return self._wall()

    def wall_seconds(self) -> float:
        """The wall clock as seconds since 1970, for `exp` and `iat`."""
        return time.time() if self._wall is _wall else self._wall().timestamp()


def monotonic() -> float:
    """Seconds that only ever rise, for deadlines and freshness; comparable within one process only."""
    return time.monotonic()


def open_clock(profile: str, file: Path | None) -> Clock:
    """The process's clock: the wall clock, or in the local profile the movable one behind `file`.

    The movable clock lives in `recoup_local`, which production images don't contain, and is imported only
    here.
    """
    if profile != "local" or file is None:
        return Clock()
    hooks = importlib.import_module("recoup_local.hooks")
    return Clock(now=hooks.open_clock(file))
