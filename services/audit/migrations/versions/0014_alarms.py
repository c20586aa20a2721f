"""The sequencer writes the alarms about what it appends into audit's outbox, in the transaction that appends it."""

from alembic import op

from services._mesh.schema import allow, run

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Let it: within one organization, like the API. The version before this one doesn't."""
    run(
        op.execute,
        [
            *allow("audit", "outbox", sequencer="INSERT"),
            *allow("audit", "outbox_counters", sequencer="SELECT, INSERT, UPDATE"),
        ],
    )
