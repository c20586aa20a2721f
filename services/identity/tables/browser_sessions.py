"""Browser sessions, as SQLAlchemy Core sees them."""

from __future__ import annotations

from sqlalchemy import Column, DateTime, LargeBinary, SmallInteger, Table, Text
from sqlalchemy.dialects.postgresql import UUID

from services.identity.tables import metadata

browser_sessions = Table(
    "browser_sessions",
    metadata,
    Column("organization_id", UUID(as_uuid=True), primary_key=True),
    Column("session_id", UUID(as_uuid=True), primary_key=True),
    Column("token_sha256", LargeBinary, nullable=False),
    Column("user_id", UUID(as_uuid=True), nullable=False),
    Column("login_id", Text, nullable=False),
    Column("provider_id", UUID(as_uuid=True)),
    Column("aal", SmallInteger, nullable=False),
    Column("authenticated_at", DateTime(timezone=True), nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Column("ended_at", DateTime(timezone=True)),
)

browser_session_uses = Table(
    "browser_session_uses",
    metadata,
    Column("organization_id", UUID(as_uuid=True), primary_key=True),
    Column("session_id", UUID(as_uuid=True), primary_key=True),
    Column("used_at", DateTime(timezone=True), nullable=False),
)
