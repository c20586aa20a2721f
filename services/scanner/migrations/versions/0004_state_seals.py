"""Rows that decide who may do what are sealed at each commit, so that a change without an event shows.

The version before this one may run meanwhile: its changes are sealed by the same triggers.
"""

from alembic import op

from services._mesh.schema import run
from services._mesh.state_schema import Watched, state_seals

revision = "0004"
down_revision = "0003"

_WATCHED = (Watched("connections", ("connection_id",), ("accounts", "external_id", "credential_id", "state")),)


def upgrade() -> None:
    """Watch the tables."""
    run(op.execute, state_seals("scanner", _WATCHED, ("api", "worker")))
