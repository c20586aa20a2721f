"""Connections of Azure and Google Cloud: who we are there, and what a check saw.

The version before this one may run meanwhile: it makes AWS's only.
"""

from alembic import op

from services._mesh.schema import run

revision = "0018"
down_revision = "0017"

_STATEMENTS = [
    "SET LOCAL lock_timeout = '10s'",
    "ALTER TABLE scanner.connections ADD COLUMN identity jsonb NOT NULL DEFAULT '{}',"
    " ADD COLUMN discovered jsonb NOT NULL DEFAULT '[]'",
]


def upgrade() -> None:
    """Add the columns."""
    run(op.execute, _STATEMENTS)
