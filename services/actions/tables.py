"""The tables of actions, as SQLAlchemy Core sees them. The migrations are what makes them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, DateTime, Integer, LargeBinary, MetaData, Numeric, Table, Text
from sqlalchemy.dialects.postgresql import JSONB, UUID

metadata = MetaData(schema="actions")

_Moment = DateTime(timezone=True)

actions = Table(
    "actions",
    metadata,
    Column("organization_id", UUID(as_uuid=True), primary_key=True),
    Column("action_id", UUID(as_uuid=True), primary_key=True),
    Column("finding_id", UUID(as_uuid=True), nullable=False),
    Column("connection_id", UUID(as_uuid=True), nullable=False),
    Column("credential_id", UUID(as_uuid=True), nullable=False),
    Column("action_type", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("partition", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("region", Text, nullable=False),
    Column("resource_type", Text, nullable=False),
    Column("resource_id", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("plan_version", Integer, nullable=False),
    Column("plan_document", LargeBinary, nullable=False),
    Column("plan_hash", Text, nullable=False),
    Column("baseline_document", LargeBinary, nullable=False),
    Column("estimate_amount", Numeric, nullable=False),
    Column("estimate_currency", Text, nullable=False),
    Column("requested_by", Text, nullable=False),
    Column("requester_person", UUID(as_uuid=True), nullable=False),
    Column("requested_at", _Moment, nullable=False),
    Column("approve_before", _Moment, nullable=False),
    Column("quarantined_until", _Moment),
    Column("executed_at", _Moment),
    Column("problem", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
)

approvals = Table(
    "approvals",
    metadata,
    Column("organization_id", UUID(as_uuid=True), primary_key=True),
    Column("action_id", UUID(as_uuid=True), primary_key=True),
    Column("responsible_person", UUID(as_uuid=True), primary_key=True),
    Column("actor", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("decision", Text, nullable=False),
    Column("plan_hash", Text, nullable=False),
    Column("comment", Text, nullable=False),
    Column("decided_at", _Moment, nullable=False),
    Column("event_id", UUID(as_uuid=True), nullable=False),
)

steps = Table(
    "steps",
    metadata,
    Column("organization_id", UUID(as_uuid=True), primary_key=True),
    Column("action_id", UUID(as_uuid=True), primary_key=True),
    Column("name", Text, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("state", Text, nullable=False),
    Column("result_id", Text, nullable=False),
    Column("error_code", Text, nullable=False),
    Column("intended_at", _Moment, nullable=False),
    Column("confirmed_at", _Moment),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("organization_id", UUID(as_uuid=True), primary_key=True),
    Column("action_id", UUID(as_uuid=True), primary_key=True),
    Column("days", Integer, primary_key=True),
    Column("checkpoint_id", UUID(as_uuid=True), nullable=False),
    Column("state", Text, nullable=False),
    Column("from_day", Text, nullable=False),
    Column("to_day", Text, nullable=False),
    Column("due_at", _Moment, nullable=False),
    Column("decision", Text, nullable=False),
    Column("economic", Numeric),
    Column("cash", Numeric),
    Column("currency", Text, nullable=False),
    Column("provisional", Text, nullable=False),
    Column("explanation", Text, nullable=False),
    Column("measurement_document", LargeBinary),
    Column("decided_at", _Moment),
)

# The events that belong into an action's receipts, written in the transaction of each.
action_events = Table(
    "action_events",
    metadata,
    Column("organization_id", UUID(as_uuid=True), primary_key=True),
    Column("action_id", UUID(as_uuid=True), primary_key=True),
    Column("event_id", UUID(as_uuid=True), primary_key=True),
    Column("action", Text, nullable=False),
    Column("occurred_at", _Moment, nullable=False),
)

receipts = Table(
    "receipts",
    metadata,
    Column("organization_id", UUID(as_uuid=True), primary_key=True),
    Column("receipt_id", UUID(as_uuid=True), primary_key=True),
    Column("action_id", UUID(as_uuid=True), nullable=False),
    Column("days", Integer, nullable=False),
    Column("decision", Text, nullable=False),
    Column("economic", Numeric, nullable=False),
    Column("cash", Numeric, nullable=False),
    Column("currency", Text, nullable=False),
    Column("provisional", Text, nullable=False),
    Column("document", LargeBinary, nullable=False),
    Column("digest", Text, nullable=False),
    Column("envelope", JSONB, nullable=False),
    Column("event_id", UUID(as_uuid=True), nullable=False),
    Column("issued_at", _Moment, nullable=False),
    Column("supersedes", UUID(as_uuid=True)),
)
