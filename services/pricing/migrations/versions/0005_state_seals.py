"""Rows that decide who may do what are sealed at each commit, so that a change without an event shows.

The version before this one may run meanwhile: its changes are sealed by the same triggers.
"""

from alembic import op

from services._mesh.schema import run
from services._mesh.state_schema import Watched, state_seals

revision = "0005"
down_revision = "0004"

_WATCHED = (
    Watched(
        "bill_sources", ("bill_source_id",), ("connection_id", "credential_id", "account", "bucket", "prefix", "state")
    ),
)


def upgrade() -> None:
    """Watch the tables."""
    run(op.execute, state_seals("pricing", _WATCHED))
