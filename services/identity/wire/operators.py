"""Operators' access between its messages and the model."""

from __future__ import annotations

from datetime import datetime

from recoup.identity.v1 import operator_service_pb2 as pb
from services._mesh.times import stamp
from services.identity.model.operators import OperatorAccess, state_at
from services.identity.wire.members import role_message


def operator_access(found: OperatorAccess, now: datetime) -> pb.OperatorAccess:
    """An access as it stands at `now`."""
    granted = found.state in ("GRANTED", "REVOKED")
    return pb.OperatorAccess(
        access_id=str(found.access_id),
        organization_id=str(found.organization_id),
        operator_id=str(found.operator_id),
        role=role_message(found.role),
        reason=found.reason,
        hours=found.hours,
        state=pb.OperatorAccessState.Value(f"OPERATOR_ACCESS_STATE_{state_at(found, now)}"),
        requested_at=stamp(found.requested_at),
        decided_at=None if found.decided_at is None else stamp(found.decided_at),
        decided_by=str(found.decided_by or ""),
        expires_at=stamp(found.expires_at) if granted else None,
    )
