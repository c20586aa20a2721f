"""The allowed origins of organizations, as SQLAlchemy Core sees them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Table, Text
from sqlalchemy.dialects.postgresql import ARRAY, UUID

from services.identity.tables import metadata

allowed_origins = Table(
    "allowed_origins",
    metadata,
    Column("organization_id", UUID(as_uuid=True), primary_key=True),
    Column("origins", ARRAY(Text), nullable=False),
    Column("version", BigInteger, nullable=False),
)
