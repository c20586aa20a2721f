"""Between the messages of break-glass and its model."""

from __future__ import annotations

from datetime import datetime

from recoup.identity.v1 import elevation_service_pb2 as pb
from services._mesh.times import stamp
from services.identity.model.elevations import Elevation


def elevation(found: Elevation, now: datetime) -> pb.Elevation:
    """An elevation as it is read."""
    return pb.Elevation(
        elevation_id=str(found.elevation_id),
        organization_id=str(found.organization_id),
        holder=found.holder,
        holder_person=str(found.holder_person),
        permissions=found.permissions,
        reason=found.reason,
        state=pb.ElevationState.Value(f"ELEVATION_STATE_{found.state(now)}"),
        begins_at=stamp(found.begins_at),
        expires_at=stamp(found.expires_at),
        ended_at=stamp(found.ended_at),
        ended_by=found.ended_by,
        review_id=str(found.review_id),
    )


def state(message: pb.ElevationState.ValueType) -> str:
    """A state to list; empty for all."""
    return pb.ElevationState.Name(message).removeprefix("ELEVATION_STATE_") if message else ""
