"""The signer's rule across shards: a new one is signed only when its first leaf commits to what was signed last.

Without the root's word that is only at a year's turn, by the signer's own clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from services._mesh.clock import Clock
from services._mesh.errors import Reason, WrongState
from services.audit.model.notes import VerifierKey
from services.audit.model.openings import RECOVERY, YEARLY, check_opening
from services.audit.model.shards import origin_of
from services.audit.model.signing import Inconsistent, OfferedHead
from services.audit.signer_memory import SignerMemory
from services.audit.signing import NoteSigner, sign_checkpoint

# The sequencer's clock may be so much ahead of the signer's.
CLOCK_SKEW = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class ShardSigner:
    """The log's name and keys, the signer's memory, the offline root's key (None: there is none), and its clock."""

    name: str
    signer: NoteSigner
    memory: SignerMemory
    root_key: VerifierKey | None = None
    clock: Clock = field(default_factory=Clock)

    def sign(self, head: OfferedHead) -> str:
        """The signed note. Raises WrongState (LOG_INCONSISTENT), which says exactly where."""
        newest = self.memory.newest
        try:
            if head.shard < newest:
                raise Inconsistent(f"shard {head.shard} is closed: shard {newest} was opened after it")
            opened = self._check_new(head, newest) if head.shard > newest else self._year()
            return self._signed(head, opened)
        except Inconsistent as error:
            raise WrongState(
                Reason.ERROR_REASON_LOG_INCONSISTENT,
                f"Not signed: {error}.",
                {"signed_size": str(self.memory.of(newest).head.size), "size": str(head.size)},
            ) from error

    def _signed(self, head: OfferedHead, opened: int) -> str:
        state = self.memory.of(head.shard)
        if not state.head.size and (head.shard or not state.opened):
            state.opened = opened
        note = sign_checkpoint(
            self.signer,
            state,
            origin_of(self.name, head.shard),
            head.size,
            head.root,
            head.from_size,
            head.proof,
        )
        self.memory.settle()
        return note

    def _year(self) -> int:
        """The year by our own clock, which nobody sets who has the database; the sequencer's may be a little ahead."""
        return (self.clock.now() + CLOCK_SKEW).year

    def _check_new(self, head: OfferedHead, newest: int) -> int:
        """Raises Inconsistent unless the shard may be opened; the year in which it was."""
        previous = self.memory.of(newest).head
        if head.shard != newest + 1 or not previous.size:
            raise Inconsistent(
                f"shard {head.shard} doesn't follow shard {newest}, of which size {previous.size} is signed"
            )
        if head.opening is None:
            raise Inconsistent(f"shard {head.shard} is new: its first leaf must be shown")
        kind, said = check_opening(self.name, head.shard, previous, head.size, head.root, head.opening, self.root_key)
        opened, year = self.memory.of(newest).opened, self._year()
        if kind == YEARLY and year <= opened:
            raise Inconsistent(
                f"shard {newest} was opened in {opened}, and its year isn't over:"
                " another one is a recovery, which the root authorises"
            )
        # A recovery that was opened before the year's turn, and signed after it, is closed at the next one.
        return min(said, year) if kind == RECOVERY else year
