"""Payloads leave audit's own outbox too; and producers are told which of their events were erased.

The version before this one may run meanwhile: it reads the payloads of unrelayed rows only.
"""

from alembic import op

from services._mesh.schema import payload_retention, run

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Let the relay clear them, and the dispatcher see when an erasure was done."""
    run(op.execute, [*payload_retention("audit"), "GRANT SELECT (done_at) ON audit.erasures TO audit_dispatcher"])
