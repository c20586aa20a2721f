"""Who approves is another human being than who requested, whichever of their logins they use, and no machine.

The version before this one may run meanwhile: it names only one of an approver's users, as it always did.
"""

from alembic import op

from services._mesh.schema import run

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Add the column, and what it is held to."""
    run(
        op.execute,
        [
            "SET LOCAL lock_timeout = '10s'",
            # All users that the approver is: linked logins of one person are one person.
            """ALTER TABLE actions.approvals
                ADD COLUMN persons uuid[] NOT NULL DEFAULT '{}',
                ADD CONSTRAINT another_person CHECK (decision <> 'APPROVED' OR requester_person <> ALL (persons)),
                ADD CONSTRAINT no_machine CHECK (decision <> 'APPROVED' OR decided_by LIKE 'user:%')""",
        ],
    )
