"""Roles that are limited to some connections or tags see no others; an action keeps its resource's tags for that.

The version before this one may run meanwhile: it says nothing of limits, and serves nobody who has any. Actions that it
makes have no tags, so that nobody sees them whose role is limited to some.
"""

from alembic import op

from services._mesh.schema import ANY_TAG, UNLIMITED, limited, run

revision = "0008"
down_revision = "0007"

_OF_ACTION = """EXISTS (SELECT FROM actions.actions a
  WHERE a.organization_id = {table}.organization_id AND a.action_id = {table}.action_id)"""


def upgrade() -> None:
    """Add the column, and make the policies."""
    belonging = ("approvals", "steps", "checkpoints", "receipts")
    run(
        op.execute,
        [
            "SET LOCAL lock_timeout = '10s'",
            "ALTER TABLE actions.actions ADD COLUMN tags jsonb",
            *limited("actions", "actions", connection="connection_id", tags=ANY_TAG.format(tags="tags")),
            *(
                statement
                for table in belonging
                for statement in limited("actions", table, otherwise=f"{UNLIMITED} OR {_OF_ACTION.format(table=table)}")
            ),
        ],
    )
