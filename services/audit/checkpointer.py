"""Has the tree's head signed on a fixed cadence, and keeps each signed checkpoint.

It proves to the signer that the head continues what the signer signed last; what the signer refuses stays unsigned,
and everything that needs a checkpoint fails closed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from services._mesh.clock import Clock
from services._mesh.database import Database
from services._mesh.errors import Problem, Reason, WrongState
from services._mesh.failpoints import reach
from services.audit import store
from services.audit.model.events import Checkpoint
from services.audit.model.merkle import consistency_ranges, hash_ranges, inclusion_ranges, peaks, root_of
from services.audit.model.shards import place_of
from services.audit.model.signing import OfferedHead, Opening, SignedHead
from services.audit.sequencer import Sequencer
from services.audit.standing import Standing

log = logging.getLogger(__name__)

# Signs a head of a shard; raises Problem when refused.
Sign = Callable[[OfferedHead], Awaitable[str]]
# What was signed last of a shard.
LastSigned = Callable[[int], Awaitable[SignedHead]]
Refused = Callable[[int, int, SignedHead], Awaitable[None]]
Behind = Callable[[int, SignedHead, int], None]
# The first leaf of a shard, with the proof that is given.
Shown = Callable[[int, Sequence[bytes]], Awaitable[Opening]]


class Checkpointer:
    """The checkpoint task of the audit process."""

    def __init__(
        self,
        database: Database,
        sequencer: Sequencer,
        clock: Clock,
        sign: Sign,
        last_signed: LastSigned,
        seconds: float,
        shown: Shown,
    ) -> None:
        self._database, self._sequencer, self._clock = database, sequencer, clock
        self._sign, self._last_signed, self._seconds, self._shown = sign, last_signed, seconds, shown
        # One head after the other: a smaller one must never be offered after a larger one.
        self._one = asyncio.Lock()
        self._signed_place = 0
        self._signed = asyncio.Condition()
        self.refusals = 0
        # Told whether the signer goes on with the log, so that the sequencer appends nothing while it doesn't.
        self.standing: Standing | None = None
        # Told of a head that the signer refuses: shard, size, what was signed last.
        self.refused: Refused | None = None
        # Told of a shard of which the signer knows less than it signed: shard, what it knows, the size that was signed.
        self.behind: Behind | None = None
        self._known: dict[int, int] = {}
        # Raises Problem while no head may be offered to the signer at all.
        self.require: Callable[[], Awaitable[None]] | None = None

    async def wait_for(self, place: int) -> None:
        """Wait until a checkpoint covers the leaf at `place`."""
        async with self._signed:
            await self._signed.wait_for(lambda: self._signed_place > place)

    async def catch_up(self) -> None:
        """Wait until a checkpoint covers all that the log has now."""
        async with self._database.unscoped() as connection:
            shard, size = await store.read_head(connection)
        if size:
            await self.wait_for(place_of(shard, size) - 1)

    @property
    def signed_place(self) -> int:
        """The place of the newest checkpoint's size; 0 before the first of this process."""
        return self._signed_place

    async def run(self) -> None:
        """Sign until cancelled, at most every `seconds`, when the log has grown."""
        while True:
            await self._sequencer.grown.wait()
            self._sequencer.grown.clear()
            try:
                if self.standing is not None and not await self.standing.ask():
                    self._sequencer.grown.set()  # There may be nothing to sign: it is asked again.
                await self.sign_now()
            except asyncio.CancelledError:
                raise
            except Exception as error:
                self.refusals += 1
                log.error("the head couldn't be signed: %s", error)
                self._sequencer.grown.set()
            await asyncio.sleep(self._seconds)

    async def sign_now(self) -> None:
        """Have the durable head signed, and keep the checkpoint."""
        async with self._one:
            async with self._database.unscoped() as connection:
                shard, size = await store.read_head(connection)
            if size:
                await self._sign_head(shard, size)

    async def sign_last(self, shard: int) -> SignedHead:
        """Have the last head of a closed shard signed, and keep the checkpoint. Raises Problem."""
        async with self._one:
            async with self._database.unscoped() as connection:
                size = await store.read_closed_size(connection, shard)
            await self._sign_head(shard, size)
            return await self._last_signed(shard)

    async def _sign_head(self, shard: int, size: int) -> None:
        doubts = self.standing.doubts if self.standing is not None else 0
        await self._require()
        known = await self._known_size(shard)  # Before the signer is asked: another process may have it sign meanwhile.
        signed, opening = await self._last_signed(shard), None
        self._require_memory(shard, signed, known)
        async with self._database.unscoped() as connection:
            hashes = await store.read_nodes(connection, shard, peaks(size))
            root = root_of([hashes[node] for node in peaks(size)])
            proof: list[bytes] = []
            if 0 < signed.size < size:
                ranges = consistency_ranges(signed.size, size)
                proof = hash_ranges(ranges, await store.read_ranges(connection, shard, ranges))
            if shard and not signed.size:
                ranges = inclusion_ranges(0, size)
                first = hash_ranges(ranges, await store.read_ranges(connection, shard, ranges))
                opening = await self._shown(shard, first)
        try:
            note = await self._sign(OfferedHead(shard, size, root, signed.size, proof, opening))
        except Problem as problem:
            await self._told(problem, shard, size, signed)
            raise
        reach("checkpoint.signed")
        async with self._database.unscoped() as connection:
            await store.insert_checkpoint(connection, Checkpoint(shard, size, root, note, self._clock.wall_now()))
        self._known = {shard: size}
        async with self._signed:
            self._signed_place = place_of(shard, size)
            self._signed.notify_all()
        if self.standing is not None:
            self.standing.confirm(doubts)

    async def _require(self) -> None:
        if self.require is None:
            return
        try:
            await self.require()
        except Problem as problem:
            if problem.reason == Reason.ERROR_REASON_LOG_INCONSISTENT and self.standing is not None:
                self.standing.refuse(problem.message)
            raise

    async def _known_size(self, shard: int) -> int:
        """The largest size of a shard that was signed, as far as was seen or is kept."""
        async with self._database.unscoped() as connection:
            stored = await store.find_checkpoint(connection, shard)
        return max(self._known.get(shard, 0), stored.size if stored else 0)

    def _require_memory(self, shard: int, signed: SignedHead, known: int) -> None:
        """Raises WrongState where the signer says that it signed less than it did: its memory was put back."""
        if signed.size >= known:
            return
        why = f"The signer says that it signed size {signed.size} of shard {shard} last, but it signed {known}"
        if self.behind is not None:
            self.behind(shard, signed, known)
        if self.standing is not None:
            self.standing.refuse(why)
        raise WrongState(
            Reason.ERROR_REASON_LOG_INCONSISTENT,
            f"{why}: its memory was put back.",
            {"signed_size": str(signed.size), "size": str(known)},
        )

    async def _told(self, problem: Problem, shard: int, size: int, signed: SignedHead) -> None:
        """Tell of a refusal, unless the signer merely signed something else of this log in between."""
        if problem.reason != Reason.ERROR_REASON_LOG_INCONSISTENT or await self._last_signed(shard) != signed:
            return
        if self.standing is not None:  # Before the place is looked for, which takes its time.
            self.standing.refuse(problem.message)
        if self.refused is not None:
            await self.refused(shard, size, signed)
