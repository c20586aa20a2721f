"""Rows that decide who may do what are sealed at each commit, so that a change without an event shows.

The version before this one may run meanwhile: its changes are sealed by the same triggers.
"""

from alembic import op

from services._mesh.schema import run
from services._mesh.state_schema import Watched, state_seals

revision = "0006"
down_revision = "0005"

_WATCHED = (
    Watched("actions", ("action_id",), ("requester_person", "plan_hash", "state")),
    Watched("approvals", ("action_id", "person"), ("requester_person", "decision", "plan_hash")),
)


def upgrade() -> None:
    """Watch the tables."""
    run(op.execute, state_seals("actions", _WATCHED, ("api", "worker")))
