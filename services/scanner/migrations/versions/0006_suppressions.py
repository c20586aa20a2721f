"""Findings carry the exception that leaves them alone. The version before this one lists them as open."""

from alembic import op

from services._mesh.schema import run

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the column."""
    run(
        op.execute,
        [
            "SET LOCAL lock_timeout = '10s'",
            "ALTER TABLE scanner.findings ADD COLUMN exception_id uuid",
            "CREATE INDEX findings_excepted ON scanner.findings (organization_id, exception_id)"
            " WHERE exception_id IS NOT NULL",
            "GRANT UPDATE (exception_id) ON scanner.findings TO scanner_api",
        ],
    )
