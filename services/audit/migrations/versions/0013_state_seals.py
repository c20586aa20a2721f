"""Rows that decide who may do what are sealed at each commit, so that a change without an event shows.

The version before this one may run meanwhile: its changes are sealed by the same triggers.
"""

from alembic import op

from services._mesh.schema import run
from services._mesh.state_schema import Watched, state_seals

revision = "0013"
down_revision = "0012"

_WATCHED = (
    Watched("erasures", ("erasure_id",), ("subject_hash", "state", "requester_hash", "decider_hash")),
    Watched("legal_holds", ("hold_id",), ("subject_hash", "releaser_hash")),
)


def upgrade() -> None:
    """Watch the tables."""
    run(op.execute, state_seals("audit", _WATCHED))
