"""A recovery may give up whole shards: they are written down as lost, so that no number is missing."""

from alembic import op

from services._mesh.schema import run

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Let a shard be of this kind. The version before this one makes none, and reads them like any closed shard."""
    run(
        op.execute,
        [
            "ALTER TABLE audit.shards DROP CONSTRAINT shards_kind_check",
            "ALTER TABLE audit.shards ADD CONSTRAINT shards_kind_check"
            " CHECK (kind IN ('FIRST', 'YEARLY', 'RECOVERY', 'LOST'))",
        ],
    )
