"""Who is in a TLS handshake, and how many at a time: in all, of one address, and for how long.

Until it is over, nobody has asked anything and nothing else counts them. Who connects and says nothing, or a byte now
and then, costs an open file and its memory, and isn't to keep others out.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from services._mesh.clock import monotonic
from services.gateway.config import EdgeSettings
from services.gateway.watching import Watch

# Whoever had this part of their time makes room for somebody new. Before, they may be waiting for us: under load those
# who came first are served, and not none because others come.
_PATIENT_PART = 4


class Handshakes:
    """Those that are under way. Each is a task, in the order in which they began."""

    def __init__(self, settings: EdgeSettings, watch: Watch) -> None:
        self._settings, self._watch = settings, watch
        self._begun: dict[asyncio.Task[Any], tuple[str, float]] = {}
        self._of: Counter[str] = Counter()

    def has_room(self, place: str) -> bool:
        """Whether one more of that place may begin. Where there are too many in all, the oldest ends for it, if it
        had its time.
        """
        if self._of[place] >= self._settings.address_handshakes:
            self._watch.refuse("address_handshakes")
            return False
        if len(self._begun) < self._settings.handshakes:
            return True
        self._watch.refuse("handshakes")
        oldest, (_, began) = next(iter(self._begun.items()))
        if monotonic() - began < self._settings.handshake_seconds / _PATIENT_PART:
            return False
        oldest.cancel()
        self._over(oldest)
        return True

    def begin(self, place: str, task: asyncio.Task[Any]) -> None:
        """Count one, until the task has ended."""
        self._begun[task] = place, monotonic()
        self._of[place] += 1
        self._watch.handshakes.set(len(self._begun))
        task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[Any]) -> None:
        found = self._begun.pop(task, None)
        if found is None:
            return
        self._of[found[0]] -= 1
        if not self._of[found[0]]:
            del self._of[found[0]]
        self._watch.handshakes.set(len(self._begun))

    def __len__(self) -> int:
        return len(self._begun)
