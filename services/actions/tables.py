"""The tables of actions, as SQLAlchemy Core sees them. The migrations are what makes them."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    SmallInteger,
    Table,
    Text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID

metadata = MetaData(schema="actions")
_Id = UUID(as_uuid=True)
_Moment = DateTime(timezone=True)

actions = Table(
    "actions",
    metadata,
    Column("organization_id", _Id, primary_key=True),
    Column("action_id", _Id, primary_key=True),
    Column("finding_id", _Id, nullable=False),
    Column("connection_id", _Id, nullable=False),
    Column("credential_id", _Id, nullable=False),
    Column("action_type", Text, nullable=False),
    *(Column(name, Text, nullable=False) for name in ("provider", "partition", "account", "region", "type", "id")),
    Column("state", Text, nullable=False),
    Column("plan_version", SmallInteger, nullable=False),
    Column("plan_hash", Text, nullable=False),
    Column("plan", LargeBinary, nullable=False),
    Column("baseline", LargeBinary, nullable=False),
    Column("estimate", Numeric, nullable=False),
    Column("currency", Text, nullable=False),
    Column("price_version", Text, nullable=False),
    Column("requested_by", Text, nullable=False),
    Column("requester_person", _Id, nullable=False),
    Column("requester_role", Text, nullable=False),
    Column("requested_at", _Moment, nullable=False),
    Column("request_event_id", _Id, nullable=False),
    Column("approve_before", _Moment, nullable=False),
    Column("quarantined_until", _Moment),
    Column("executed_at", _Moment),
    Column("problem", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("tags", JSONB),
    Column("requester_user", _Id),
)

approvals = Table(
    "approvals",
    metadata,
    Column("organization_id", _Id, primary_key=True),
    Column("action_id", _Id, primary_key=True),
    Column("person", _Id, primary_key=True),
    Column("requester_person", _Id, nullable=False),
    Column("decided_by", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("decision", Text, nullable=False),
    Column("plan_hash", Text, nullable=False),
    Column("comment", Text, nullable=False),
    Column("decided_at", _Moment, nullable=False),
    Column("event_id", _Id, nullable=False),
    Column("persons", ARRAY(_Id), nullable=False),
)

# Which decisions count no longer, and by which event.
approval_voids = Table(
    "approval_voids",
    metadata,
    Column("organization_id", _Id, primary_key=True),
    Column("action_id", _Id, primary_key=True),
    Column("person", _Id, primary_key=True),
    Column("voided_at", _Moment, nullable=False),
    Column("event_id", _Id, nullable=False),
)

steps = Table(
    "steps",
    metadata,
    Column("organization_id", _Id, primary_key=True),
    Column("action_id", _Id, primary_key=True),
    Column("place", Integer, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("result_id", Text, nullable=False),
    Column("error_code", Text, nullable=False),
    Column("intended_at", _Moment, nullable=False),
    Column("confirmed_at", _Moment),
    Column("intent_event_id", _Id, nullable=False),
    Column("outcome_event_id", _Id),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("organization_id", _Id, primary_key=True),
    Column("checkpoint_id", _Id, primary_key=True),
    Column("action_id", _Id, nullable=False),
    Column("days", Integer, nullable=False),
    Column("from_day", Date),
    Column("to_day", Date),
    Column("decision", Text, nullable=False),
    Column("economic", Numeric),
    Column("cash", Numeric),
    Column("currency", Text, nullable=False),
    Column("provisional", Boolean, nullable=False),
    Column("explanation", Text, nullable=False),
    Column("measurement", LargeBinary, nullable=False),
    Column("measurement_digest", Text, nullable=False),
    Column("decided_at", _Moment),
    Column("decide_event_id", _Id),
    Column("revision", Integer, nullable=False),
    Column("receipt_id", _Id),
)

receipts = Table(
    "receipts",
    metadata,
    Column("organization_id", _Id, primary_key=True),
    Column("receipt_id", _Id, primary_key=True),
    Column("action_id", _Id, nullable=False),
    Column("days", Integer, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("decision", Text, nullable=False),
    Column("economic", Numeric),
    Column("cash", Numeric),
    Column("currency", Text, nullable=False),
    Column("provisional", Boolean, nullable=False),
    Column("format", SmallInteger, nullable=False),
    Column("digest", Text, nullable=False),
    Column("document", LargeBinary, nullable=False),
    Column("measurement", LargeBinary, nullable=False),
    Column("envelope", LargeBinary, nullable=False),
    Column("event_ids", ARRAY(_Id), nullable=False),
    Column("issued_at", _Moment, nullable=False),
    Column("supersedes", _Id),
)

# What proves a receipt offline, as it was when it became final.
final_receipts = Table(
    "final_receipts",
    metadata,
    Column("organization_id", _Id, primary_key=True),
    Column("receipt_id", _Id, primary_key=True),
    Column("bundle", LargeBinary, nullable=False),
)

# Only what tells when a checkpoint's job looks next; the rest of a job is the mesh's business.
jobs = Table(
    "jobs",
    metadata,
    Column("organization_id", _Id, primary_key=True),
    Column("job_id", _Id, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("subject_id", _Id, nullable=False),
    Column("due_at", _Moment, nullable=False),
    Column("status", Text, nullable=False),
)
