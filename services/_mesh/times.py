"""Moments between Python and protobuf: aware UTC datetimes on one side, Timestamps on the other."""

from __future__ import annotations

from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp


def stamp(moment: datetime | None) -> Timestamp | None:
    """The Timestamp of a moment; None stays None, so that the field is absent."""
    if moment is None:
        return None
    made = Timestamp()
    made.FromDatetime(moment)
    return made


def stamp_seconds(seconds: int) -> Timestamp:
    """The Timestamp of whole seconds since 1970."""
    return Timestamp(seconds=seconds)


def moment(stamped: Timestamp) -> datetime:
    """The moment of a Timestamp."""
    return stamped.ToDatetime(UTC)
