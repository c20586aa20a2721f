"""Which browser a sign-in began in. The version before this one may run meanwhile: what began there begins again."""

from alembic import op

from services._mesh.schema import run

revision = "0024"
down_revision = "0023"


def upgrade() -> None:
    """Add the column."""
    statements = ["SET LOCAL lock_timeout = '10s'", "ALTER TABLE identity.sso_requests ADD COLUMN browser_sha256 bytea"]
    run(op.execute, statements)
