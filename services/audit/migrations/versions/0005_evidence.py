"""Exports of evidence: who asked for which, how far they are, and what was sealed."""

from alembic import op

from services._mesh.schema import allow, run, tenancy

revision = "0005"
down_revision = "0006"


def upgrade() -> None:
    """Make the tables."""
    run(op.execute, [*_TABLES, *_RIGHTS])


_TABLES = [
    """CREATE TABLE audit.evidence_exports (
        organization_id uuid NOT NULL,
        export_id uuid NOT NULL,
        state text NOT NULL CHECK (state IN ('QUEUED', 'RUNNING', 'READY', 'FAILED', 'EXPIRED')),
        action_ids uuid[] NOT NULL,
        target_prefixes text[] NOT NULL,
        begins_at timestamptz NOT NULL,
        ends_at timestamptz NOT NULL,
        requested_by text NOT NULL,
        created_at timestamptz NOT NULL,
        expires_at timestamptz NOT NULL,
        finished_at timestamptz,
        problem text NOT NULL DEFAULT '',
        size_bytes bigint NOT NULL DEFAULT 0,
        sha256 text NOT NULL DEFAULT '',
        seal_event_id uuid,
        CHECK (begins_at < ends_at),
        PRIMARY KEY (organization_id, export_id))""",
    *tenancy("audit", "evidence_exports", "state"),
    """CREATE TABLE audit.evidence_progress (
        organization_id uuid NOT NULL,
        export_id uuid NOT NULL,
        phase text NOT NULL,
        done bigint NOT NULL,
        total bigint NOT NULL,
        PRIMARY KEY (organization_id, export_id),
        FOREIGN KEY (organization_id, export_id) REFERENCES audit.evidence_exports (organization_id, export_id))""",
    *tenancy("audit", "evidence_progress", "inventory"),
]
# The worker says how far it is and what came of it; what was asked for, by whom and until when, it can't change.
_RIGHTS = [
    *allow("audit", "evidence_exports", api="SELECT, INSERT, UPDATE", worker="SELECT"),
    "GRANT UPDATE (state, finished_at, problem, size_bytes, sha256) ON audit.evidence_exports TO audit_worker",
    *allow("audit", "evidence_progress", api="SELECT", worker="SELECT, INSERT, UPDATE"),
]
