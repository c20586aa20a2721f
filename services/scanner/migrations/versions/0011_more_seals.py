"""An organization's external id, and whether it takes long-lived keys, are watched as what decides who may do what.

The version before this one may run meanwhile: its changes are sealed by the same triggers.
"""

from alembic import op

from services._mesh.schema import run
from services._mesh.state_schema import Watched, more_state_seals

revision = "0011"
down_revision = "0010"

_WATCHED = (Watched("external_ids", (), ("external_id",)), Watched("static_keys", (), ("allowed",)))


def upgrade() -> None:
    """Watch the tables."""
    run(op.execute, more_state_seals("scanner", _WATCHED))
