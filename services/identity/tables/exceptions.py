"""Exceptions and due dates, as SQLAlchemy Core sees them."""

from __future__ import annotations

from sqlalchemy import Column, DateTime, Table, Text
from sqlalchemy.dialects.postgresql import ARRAY, UUID

from services.identity.tables import metadata

_Id = UUID(as_uuid=True)
_Moment = DateTime(timezone=True)

exceptions = Table(
    "exceptions",
    metadata,
    Column("organization_id", _Id, primary_key=True),
    Column("exception_id", _Id, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("about", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("owner_person", _Id, nullable=False),
    Column("reviewers", ARRAY(_Id), nullable=False),
    Column("created_at", _Moment, nullable=False),
    Column("term_begins_at", _Moment, nullable=False),
    Column("notice_at", _Moment, nullable=False),
    Column("expires_at", _Moment, nullable=False),
    Column("ended_at", _Moment),
    Column("ended_by", Text),
)

due_items = Table(
    "due_items",
    metadata,
    Column("organization_id", _Id, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("subject_id", _Id, primary_key=True),
    Column("due_at", _Moment, primary_key=True),
)
