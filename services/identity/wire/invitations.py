"""Between the messages about invitations and the model."""

from __future__ import annotations

from datetime import datetime

from recoup.identity.v1 import invitation_service_pb2 as pb
from services._mesh.times import stamp
from services.identity.model.invitations import Invitation
from services.identity.wire.members import role_message


def invitation(found: Invitation, now: datetime) -> pb.Invitation:
    """An invitation as it is read at a moment."""
    return pb.Invitation(
        invitation_id=str(found.invitation_id),
        organization_id=str(found.organization_id),
        email=found.email,
        role=role_message(found.role),
        state=pb.InvitationState.Value(f"INVITATION_STATE_{found.state_at(now)}"),
        inviter=found.inviter,
        created_at=stamp(found.created_at),
        expires_at=stamp(found.expires_at),
        settled_at=stamp(found.settled_at) if found.settled_at else None,
        member_id=str(found.member_id or ""),
    )
