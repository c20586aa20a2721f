"""A receipt finds the one that supersedes it; and no two supersede the same."""

from alembic import op

from services._mesh.schema import run

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Index what receipts supersede."""
    run(
        op.execute,
        [
            "CREATE UNIQUE INDEX receipts_supersedes ON actions.receipts (organization_id, supersedes)"
            " WHERE supersedes IS NOT NULL"
        ],
    )
