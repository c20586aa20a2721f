"""Whether the signer goes on with the log as it is in the database. Appends are refused while it doesn't.

What is appended to a log that the signer refuses is never proven, and each event more makes a recovery lose more: the
producers' outboxes keep the events instead. A process that took the log over asks before it appends anything.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from services._mesh.database import Database
from services._mesh.errors import Problem, Reason, Unavailable
from services._mesh.metrics import Metrics
from services.audit import store
from services.audit.model.merkle import peaks, root_of
from services.audit.model.signing import SignedHead

log = logging.getLogger(__name__)


class Standing:
    """What is known of it: in doubt at first. `database` is under the sequencer's role."""

    def __init__(
        self, database: Database, last_signed: Callable[[int], Awaitable[SignedHead]], metrics: Metrics | None = None
    ) -> None:
        self._database, self._last_signed = database, last_signed
        self._refusal: Problem | None = None
        self._trusted = False
        self._doubts = 0
        text = "1 while appends are refused, because the signer doesn't go on with the log."
        self._gauge = (metrics or Metrics()).gauge("recoup_log_appends_refused", text)

    @property
    def ready(self) -> bool:
        """Whether events may be appended, as far as is known."""
        return self._trusted

    @property
    def doubts(self) -> int:
        """How often the log was doubted: what was found out before the last time says nothing any more."""
        return self._doubts

    def doubt(self) -> None:
        """Append nothing until the signer was asked: the database may be another one than before."""
        self._trusted = False
        self._doubts += 1

    def refuse(self, why: str) -> None:
        """The signer doesn't go on: append nothing until it signs again."""
        if self._refusal is None:
            log.error("security: nothing is appended any more: %s", why)
        self._refusal, self._trusted = _refused(why), False
        self._gauge.set(1)

    def confirm(self, doubts: int) -> None:
        """The signer signed the log's head, as it was when it was doubted so often."""
        if doubts != self._doubts:
            return
        if self._refusal is not None:
            log.warning("the signer signs again: events are appended")
        self._refusal, self._trusted = None, True
        self._gauge.set(0)

    async def require(self) -> None:
        """Raises Unavailable (LOG_INCONSISTENT) while the signer refuses, and any Problem while it can't be told."""
        if self._trusted:
            return
        if self._refusal is None:
            doubts = self._doubts
            await self._look()
            if self._refusal is None:  # The signer may have refused meanwhile, and knows better.
                self.confirm(doubts)
        if self._refusal is not None:
            raise self._refusal

    async def ask(self) -> bool:
        """Find out whether events may be appended, as far as that can be told now."""
        try:
            await self.require()
        except Problem as problem:
            log.debug("the signer's word isn't known: %s", problem.reason_name)
        return self._trusted

    async def _look(self) -> None:
        """Hold the log against what the signer signed last. Raises Problem where it can't be told."""
        async with self._database.unscoped() as connection:
            shard, _ = await store.read_head(connection)
        # The signer first: whoever else still appends has the log grow meanwhile, never shrink.
        ahead, signed = await self._last_signed(shard + 1), await self._last_signed(shard)
        async with self._database.unscoped() as connection:
            now, size = await store.read_head(connection)
            hashes = await store.read_nodes(connection, shard, peaks(signed.size))
        whole = len(hashes) == len(peaks(signed.size))
        if now == shard and ahead.size:
            self._differs(f"the log is in shard {shard}, but shard {shard + 1} was signed")
        if now == shard and size < signed.size:
            self._differs(f"shard {shard} has {size} leaves, but {signed.size} were signed")
        if not whole or root_of([hashes[node] for node in peaks(signed.size)]) != signed.root:
            self._differs(f"shard {shard} isn't the one that was signed at size {signed.size}")
        if now != shard or (shard and size and not signed.size):
            # Whether the signer takes a shard's opening is told by its first signature alone.
            raise Unavailable(
                Reason.ERROR_REASON_CHECKPOINT_PENDING,
                "The shard's opening isn't signed yet. Try again in a moment.",
                {"index": "0"},
            )

    def _differs(self, why: str) -> None:
        self.refuse(why)
        assert self._refusal is not None
        raise self._refusal


def _refused(why: str) -> Unavailable:
    return Unavailable(
        Reason.ERROR_REASON_LOG_INCONSISTENT,
        f"The signer doesn't go on with this log, so nothing is appended: {why}",
    )
