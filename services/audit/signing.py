"""Signs a head that continues the one that was signed last, and no other. Loads no database: the signer has none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from services._mesh.errors import Reason, WrongState
from services._mesh.failpoints import reach
from services.audit.model.notes import TreeHead
from services.audit.model.signing import Inconsistent, SignedHead, check_continues
from services.audit.signer_state import SignerState


class NoteSigner(Protocol):
    """Whatever signs a checkpoint's text: one key, or the log's keys as a manifest lists them."""

    def sign(self, body: str, /) -> str:
        """The signed note."""


def sign_checkpoint(
    signer: NoteSigner, state: SignerState, origin: str, size: int, root: bytes, from_size: int, proof: Sequence[bytes]
) -> str:
    """Sign a head that continues the last one signed; remembered before the signature is given out.

    Raises WrongState (LOG_INCONSISTENT), which says exactly where.
    """
    try:
        check_continues(state.head, size, root, from_size, proof)
    except Inconsistent as error:
        raise WrongState(
            Reason.ERROR_REASON_LOG_INCONSISTENT,
            f"Not signed: {error}.",
            {"signed_size": str(state.head.size), "size": str(size)},
        ) from error
    if size == state.head.size and state.head.note:
        return state.head.note
    note = signer.sign(TreeHead(origin, size, root).text())
    reach("sign.signed")
    state.remember(SignedHead(size, root, note))
    reach("sign.remembered")
    return note
