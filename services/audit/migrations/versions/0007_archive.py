"""How far the log is copied to object storage, and when that was read back: one row a shard.

Needs the role audit_archiver: run deploy/bootstrap.sql again first.
"""

from alembic import op

from services._mesh.schema import allow, reference, run

revision = "0007"
down_revision = "0004"


def upgrade() -> None:
    """Make the table, and let the archiver read what it copies: no payload, and nothing that is searched."""
    run(op.execute, [*_ARCHIVE, *_RIGHTS])


_ARCHIVE = [
    """CREATE TABLE audit.archive (
        shard smallint PRIMARY KEY REFERENCES audit.shards (shard),
        location text NOT NULL,
        size bigint NOT NULL CHECK (size >= 0),
        complete boolean NOT NULL,
        archived_at timestamptz NOT NULL,
        verified_size bigint,
        verified_root bytea CHECK (length(verified_root) = 32),
        verified_at timestamptz,
        verified_event_id uuid,
        problem text NOT NULL DEFAULT '',
        detached_at timestamptz)""",
    *reference("audit", "archive"),
]

_RIGHTS = [
    *allow("audit", "archive", archiver="SELECT", api="SELECT, INSERT"),
    "GRANT UPDATE (location, size, complete, archived_at, verified_size, verified_root, verified_at,"
    " verified_event_id, problem) ON audit.archive TO audit_api",
    # Leaves hold ids and salted commitments. They're read under each organization; only its id is seen before.
    "GRANT SELECT (organization_id, idx, leaf) ON audit.entries TO audit_archiver",
    "GRANT SELECT (organization_id) ON audit.chains TO audit_archiver",
    "CREATE POLICY archiver ON audit.chains FOR SELECT TO audit_archiver USING (true)",
    *(f"GRANT SELECT ON audit.{table} TO audit_archiver" for table in ("nodes", "checkpoints", "shards")),
]
