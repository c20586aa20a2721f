"""The scanner's tables, as SQLAlchemy Core sees them. The migrations are what makes them."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Computed,
    DateTime,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    Table,
    Text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID

metadata = MetaData(schema="scanner")
_Id = UUID(as_uuid=True)
_Moment = DateTime(timezone=True)

connections = Table(
    "connections",
    metadata,
    Column("organization_id", _Id, primary_key=True),
    Column("connection_id", _Id, primary_key=True),
    Column("display_name", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("accounts", JSONB, nullable=False),
    Column("regions", ARRAY(Text), nullable=False),
    Column("external_id", Text, nullable=False),
    Column("credential_id", _Id, nullable=False),
    Column("access_key_id", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("problem", Text, nullable=False),
    Column("role_checks", JSONB, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("created_at", _Moment, nullable=False),
    Column("verified_at", _Moment),
    Column("permission_checks", JSONB, nullable=False),
    Column("checked_at", _Moment),
    Column("identity", JSONB, nullable=False),
    Column("discovered", JSONB, nullable=False),
)

credentials = Table(
    "credentials",
    metadata,
    Column("organization_id", _Id, primary_key=True),
    Column("credential_id", _Id, primary_key=True),
    Column("connection_id", _Id),
    Column("envelope", LargeBinary, nullable=False),
    Column("created_at", _Moment, nullable=False),
    Column("kek", LargeBinary, Computed("the envelope's")),
    Column("rewrapped_at", _Moment),
    Column("untold", Boolean, nullable=False),
    Column("stuck_for", _Id),
    Column("problem", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("reminded_at", _Moment),
    Column("refusal_told_at", _Moment),
)

organization_keys = Table(
    "organization_keys",
    metadata,
    Column("organization_id", _Id, primary_key=True),
    Column("key_id", _Id, primary_key=True),
    Column("purpose", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("created_at", _Moment, nullable=False),
    Column("ends_at", _Moment),
)

credential_uses = Table(
    "credential_uses",
    metadata,
    Column("organization_id", _Id, primary_key=True),
    Column("credential_id", _Id, primary_key=True),
    Column("last_used_at", _Moment, nullable=False),
)

rotation_rules = Table(
    "rotation_rules",
    metadata,
    Column("organization_id", _Id, primary_key=True),
    Column("remind_after_days", Integer, nullable=False),
    Column("rotate_within_days", Integer, nullable=False),
    Column("enforced_from", _Moment),
    Column("limits", JSONB, nullable=False),
    Column("changed_at", _Moment, nullable=False),
)

rotations = Table(
    "rotations",
    metadata,
    Column("organization_id", _Id, primary_key=True),
    Column("rotation_id", _Id, primary_key=True),
    Column("connection_id", _Id, nullable=False),
    Column("state", Text, nullable=False),
    Column("candidate_id", _Id, nullable=False),
    Column("replaced_id", _Id, nullable=False),
    Column("access_key_id", Text, nullable=False),
    Column("replaced_access_key_id", Text, nullable=False),
    Column("problem", Text, nullable=False),
    Column("role_checks", JSONB, nullable=False),
    Column("permission_checks", JSONB, nullable=False),
    Column("started_at", _Moment, nullable=False),
    Column("promoted_at", _Moment),
    Column("drains_until", _Moment),
    Column("ended_at", _Moment),
    Column("told", Boolean, nullable=False),
    Column("provider", Text, nullable=False),
)

keks = Table(
    "keks",
    metadata,
    Column("organization_id", _Id, primary_key=True),
    Column("kek_id", _Id, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("provider", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("region", Text, nullable=False),
    Column("key_version", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("created_at", _Moment, nullable=False),
)

backups = Table(
    "backups",
    metadata,
    Column("organization_id", _Id, primary_key=True),
    Column("backup_id", _Id, primary_key=True),
    Column("kek", Text, primary_key=True),
    Column("secrets", Integer, nullable=False),
    Column("taken_at", _Moment, nullable=False),
    Column("verified_at", _Moment),
    Column("forgotten_at", _Moment),
)

external_ids = Table(
    "external_ids",
    metadata,
    Column("organization_id", _Id, primary_key=True),
    Column("external_id", Text, nullable=False),
    Column("created_at", _Moment, nullable=False),
)

static_keys = Table(
    "static_keys",
    metadata,
    Column("organization_id", _Id, primary_key=True),
    Column("allowed", Boolean, nullable=False),
    Column("changed_at", _Moment, nullable=False),
)

# The mesh's own table, as far as it is looked at here.
jobs = Table(
    "jobs",
    metadata,
    Column("job_id", _Id, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("subject_id", _Id, nullable=False),
    Column("status", Text, nullable=False),
)

scans = Table(
    "scans",
    metadata,
    Column("organization_id", _Id, primary_key=True),
    Column("scan_id", _Id, primary_key=True),
    Column("connection_id", _Id, nullable=False),
    Column("state", Text, nullable=False),
    Column("units_total", Integer, nullable=False),
    Column("resources_seen", Integer, nullable=False),
    Column("findings_open", Integer, nullable=False),
    Column("problem", Text, nullable=False),
    Column("created_at", _Moment, nullable=False),
    Column("started_at", _Moment),
    Column("finished_at", _Moment),
)

scan_units = Table(
    "scan_units",
    metadata,
    Column("organization_id", _Id, primary_key=True),
    Column("scan_id", _Id, primary_key=True),
    Column("account", Text, primary_key=True),
    Column("region", Text, primary_key=True),
    Column("api", Text, primary_key=True),
    Column("outcome", Text, nullable=False),
    Column("pages", Integer, nullable=False),
    Column("resources", Integer, nullable=False),
    Column("throttles", Integer, nullable=False),
    Column("calls", Integer, nullable=False),
    Column("error_code", Text, nullable=False),
)

_KEY = ("provider", "partition", "account", "region", "type", "id")

resources = Table(
    "resources",
    metadata,
    Column("organization_id", _Id, primary_key=True),
    Column("connection_id", _Id, primary_key=True),
    *(Column(name, Text, primary_key=name not in ("provider", "partition"), nullable=False) for name in _KEY),
    Column("name", Text, nullable=False),
    Column("facts", JSONB, nullable=False),
    Column("tags", JSONB, nullable=False),
    Column("details", JSONB, nullable=False),
    Column("condition", Text, nullable=False),
    Column("condition_since", _Moment, nullable=False),
    Column("held", Boolean, nullable=False),
    Column("first_seen_at", _Moment, nullable=False),
    Column("last_seen_at", _Moment, nullable=False),
    Column("gone_at", _Moment),
)

findings = Table(
    "findings",
    metadata,
    Column("organization_id", _Id, primary_key=True),
    Column("finding_id", _Id, primary_key=True),
    Column("connection_id", _Id, nullable=False),
    Column("scan_id", _Id, nullable=False),
    Column("detection_id", Text, nullable=False),
    *(Column(name, Text, nullable=False) for name in _KEY),
    Column("resource_name", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("actionability", Text, nullable=False),
    Column("saving", Numeric),
    Column("currency", Text, nullable=False),
    Column("price_version", Text, nullable=False),
    Column("severity", Text, nullable=False),
    Column("confidence", Text, nullable=False),
    Column("evidence", JSONB, nullable=False),
    Column("action_type", Text, nullable=False),
    Column("first_seen_at", _Moment, nullable=False),
    Column("last_seen_at", _Moment, nullable=False),
    Column("exception_id", _Id),
)
