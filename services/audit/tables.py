"""The tables of the log that are read through SQLAlchemy Core. The migrations are what makes them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, DateTime, LargeBinary, MetaData, SmallInteger, Table, Text
from sqlalchemy.dialects.postgresql import ARRAY, UUID

metadata = MetaData(schema="audit")

# `idx` is a place in all of them: shard and index in one number (model/shards.py).
entries = Table(
    "entries",
    metadata,
    Column("organization_id", UUID(as_uuid=True), primary_key=True),
    Column("idx", BigInteger, primary_key=True),
    Column("event_id", UUID(as_uuid=True), nullable=False),
    Column("organization_seq", BigInteger, nullable=False),
    Column("producer", Text, nullable=False),
    Column("producer_counter", BigInteger, nullable=False),
    Column("action", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("result", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("actor_hash", LargeBinary),
    Column("occurred_at", DateTime(timezone=True), nullable=False),
    Column("appended_at", DateTime(timezone=True), nullable=False),
    Column("request_id", Text, nullable=False),
    Column("trace_id", Text, nullable=False),
    Column("leaf", LargeBinary, nullable=False),
)

payloads = Table(
    "payloads",
    metadata,
    Column("organization_id", UUID(as_uuid=True), primary_key=True),
    Column("idx", BigInteger, primary_key=True),
    Column("format", SmallInteger, nullable=False),
    Column("subject", Text, nullable=False),
    Column("key_id", UUID(as_uuid=True)),
    Column("content", LargeBinary, nullable=False),
)

dedup = Table(
    "dedup",
    metadata,
    Column("event_id", UUID(as_uuid=True), primary_key=True),
    Column("payload_sha256", LargeBinary, nullable=False),
    Column("idx", BigInteger, nullable=False),
)

nodes = Table(
    "nodes",
    metadata,
    Column("height", SmallInteger, primary_key=True),
    Column("position", BigInteger, primary_key=True),
    Column("hash", LargeBinary, nullable=False),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("size", BigInteger, primary_key=True),
    Column("root", LargeBinary, nullable=False),
    Column("note", Text, nullable=False),
    Column("signed_at", DateTime(timezone=True), nullable=False),
)

shards = Table(
    "shards",
    metadata,
    Column("shard", SmallInteger, primary_key=True),
    Column("origin", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("opened_at", DateTime(timezone=True), nullable=False),
    Column("closed_size", BigInteger),
)

evidence_exports = Table(
    "evidence_exports",
    metadata,
    Column("organization_id", UUID(as_uuid=True), primary_key=True),
    Column("export_id", UUID(as_uuid=True), primary_key=True),
    Column("state", Text, nullable=False),
    Column("action_ids", ARRAY(UUID(as_uuid=True)), nullable=False),
    Column("target_prefixes", ARRAY(Text), nullable=False),
    Column("begins_at", DateTime(timezone=True), nullable=False),
    Column("ends_at", DateTime(timezone=True), nullable=False),
    Column("requested_by", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Column("finished_at", DateTime(timezone=True)),
    Column("problem", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("seal_event_id", UUID(as_uuid=True)),
)

evidence_progress = Table(
    "evidence_progress",
    metadata,
    Column("organization_id", UUID(as_uuid=True), primary_key=True),
    Column("export_id", UUID(as_uuid=True), primary_key=True),
    Column("phase", Text, nullable=False),
    Column("done", BigInteger, nullable=False),
    Column("total", BigInteger, nullable=False),
)

cosignatures = Table(
    "cosignatures",
    metadata,
    Column("place", BigInteger, primary_key=True),
    Column("witness", Text, primary_key=True),
    Column("line", Text, nullable=False),
    Column("cosigned_at", DateTime(timezone=True), nullable=False),
)
