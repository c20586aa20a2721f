"""What a directory provisions, as SQLAlchemy Core sees it."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, DateTime, Integer, LargeBinary, Table, Text
from sqlalchemy.dialects.postgresql import JSONB, UUID

from services.identity.tables import metadata

scim_tokens = Table(
    "scim_tokens",
    metadata,
    Column("organization_id", UUID(as_uuid=True), primary_key=True),
    Column("token_id", UUID(as_uuid=True), primary_key=True),
    Column("name", Text, nullable=False),
    Column("token_sha256", LargeBinary, nullable=False),
    Column("created_by", UUID(as_uuid=True), nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Column("revoked_at", DateTime(timezone=True)),
)

scim_token_uses = Table(
    "scim_token_uses",
    metadata,
    Column("organization_id", UUID(as_uuid=True), primary_key=True),
    Column("token_id", UUID(as_uuid=True), primary_key=True),
    Column("used_at", DateTime(timezone=True), nullable=False),
    Column("wrote_at", DateTime(timezone=True)),
)

scim_users = Table(
    "scim_users",
    metadata,
    Column("organization_id", UUID(as_uuid=True), primary_key=True),
    Column("scim_id", UUID(as_uuid=True), primary_key=True),
    Column("user_name", Text, nullable=False),
    Column("user_name_key", Text, nullable=False),
    Column("external_id", Text, nullable=False),
    Column("display_name_key", Text, nullable=False),
    Column("email_key", Text, nullable=False),
    Column("active", Boolean, nullable=False),
    Column("document", JSONB, nullable=False),
    Column("user_id", UUID(as_uuid=True)),
    Column("version", BigInteger, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("modified_at", DateTime(timezone=True), nullable=False),
    Column("deleted_at", DateTime(timezone=True)),
)

scim_groups = Table(
    "scim_groups",
    metadata,
    Column("organization_id", UUID(as_uuid=True), primary_key=True),
    Column("group_id", UUID(as_uuid=True), primary_key=True),
    Column("display_name", Text, nullable=False),
    Column("display_name_key", Text, nullable=False),
    Column("external_id", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("modified_at", DateTime(timezone=True), nullable=False),
    Column("deleted_at", DateTime(timezone=True)),
)

scim_group_members = Table(
    "scim_group_members",
    metadata,
    Column("organization_id", UUID(as_uuid=True), primary_key=True),
    Column("group_id", UUID(as_uuid=True), primary_key=True),
    Column("scim_id", UUID(as_uuid=True), primary_key=True),
)

scim_roles = Table(
    "scim_roles",
    metadata,
    Column("organization_id", UUID(as_uuid=True), primary_key=True),
    Column("mapping_id", UUID(as_uuid=True), primary_key=True),
    Column("place", Integer, nullable=False),
    Column("group_name", Text, nullable=False),
    Column("group_name_key", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("custom_role_id", UUID(as_uuid=True)),
)
