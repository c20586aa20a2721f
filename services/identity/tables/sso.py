"""Single sign-on, as SQLAlchemy Core sees it."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, DateTime, Integer, LargeBinary, Table, Text
from sqlalchemy.dialects.postgresql import ARRAY, UUID

from services.identity.tables import metadata


def _id(name: str, *, key: bool = False) -> Column[object]:
    return Column(name, UUID(as_uuid=True), primary_key=key, nullable=False)


def _moment(name: str, *, nullable: bool = False) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=nullable)


def _text(*names: str) -> list[Column[str]]:
    return [Column(name, Text, nullable=False) for name in names]


sso_providers = Table(
    "sso_providers",
    metadata,
    _id("organization_id", key=True),
    _id("provider_id", key=True),
    *_text("display_name", "state", "entity_id", "sso_url", "metadata_url", "email_attribute", "groups_attribute"),
    *_text("default_role"),
    Column("certificates", ARRAY(Text), nullable=False),
    Column("mfa_contexts", ARRAY(Text), nullable=False),
    Column("provider_initiated", Boolean, nullable=False),
    Column("session_minutes", Integer, nullable=False),
    Column("enforced", Boolean, nullable=False),
    Column("break_glass_member_id", UUID(as_uuid=True)),
    Column("config_version", BigInteger, nullable=False),
    Column("tested_version", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    _moment("created_at"),
    _moment("changed_at", nullable=True),
    Column("changed_by", UUID(as_uuid=True)),
    Column("confirmed_by", UUID(as_uuid=True)),
)

sso_group_roles = Table(
    "sso_group_roles",
    metadata,
    _id("organization_id", key=True),
    _id("mapping_id", key=True),
    _id("provider_id"),
    Column("place", Integer, nullable=False),
    *_text("group_name", "role"),
    Column("custom_role_id", UUID(as_uuid=True)),
    _id("granted_by"),
)

sso_domains = Table(
    "sso_domains",
    metadata,
    _id("organization_id", key=True),
    _id("domain_id", key=True),
    *_text("name", "challenge", "state"),
    _moment("verified_at", nullable=True),
    _moment("created_at"),
    _moment("missing_since", nullable=True),
)

sso_requests = Table(
    "sso_requests",
    metadata,
    _id("organization_id", key=True),
    Column("request_id", Text, primary_key=True),
    _id("provider_id"),
    Column("relay_sha256", LargeBinary, nullable=False),
    *_text("challenge", "return_to"),
    Column("test_id", UUID(as_uuid=True)),
    _moment("expires_at"),
    Column("browser_sha256", LargeBinary),
)

sso_assertions = Table(
    "sso_assertions",
    metadata,
    _id("organization_id", key=True),
    _id("provider_id", key=True),
    Column("assertion_sha256", LargeBinary, primary_key=True),
    _moment("expires_at"),
)

sso_tests = Table(
    "sso_tests",
    metadata,
    _id("organization_id", key=True),
    _id("test_id", key=True),
    _id("provider_id"),
    Column("config_version", BigInteger, nullable=False),
    *_text("state", "problem", "name_id", "email", "role"),
    Column("aal", Integer, nullable=False),
    Column("attribute_names", ARRAY(Text), nullable=False),
    _moment("expires_at"),
)

sso_codes = Table(
    "sso_codes",
    metadata,
    _id("organization_id", key=True),
    Column("code_sha256", LargeBinary, primary_key=True),
    _id("provider_id"),
    _id("user_id"),
    Column("aal", Integer, nullable=False),
    _moment("authenticated_at"),
    _moment("session_ends_at"),
    *_text("challenge"),
    _moment("expires_at"),
)

sso_sessions = Table(
    "sso_sessions",
    metadata,
    _id("organization_id", key=True),
    _id("session_id", key=True),
    Column("token_hash", LargeBinary, nullable=False),
    _id("provider_id"),
    _id("user_id"),
    Column("aal", Integer, nullable=False),
    _moment("authenticated_at"),
    _moment("expires_at"),
    _moment("ended_at", nullable=True),
)
