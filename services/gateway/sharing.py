"""Budgets that several gateways spend together. Each leases a slice at a time, so that a call mostly asks nobody.

What is leased and not spent within `LEASE_SECONDS` is lost: so in any time, all gateways together let through no more
than the budget, and what it gains in `LEASE_SECONDS`. A gateway that dies takes no more than its lease with it. Where
the bucket doesn't answer, each keeps to its own share: 1/gateways of every budget, which together is the budget.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil

import nats.errors

from services._mesh.clock import monotonic
from services.gateway.bucket import KEEP_SECONDS, Away, Bucket, Entry
from services.gateway.ratelimit import Limiter, Verdict

LEASE_SECONDS = 1.0
# What one call waits at most until it has its verdict.
_PATIENCE_SECONDS = 0.25
_TRIES = 10
# A moment since 1970 is a float that is no finer than a quarter of this.
_GRAIN_SECONDS = 1e-6
_KEYS = 20_000


@dataclass(slots=True)
class _Lease:
    """What this gateway holds of one budget. Moments are those of the monotonic clock."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    known: Entry | None = None
    size: int = 0
    left: int = 0
    taken_at: float = 0.0
    spent_at: float = 0.0
    # The budget beyond what is leased, when it was looked at.
    room: int = 0
    nothing_until: float = 0.0


class SharedLimiter:
    """The same as a `Limiter` of `rate` and `burst`, for all gateways together; `name` sets its keys apart."""

    def __init__(
        self,
        bucket: Bucket,
        name: str,
        rate: float,
        burst: int,
        gateways: int,
        wall: Callable[[], float],
        clock: Callable[[], float] = monotonic,
        keys: int = _KEYS,
    ) -> None:
        self._bucket, self._name, self._wall, self._clock, self._keys = bucket, name, wall, clock, keys
        self._interval, self._burst, self._window = 1.0 / rate, burst, burst / rate
        self._most = max(1, min(burst // 4, ceil(rate * LEASE_SECONDS)))
        self._own_share = Limiter(rate / gateways, max(1, burst // gateways), clock)
        self._leases: OrderedDict[str, _Lease] = OrderedDict()

    async def take(self, key: str) -> Verdict:
        """Count a call, if it may go on."""
        # Counted at all times: who spent this gateway's share already has none of it left when the bucket goes away.
        own = self._own_share.take(key)
        lease = self._lease(key)
        if not self._holds(lease):
            if self._bucket.is_away():
                return own
            try:
                async with asyncio.timeout(_PATIENCE_SECONDS), lease.lock:
                    if not self._holds(lease):
                        await self._renew(self._name_of(key), lease)
            except (Away, OSError, TimeoutError, nats.errors.Error) as error:
                self._bucket.lost(error)
                return own
            self._bucket.found()
        return self._spend(lease)

    def _lease(self, key: str) -> _Lease:
        """The lease of a key. One that is forgotten is lost, as if it had run out."""
        lease = self._leases.get(key)
        if lease is None:
            if len(self._leases) >= self._keys:
                self._leases.popitem(last=False)
            lease = self._leases[key] = _Lease()
        self._leases.move_to_end(key)
        return lease

    def _holds(self, lease: _Lease) -> bool:
        """Whether it says yes or no without anybody being asked: nothing makes a budget larger but time."""
        now = self._clock()
        return now < lease.nothing_until or (lease.left > 0 and now < lease.taken_at + LEASE_SECONDS)

    async def _renew(self, key: str, lease: _Lease) -> None:
        """Lease more, as much as lately was spent in the time of a lease. Nobody else may have written meanwhile."""
        size, lease.left = self._wanted(lease), 0
        entry = lease.known
        for _ in range(_TRIES):
            entry = entry or await self._bucket.read(key)
            now = self._wall()
            whole_at = entry.whole_at if entry.whole_at <= now + KEEP_SECONDS else 0.0  # Later is nobody's budget.
            before = max(whole_at, now)
            room = int((now + self._window - before + _GRAIN_SECONDS) / self._interval)
            if room <= 0:
                lease.known, lease.room = entry, 0
                lease.nothing_until = self._clock() + before + self._interval - now - self._window
                return
            count = min(size, room)
            whole_at = round(before + count * self._interval, 6)
            entry = await self._bucket.write(key, whole_at, entry.revision)
            if entry is not None:
                lease.known, lease.size, lease.left, lease.room = entry, count, count, room - count
                lease.taken_at = lease.spent_at = self._clock()
                return
        raise Away("too many gateways write at once")

    def _wanted(self, lease: _Lease) -> int:
        """How many were spent in the time of a lease: at most twice as many as last time, so that little is lost."""
        if lease.left:
            wanted = lease.size - lease.left
        else:
            took = max(lease.spent_at - lease.taken_at, LEASE_SECONDS / 2)
            wanted = ceil(lease.size * LEASE_SECONDS / took)
        return max(1, min(wanted, self._most))

    def _spend(self, lease: _Lease) -> Verdict:
        now = self._clock()
        if lease.left <= 0:
            wait = max(0.0, lease.nothing_until - now)
            return Verdict(False, self._burst, self._window, 0, wait, wait + self._window - self._interval)
        lease.left -= 1
        lease.spent_at = now
        whole_in = max(0.0, (lease.known.whole_at if lease.known else 0.0) - self._wall())
        return Verdict(True, self._burst, self._window, lease.left + lease.room, 0.0, whole_in)

    def _name_of(self, key: str) -> str:
        """What the bucket has for it: of one length, and naming nobody."""
        return f"{self._name}.{hashlib.sha256(key.encode()).hexdigest()[:40]}"
