"""Makes refused calls observable without letting a flood of them become a flood of writes.

Refusals of the same kind are counted together and handed on once a window; none is dropped without a count. However
many kinds one organization's callers think of, they leave room for the others'. What was counted and not yet handed on
is lost with a process that is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
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
_LAST_FLUSH_SECONDS = 5.0
# One organization's callers may take so much of the room for kinds.
_SHARE = 8
# So many are handed on at once: the sink takes all of them or none.
_AT_ONCE = 100


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
    """Counts refusals by organization, actor, peer, RPC and reason.

    `sink` is set by the service that records them; it is given those of one organization at a time.
    """

    def __init__(self, clock: Clock, *, max_keys: int, window_seconds: float) -> None:
        self._clock = clock
        self._max_keys = max_keys
        self._window = window_seconds
        self._open: dict[Key, _Open] = {}
        self._kinds: dict[UUID | None, int] = {}
        self._full = asyncio.Event()
        self.sink: Sink | None = None

    def note(
        self, *, organization_id: UUID | None, actor: str, peer: str, rpc: str, reason: str, trace_id: str
    ) -> None:
        """Counts one refusal."""
        key = self._room((organization_id, actor, peer, rpc, reason))
        now = self._clock.now()
        entry = self._open.get(key)
        if entry is None:
            entry = self._open[key] = _Open(0, now, now, trace_id)
            self._kinds[key[0]] = self._kinds.get(key[0], 0) + 1
        entry.count += 1
        entry.last_at = now

    def _room(self, key: Key) -> Key:
        """The kind that a refusal is counted as: its own, its organization's others, or everybody's others."""
        if key in self._open:
            return key
        if len(self._open) >= self._max_keys:
            self._full.set()
            return (None, OTHERS, OTHERS, *key[3:])
        if self._kinds.get(key[0], 0) >= max(1, self._max_keys // _SHARE):
            return (key[0], OTHERS, OTHERS, *key[3:])
        return key

    async def flush(self) -> None:
        """Hands on what was counted, an organization at a time; what the sink fails to take is counted on."""
        if self.sink is None:
            return
        taken, self._open, self._kinds = self._open, {}, {}
        self._full.clear()
        for organization_id in dict.fromkeys(key[0] for key in taken):
            keys = [key for key in taken if key[0] == organization_id]
            for start in range(0, len(keys), _AT_ONCE):
                await self._hand_on({key: taken[key] for key in keys[start : start + _AT_ONCE]}, self.sink)

    async def _hand_on(self, taken: dict[Key, _Open], sink: Sink) -> None:
        try:
            await sink([Denial(*key, e.count, e.first_at, e.last_at, e.trace_id) for key, e in taken.items()])
        except asyncio.CancelledError:
            self._put_back(taken)
            raise
        except Exception:
            _log.exception("denials couldn't be recorded; they're counted on", extra={"kinds": len(taken)})
            self._put_back(taken)

    def _put_back(self, taken: dict[Key, _Open]) -> None:
        for key, entry in taken.items():
            newer = self._open.get(key)
            if newer is not None:
                newer.count += entry.count
                newer.first_at = entry.first_at
            elif len(self._open) < 2 * self._max_keys:
                self._open[key] = entry
                self._kinds[key[0]] = self._kinds.get(key[0], 0) + 1

    async def run(self) -> None:
        """Flushes once a window, or sooner when the ledger is full; ends by being cancelled, after a last flush."""
        try:
            await self._run()
        except asyncio.CancelledError:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST_FLUSH_SECONDS):
                    await self.flush()
            raise

    async def _run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._window):
                    await self._full.wait()
                await asyncio.sleep(_FLUSH_SECONDS)
            except TimeoutError:
                pass
            await self.flush()
