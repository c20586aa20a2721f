"""An organization has one external id for all its connections.

The version before this one gives each connection an id of its own; those stay valid, each with its connection.
"""

from alembic import op

from services._mesh.schema import allow, run, tenancy

revision = "0008"
down_revision = "0007"

_TABLES = [
    """CREATE TABLE scanner.external_ids (
        organization_id uuid NOT NULL,
        external_id text NOT NULL,
        created_at timestamptz NOT NULL,
        PRIMARY KEY (organization_id))""",
    *tenancy("scanner", "external_ids", "state"),
    *allow("scanner", "external_ids", api="SELECT, INSERT"),
]


def upgrade() -> None:
    """Make the table."""
    run(op.execute, ["SET LOCAL lock_timeout = '10s'", *_TABLES])
