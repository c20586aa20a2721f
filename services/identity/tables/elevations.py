"""Break-glass access and reviews, as SQLAlchemy Core sees them."""

from __future__ import annotations

from sqlalchemy import Column, DateTime, SmallInteger, Table, Text
from sqlalchemy.dialects.postgresql import ARRAY, UUID

from services.identity.tables import metadata

_Id = UUID(as_uuid=True)
_Moment = DateTime(timezone=True)

elevations = Table(
    "elevations",
    metadata,
    Column("organization_id", _Id, primary_key=True),
    Column("elevation_id", _Id, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("holder_person", _Id, nullable=False),
    Column("session_id", Text, nullable=False),
    Column("aal", SmallInteger, nullable=False),
    Column("permissions", ARRAY(Text), nullable=False),
    Column("reason", Text, nullable=False),
    Column("begins_at", _Moment, nullable=False),
    Column("expires_at", _Moment, nullable=False),
    Column("review_id", _Id, nullable=False),
    Column("ended_at", _Moment),
    Column("ended_by", Text),
)

reviews = Table(
    "reviews",
    metadata,
    Column("organization_id", _Id, primary_key=True),
    Column("review_id", _Id, primary_key=True),
    Column("elevation_id", _Id),
    Column("exception_id", _Id),
    Column("renewed_until", _Moment),
    Column("subject_person", _Id, nullable=False),
    Column("opened_at", _Moment, nullable=False),
    Column("due_at", _Moment, nullable=False),
    Column("verdict", Text),
    Column("note", Text),
    Column("reviewer", Text),
    Column("reviewer_person", _Id),
    Column("decided_at", _Moment),
)
