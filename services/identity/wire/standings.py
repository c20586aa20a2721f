"""Between the messages about earlier decisions and their model."""

from __future__ import annotations

from uuid import UUID

from recoup.identity.v1 import identity_service_pb2 as pb
from services.identity.model.standing import EarlierDecision, NowStanding
from services.identity.wire.members import limits


def earlier(message: pb.EarlierDecision) -> EarlierDecision:
    """A decision from the wire."""
    return EarlierDecision(message.actor, UUID(message.person_id), message.permission)


def standing(found: NowStanding) -> pb.Standing:
    """How somebody stands, for the wire."""
    return pb.Standing(
        state=pb.StandingState.Value(f"STANDING_STATE_{found.state}"),
        limits=limits(found.limits) if found.limits else None,
    )
