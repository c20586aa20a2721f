"""The self-check reads what was added to the log since: cosignatures, and which shards were detached."""

from alembic import op

from services._mesh.schema import allow, run

revision = "0008"
down_revision = "0003"


def upgrade() -> None:
    """Let it read them."""
    run(
        op.execute,
        [*allow("audit", "cosignatures", checker="SELECT"), *allow("audit", "archive", checker="SELECT")],
    )
