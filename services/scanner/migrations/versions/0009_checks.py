"""What a check saw of a connection's permissions. A connection that was never verified is given up in time.

The version before this one may run meanwhile, and leaves the columns as they are.
"""

from alembic import op

from services._mesh.schema import run

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Add the columns; let the worker drop what was given up."""
    run(
        op.execute,
        [
            "SET LOCAL lock_timeout = '10s'",
            "ALTER TABLE scanner.connections ADD COLUMN permission_checks jsonb NOT NULL DEFAULT '[]',"
            " ADD COLUMN checked_at timestamptz",
            "GRANT SELECT (organization_id, connection_id), DELETE ON scanner.credentials TO scanner_worker",
        ],
    )
