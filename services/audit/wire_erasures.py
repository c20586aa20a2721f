"""Between the messages of erasures and their model."""

from __future__ import annotations

from recoup.audit.v1 import erasure_service_pb2 as pb
from services._mesh.times import stamp
from services.audit.model.erasures import Erasure, ErasureState, LegalHold

_STATES = {
    ErasureState.REQUESTED: pb.ERASURE_STATE_REQUESTED,
    ErasureState.APPROVED: pb.ERASURE_STATE_APPROVED,
    ErasureState.REJECTED: pb.ERASURE_STATE_REJECTED,
    ErasureState.DONE: pb.ERASURE_STATE_DONE,
}


def erasure(found: Erasure) -> pb.Erasure:
    """An erasure."""
    return pb.Erasure(
        erasure_id=str(found.erasure_id),
        subject_hash=found.subject_hash.hex(),
        reason=found.reason,
        state=_STATES[found.state],
        requester_hash=found.requester_hash.hex(),
        requested_at=stamp(found.requested_at),
        decider_hash=found.decider_hash.hex() if found.decider_hash else "",
        decided_at=stamp(found.decided_at) if found.decided_at else None,
        comment=found.comment,
        done_at=stamp(found.done_at) if found.done_at else None,
        keys_destroyed=found.keys_destroyed,
        events_erased=found.events_erased,
        held=found.held,
    )


def legal_hold(found: LegalHold) -> pb.LegalHold:
    """A legal hold."""
    return pb.LegalHold(
        hold_id=str(found.hold_id),
        subject_hash=found.subject_hash.hex() if found.subject_hash else "",
        reason=found.reason,
        placer_hash=found.placer_hash.hex(),
        placed_at=stamp(found.placed_at),
        releaser_hash=found.releaser_hash.hex() if found.releaser_hash else "",
        released_at=stamp(found.released_at) if found.released_at else None,
        release_reason=found.release_reason,
    )
