"""Where several gateways keep the budgets that they share: a key-value bucket of NATS JetStream, in memory.

It holds, for each budget, the moment at which it is whole again. That is no truth: a bucket that is lost makes every
budget whole once, and nothing else.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import nats.errors
import nats.js.errors
from nats.js.api import KeyValueConfig, StorageType
from nats.js.kv import KeyValue

from services._mesh.clock import monotonic
from services._mesh.metrics import Metrics
from services._mesh.streams import Link

log = logging.getLogger(__name__)

NAME = "gateway-limits"
# A budget that nobody took from for so long is forgotten: by then it is whole, which the settings see to.
KEEP_SECONDS = 3600.0
# Of one answer of NATS, and, where there was none, until somebody asks again.
ANSWER_SECONDS, AGAIN_SECONDS = 0.25, 1.0
# The second is of one message, with its headers.
_MOST_BYTES, _MESSAGE_BYTES = 64 * 1024 * 1024, 512


def permissions() -> tuple[str, ...]:
    """The subjects that a gateway's user publishes to: this bucket's alone; it subscribes to its inbox."""
    stream = f"KV_{NAME}"
    return (
        f"$JS.API.STREAM.CREATE.{stream}",
        f"$JS.API.STREAM.INFO.{stream}",
        f"$JS.API.DIRECT.GET.{stream}.$KV.{NAME}.>",
        f"$KV.{NAME}.>",
    )


class Away(Exception):
    """The bucket can't be asked now."""


@dataclass(frozen=True, slots=True)
class Entry:
    """When a budget is whole again, in seconds since 1970 (0 where nobody took from it), and the revision that says
    so.
    """

    whole_at: float = 0.0
    revision: int = 0


class Bucket:
    """The bucket as one gateway sees it."""

    def __init__(self, link: Link, gateways: int, metrics: Metrics) -> None:
        self._link, self._gateways = link, gateways
        self._store: KeyValue | None = None
        self._away_until = 0.0
        self._is_shared: bool | None = None  # Not known until it was asked once.
        self._shared = metrics.gauge(
            "recoup_gateway_budgets_shared", "1 while budgets are shared with other gateways, 0 while they can't be."
        )
        self._trips = metrics.counter("recoup_gateway_budget_trips_total", "Questions to NATS about shared budgets.")

    def is_away(self) -> bool:
        """Whether it wasn't there a moment ago. After a second one caller is told no, and tries."""
        now = monotonic()
        if now < self._away_until:
            return True
        if self._away_until:
            self._away_until = now + AGAIN_SECONDS
        return False

    async def read(self, key: str) -> Entry:
        """What is there. Raises Away, TimeoutError or an error of NATS."""
        self._trips.add()
        try:
            found = await (await self._there()).get(key)
        except nats.js.errors.KeyNotFoundError:
            return Entry()
        return Entry(_moment(found.value or b""), found.revision or 0)

    async def write(self, key: str, whole_at: float, revision: int) -> Entry | None:
        """Write over that revision; None where another gateway was first. Raises as `read` does."""
        self._trips.add()
        try:
            written = await (await self._there()).update(key, repr(whole_at).encode(), last=revision)
        except nats.js.errors.KeyWrongLastSequenceError:
            return None
        return Entry(whole_at, written)

    async def _there(self) -> KeyValue:
        if not self._link.is_connected():
            raise Away("it isn't connected")
        if self._store is None:
            context = self._link.client.jetstream(timeout=ANSWER_SECONDS)
            config = KeyValueConfig(
                NAME,
                ttl=KEEP_SECONDS,
                storage=StorageType.MEMORY,
                max_bytes=_MOST_BYTES,
                max_value_size=_MESSAGE_BYTES,
                direct=True,
            )
            self._store = await context.create_key_value(config)
        return self._store

    def lost(self, error: Exception) -> None:
        """It didn't answer: each gateway keeps to its own share meanwhile, and says so once."""
        self._store = None  # A stream that was lost is made anew.
        self._away_until = monotonic() + AGAIN_SECONDS
        self._shared.set(0)
        if self._is_shared is not False:
            log.warning(
                "budgets can't be shared (NATS: %s): this gateway keeps to 1/%d of each until they can",
                str(error) or type(error).__name__,
                self._gateways,
            )
        self._is_shared = False

    def found(self) -> None:
        """It answered."""
        self._away_until = 0.0
        if not self._is_shared:
            self._is_shared = True
            self._shared.set(1)
            log.info("budgets are shared with the other gateways")


def _moment(value: bytes) -> float:
    """A moment as it was written; what is none counts as a budget that nobody took from."""
    try:
        found = float(value)
    except ValueError:
        return 0.0
    return found if math.isfinite(found) else 0.0
