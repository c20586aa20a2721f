"""Approvals that count no longer, since who gave them could not give them any more.

An approval itself stays as it is; that it is void is a row beside it, which nobody changes. The version before this one
may run meanwhile: it never voids anything, and counts an approval that this one voided only until it is replaced.
"""

from alembic import op

from services._mesh.schema import UNLIMITED, allow, limited, run, tenancy
from services._mesh.state_schema import Watched, more_state_seals

revision = "0010"
down_revision = "0009"

_OF_ACTION = """EXISTS (SELECT FROM actions.actions a
  WHERE a.organization_id = approval_voids.organization_id AND a.action_id = approval_voids.action_id)"""


def upgrade() -> None:
    """Make the table, and watch it."""
    run(
        op.execute,
        [
            """CREATE TABLE actions.approval_voids (
                organization_id uuid NOT NULL,
                action_id uuid NOT NULL,
                person uuid NOT NULL,
                voided_at timestamptz NOT NULL,
                event_id uuid NOT NULL,
                PRIMARY KEY (organization_id, action_id, person),
                FOREIGN KEY (organization_id, action_id, person)
                  REFERENCES actions.approvals (organization_id, action_id, person))""",
            *tenancy("actions", "approval_voids", "state"),
            *allow("actions", "approval_voids", api="SELECT, INSERT", worker="SELECT"),
            *limited("actions", "approval_voids", otherwise=f"{UNLIMITED} OR {_OF_ACTION}"),
            *more_state_seals("actions", (Watched("approval_voids", ("action_id", "person"), ("event_id",)),)),
        ],
    )
