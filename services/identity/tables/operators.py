"""Operators' access to organizations, and the installation's own row, as SQLAlchemy Core sees them."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, DateTime, Integer, LargeBinary, Table, Text
from sqlalchemy.dialects.postgresql import ARRAY, UUID

from services.identity.tables import metadata

operator_accesses = Table(
    "operator_accesses",
    metadata,
    Column("organization_id", UUID(as_uuid=True), primary_key=True),
    Column("access_id", UUID(as_uuid=True), primary_key=True),
    Column("operator_id", UUID(as_uuid=True), nullable=False),
    Column("role", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("hours", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("requested_at", DateTime(timezone=True), nullable=False),
    Column("decided_at", DateTime(timezone=True)),
    Column("decided_by", UUID(as_uuid=True)),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Column("decided_as", Text),
    Column("deciders", ARRAY(UUID(as_uuid=True)), nullable=False),
)

operator_entries = Table(
    "operator_entries",
    metadata,
    Column("organization_id", UUID(as_uuid=True), primary_key=True),
    Column("access_id", UUID(as_uuid=True), primary_key=True),
    Column("session_id", Text, primary_key=True),
    Column("entered_at", DateTime(timezone=True), nullable=False),
)

installation = Table(
    "installation",
    metadata,
    Column("singleton", Boolean, primary_key=True),
    Column("token_sha256", LargeBinary, nullable=False),
    Column("token_expires_at", DateTime(timezone=True), nullable=False),
)
