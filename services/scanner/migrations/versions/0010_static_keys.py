"""Whether an organization's connections may hold long-lived cloud keys.

The version before this one may run meanwhile: it asks nobody, and takes keys as before.
"""

from alembic import op

from services._mesh.schema import allow, run, tenancy

revision = "0010"
down_revision = "0009"

_TABLES = [
    """CREATE TABLE scanner.static_keys (
        organization_id uuid NOT NULL,
        allowed boolean NOT NULL,
        changed_at timestamptz NOT NULL,
        PRIMARY KEY (organization_id))""",
    *tenancy("scanner", "static_keys", "state"),
    *allow("scanner", "static_keys", api="SELECT, INSERT, UPDATE"),
]


def upgrade() -> None:
    """Make the table."""
    run(op.execute, ["SET LOCAL lock_timeout = '10s'", *_TABLES])
