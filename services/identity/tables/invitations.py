"""Invitations and ownerships, as SQLAlchemy Core sees them."""

from __future__ import annotations

from sqlalchemy import Column, DateTime, LargeBinary, Table, Text
from sqlalchemy.dialects.postgresql import UUID

from services.identity.tables import metadata

invitations = Table(
    "invitations",
    metadata,
    Column("organization_id", UUID(as_uuid=True), primary_key=True),
    Column("invitation_id", UUID(as_uuid=True), primary_key=True),
    Column("email", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("secret_digest", LargeBinary, nullable=False),
    Column("state", Text, nullable=False),
    Column("inviter", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Column("settled_at", DateTime(timezone=True)),
    Column("member_id", UUID(as_uuid=True)),
)

ownerships = Table(
    "ownerships",
    metadata,
    Column("organization_id", UUID(as_uuid=True), primary_key=True),
    Column("member_id", UUID(as_uuid=True), nullable=False),
    Column("since", DateTime(timezone=True), nullable=False),
)
