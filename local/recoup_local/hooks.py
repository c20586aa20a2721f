"""What a process of the local profile imports from this wheel: the movable clock. Production images don't have it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from recoup_local.cloud.simclock import SimClock


def open_clock(file: Path) -> Callable[[], datetime]:
    """The movable clock behind `file`, as a function that says what time it is."""
    return SimClock(file).now
