"""The signer's rule across shards: a new one is signed only when its first leaf commits to what was signed last."""

from __future__ import annotations

from dataclasses import dataclass

from services._mesh.errors import Reason, WrongState
from services.audit import usecases
from services.audit.model.notes import VerifierKey
from services.audit.model.openings import check_opening
from services.audit.model.shards import origin_of
from services.audit.model.signing import Inconsistent, OfferedHead
from services.audit.signer_memory import SignerMemory


@dataclass(frozen=True, slots=True)
class ShardSigner:
    """The log's name and keys, the signer's memory, and the offline root's key (None where there is none)."""

    name: str
    signer: usecases.NoteSigner
    memory: SignerMemory
    root_key: VerifierKey | None = None

    def sign(self, head: OfferedHead) -> str:
        """The signed note. Raises WrongState (LOG_INCONSISTENT), which says exactly where."""
        newest = self.memory.newest
        try:
            if head.shard < newest:
                raise Inconsistent(f"shard {head.shard} is closed: shard {newest} was opened after it")
            if head.shard > newest:
                self._check_new(head, newest)
            return self._signed(head)
        except Inconsistent as error:
            raise WrongState(
                Reason.ERROR_REASON_LOG_INCONSISTENT,
                f"Not signed: {error}.",
                {"signed_size": str(self.memory.of(newest).head.size), "size": str(head.size)},
            ) from error

    def _signed(self, head: OfferedHead) -> str:
        note = usecases.sign_checkpoint(
            self.signer,
            self.memory.of(head.shard),
            origin_of(self.name, head.shard),
            head.size,
            head.root,
            head.from_size,
            head.proof,
        )
        self.memory.settle()
        return note

    def _check_new(self, head: OfferedHead, newest: int) -> None:
        previous = self.memory.of(newest).head
        if head.shard != newest + 1 or not previous.size:
            raise Inconsistent(
                f"shard {head.shard} doesn't follow shard {newest}, of which size {previous.size} is signed"
            )
        if head.opening is None:
            raise Inconsistent(f"shard {head.shard} is new: its first leaf must be shown")
        check_opening(self.name, head.shard, previous, head.size, head.root, head.opening, self.root_key)
