"""The relay takes and marks many organizations' events in one call. The version before this one doesn't call it."""

from alembic import op

from services._mesh.schema import relaying, run

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make what the relay calls."""
    run(op.execute, relaying("pricing"))
