"""Service accounts and API tokens, as SQLAlchemy Core sees them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, DateTime, LargeBinary, Table, Text
from sqlalchemy.dialects.postgresql import ARRAY, UUID

from services.identity.tables import metadata

service_accounts = Table(
    "service_accounts",
    metadata,
    Column("organization_id", UUID(as_uuid=True), primary_key=True),
    Column("service_account_id", UUID(as_uuid=True), primary_key=True),
    Column("display_name", Text, nullable=False),
    Column("owner_user_id", UUID(as_uuid=True), nullable=False),
    Column("state", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
)

api_tokens = Table(
    "api_tokens",
    metadata,
    Column("organization_id", UUID(as_uuid=True), primary_key=True),
    Column("token_id", UUID(as_uuid=True), primary_key=True),
    Column("service_account_id", UUID(as_uuid=True)),
    Column("creator_user_id", UUID(as_uuid=True), nullable=False),
    Column("display_name", Text, nullable=False),
    Column("secret_sha256", LargeBinary, nullable=False),
    Column("hint", Text, nullable=False),
    Column("permissions", ARRAY(Text), nullable=False),
    Column("connection_ids", ARRAY(UUID(as_uuid=True)), nullable=False),
    Column("state", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Column("replaced_by", UUID(as_uuid=True)),
)

api_token_uses = Table(
    "api_token_uses",
    metadata,
    Column("organization_id", UUID(as_uuid=True), primary_key=True),
    Column("token_id", UUID(as_uuid=True), primary_key=True),
    Column("last_used_at", DateTime(timezone=True), nullable=False),
)
