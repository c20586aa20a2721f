"""When members were seen last, as SQLAlchemy Core sees it."""

from __future__ import annotations

from sqlalchemy import Column, DateTime, SmallInteger, Table
from sqlalchemy.dialects.postgresql import UUID

from services.identity.tables import metadata

member_sightings = Table(
    "member_sightings",
    metadata,
    Column("organization_id", UUID(as_uuid=True), primary_key=True),
    Column("user_id", UUID(as_uuid=True), primary_key=True),
    Column("last_seen_at", DateTime(timezone=True), nullable=False),
    Column("last_aal", SmallInteger, nullable=False),
)
