"""Whether a session was ended is looked up whenever a passport is issued, by the session's and its actor's name.

The version before this one may run meanwhile: it doesn't look.
"""

from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Make the index."""
    op.execute("CREATE INDEX revocations_by_key ON identity.revocations (kind, key)")
