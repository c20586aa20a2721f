"""Makes refused calls observable without letting a flood of them become a flood of writes.

Refusals of the same kind are counted together and handed on once a window; none is dropped without a count.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from services._mesh.clock import Clock

_log = logging.getLogger(__name__)
# Where there are more kinds of refusal than we keep, the rest is counted under this actor.
OTHERS = "others"
_FLUSH_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Denial:
    """Refusals of one kind within one window. `organization_id` is the caller's own, never the one they asked for."""

    organization_id: UUID | None
    actor: str
    peer: str
    rpc: str
    reason: str
    count: int
    first_at: datetime
    last_at: datetime
    trace_id: str


@dataclass(slots=True)
class _Open:
    count: int
    first_at: datetime
    last_at: datetime
    trace_id: str


Key = tuple[UUID | None, str, str, str, str]
Sink = Callable[[Sequence[Denial]], Awaitable[None]]


class DenialLedger:
    """Counts refusals by organization, actor, peer, RPC and reason. `sink` is set by the service that records them."""

    def __init__(self, clock: Clock, *, max_keys: int, window_seconds: float) -> None:
        self._clock = clock
        self._max_keys = max_keys
        self._window = window_seconds
        self._open: dict[Key, _Open] = {}
        self._full = asyncio.Event()
        self.sink: Sink | None = None

    def note(
        self, *, organization_id: UUID | None, actor: str, peer: str, rpc: str, reason: str, trace_id: str
    ) -> None:
        """Counts one refusal."""
        key: Key = (organization_id, actor, peer, rpc, reason)
        if key not in self._open and len(self._open) >= self._max_keys:
            key = (None, OTHERS, OTHERS, rpc, reason)
            self._full.set()
        now = self._clock.now()
        entry = self._open.setdefault(key, _Open(0, now, now, trace_id))
        entry.count += 1
        entry.last_at = now

    async def flush(self) -> None:
        """Hands on what was counted; what the sink fails to take is counted on."""
        taken, self._open = self._open, {}
        self._full.clear()
        if not taken or self.sink is None:
            return
        denials = [
            Denial(*key, entry.count, entry.first_at, entry.last_at, entry.trace_id) for key, entry in taken.items()
        ]
        try:
            await self.sink(denials)
        except Exception:
            _log.exception("denials couldn't be recorded; they're counted on", extra={"kinds": len(denials)})
            self._put_back(taken)

    def _put_back(self, taken: dict[Key, _Open]) -> None:
        for key, entry in taken.items():
            newer = self._open.get(key)
            if newer is not None:
                newer.count += entry.count
                newer.first_at = entry.first_at
            elif len(self._open) < 2 * self._max_keys:
                self._open[key] = entry

    async def run(self) -> None:
        """Flushes once a window, or sooner when the ledger is full; ends by being cancelled."""
        while True:
            try:
                async with asyncio.timeout(self._window):
                    await self._full.wait()
                await asyncio.sleep(_FLUSH_SECONDS)
            except TimeoutError:
                pass
            await self.flush()
