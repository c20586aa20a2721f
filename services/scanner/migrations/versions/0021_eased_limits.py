"""Which limits of credentials' age an organization had before, so that none is put off by switching it off and on.

The version before this one may run meanwhile: what it says leaves the limits before as they are.
"""

from alembic import op

from services._mesh.schema import run
from services._mesh.state_schema import Watched, watch_more

revision = "0021"
down_revision = "0020"

_COLUMNS = ("remind_after_days", "rotate_within_days", "enforced_from", "limits")


def upgrade() -> None:
    """Add the column, and watch it."""
    run(
        op.execute,
        [
            "SET LOCAL lock_timeout = '10s'",
            # Each a triple: days, enforced from, given up at.
            "ALTER TABLE scanner.rotation_rules ADD COLUMN limits jsonb NOT NULL DEFAULT '[]'",
            *watch_more("scanner", Watched("rotation_rules", (), _COLUMNS), ("limits",)),
        ],
    )
