"""The tables of identity, as SQLAlchemy Core sees them. The migrations are what makes them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, DateTime, MetaData, Table, Text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID

metadata = MetaData(schema="identity")

organizations = Table(
    "organizations",
    metadata,
    Column("organization_id", UUID(as_uuid=True), primary_key=True),
    Column("slug", Text, nullable=False),
    Column("display_name", Text, nullable=False),
    Column("time_zone", Text, nullable=False),
    Column("reporting_currency", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
)

members = Table(
    "members",
    metadata,
    Column("organization_id", UUID(as_uuid=True), primary_key=True),
    Column("member_id", UUID(as_uuid=True), primary_key=True),
    Column("user_id", UUID(as_uuid=True), nullable=False),
    Column("email", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("custom_role_id", UUID(as_uuid=True)),
    Column("connection_ids", ARRAY(UUID(as_uuid=True)), nullable=False),
    Column("resource_tags", JSONB, nullable=False),
    Column("approver_for", Text),
    Column("approver_since", DateTime(timezone=True)),
    Column("approver_by", UUID(as_uuid=True)),
    Column("confirmed_by", UUID(as_uuid=True)),
    Column("confirmed_at", DateTime(timezone=True)),
    Column("default_chosen_at", DateTime(timezone=True)),
)

roles = Table(
    "roles",
    metadata,
    Column("organization_id", UUID(as_uuid=True), primary_key=True),
    Column("role_id", UUID(as_uuid=True), primary_key=True),
    Column("name", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("permissions", ARRAY(Text), nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
)

# One row: the place of the feed's last entry. Its lock makes places follow the order of commits.
revocation_head = Table("revocation_head", metadata, Column("seq", BigInteger, nullable=False))

revocations = Table(
    "revocations",
    metadata,
    Column("seq", BigInteger, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("revoked_at", DateTime(timezone=True), nullable=False),
)
