"""Credentials of other clouds than AWS give way to others, too. The version before this one rotates AWS's alone."""

from alembic import op

from services._mesh.schema import run

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    """Rotations know their cloud."""
    run(
        op.execute,
        [
            "SET LOCAL lock_timeout = '10s'",
            "ALTER TABLE scanner.rotations ADD COLUMN provider text NOT NULL DEFAULT 'aws'"
            " CHECK (provider IN ('aws', 'azure', 'gcp'))",
        ],
    )
