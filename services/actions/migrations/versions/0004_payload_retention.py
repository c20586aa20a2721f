"""Payloads leave the outbox once the log has had them for long enough, or when they are erased there.

The version before this one may run meanwhile: it reads the payloads of unrelayed rows only.
"""

from alembic import op

from services._mesh.schema import payload_retention, run

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Let the relay clear them."""
    run(op.execute, payload_retention("actions"))
