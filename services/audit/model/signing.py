"""What the signer remembers and what it refuses: the rule that a signed head is continued, never replaced. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.audit.model.merkle import EMPTY_ROOT, ProofInvalid, verify_consistency


@dataclass(frozen=True, slots=True)
class SignedHead:
    """The last head that was signed; size 0 for none yet."""

    size: int = 0
    root: bytes = EMPTY_ROOT
    note: str = ""


@dataclass(frozen=True, slots=True)
class Opening:
    """The first leaf of a shard, disclosed, with its inclusion proof in the head that is to be signed."""

    leaf: bytes
    payload: bytes
    salt: bytes
    proof: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class OfferedHead:
    """A head that the signer is asked to sign. `opening` is needed for the first one of a new shard."""

    shard: int
    size: int
    root: bytes
    from_size: int
    proof: Sequence[bytes]
    opening: Opening | None = None


class Inconsistent(Exception):
    """The head offered doesn't continue the one that was signed; says exactly where."""


def check_continues(signed: SignedHead, size: int, root: bytes, from_size: int, proof: Sequence[bytes]) -> None:
    """Raise Inconsistent unless the offered head continues the signed one."""
    if from_size != signed.size:
        raise Inconsistent(f"the proof starts at size {from_size}, but size {signed.size} was signed last")
    if size < signed.size:
        raise Inconsistent(f"size {size} is older than size {signed.size}, which was signed: an older log was put back")
    if signed.size == 0:
        if proof:
            raise Inconsistent("the first head needs no proof")
        return
    try:
        verify_consistency(signed.size, size, signed.root, root, proof)
    except ProofInvalid as error:
        raise Inconsistent(
            f"the tree of size {size} doesn't continue the signed one of {signed.size}: {error}"
        ) from error
