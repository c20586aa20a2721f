"""Persons and their logins, as SQLAlchemy Core sees them."""

from __future__ import annotations

from sqlalchemy import Column, DateTime, Table, Text
from sqlalchemy.dialects.postgresql import UUID

from services.identity.tables import metadata

persons = Table(
    "persons",
    metadata,
    Column("organization_id", UUID(as_uuid=True), primary_key=True),
    Column("user_id", UUID(as_uuid=True), primary_key=True),
    Column("person_id", UUID(as_uuid=True), nullable=False),
    Column("linked_at", DateTime(timezone=True), nullable=False),
)

linked_identities = Table(
    "linked_identities",
    metadata,
    Column("organization_id", UUID(as_uuid=True), primary_key=True),
    Column("identity_id", UUID(as_uuid=True), primary_key=True),
    Column("kind", Text, nullable=False),
    Column("issuer", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("user_id", UUID(as_uuid=True), nullable=False),
    Column("state", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
)
