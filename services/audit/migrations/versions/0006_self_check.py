"""What the self-check keeps of itself, and its role, which reads everything of the log and changes nothing of it.

Needs the role audit_checker: run deploy/bootstrap.sql again first.
"""

from alembic import op

from services._mesh.schema import allow, reference, run

revision = "0006"
down_revision = "0007"

_READ = ("events", "entries", "payloads", "nodes", "dedup", "checkpoints", "head", "shards", "chains", "producers")


def upgrade() -> None:
    """Make the table, and open the log to its check."""
    run(
        op.execute,
        [
            """CREATE TABLE audit.self_checks (
                scope text PRIMARY KEY CHECK (scope IN ('RECENT', 'FULL')),
                progress text NOT NULL DEFAULT '',
                result text NOT NULL DEFAULT '',
                finished_at timestamptz)""",
            *reference("audit", "self_checks"),
            *allow("audit", "self_checks", checker="SELECT, INSERT, UPDATE"),
            *(each for table in _READ for each in allow("audit", table, checker="SELECT")),
            # Ids and hashes only: the events of each organization are read under that organization.
            *(
                f"CREATE POLICY checker ON audit.{table} FOR SELECT TO audit_checker USING (true)"
                for table in ("chains", "producers")
            ),
        ],
    )
