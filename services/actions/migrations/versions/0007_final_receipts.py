"""A receipt that became final is kept as it was proved: what the log takes out of its database later changes nothing.

The version before this one may run meanwhile: it proves each receipt anew.
"""

from alembic import op

from services._mesh.schema import allow, run, tenancy

revision = "0007"
down_revision = "0006"

_FINAL = [
    """CREATE TABLE actions.final_receipts (
        organization_id uuid NOT NULL,
        receipt_id uuid NOT NULL,
        bundle bytea NOT NULL,
        PRIMARY KEY (organization_id, receipt_id),
        FOREIGN KEY (organization_id, receipt_id) REFERENCES actions.receipts (organization_id, receipt_id))""",
    *tenancy("actions", "final_receipts", "inventory"),
    # What the log erases of its events is erased here, too.
    *allow("actions", "final_receipts", api="SELECT, INSERT, DELETE"),
]


def upgrade() -> None:
    """Make the table."""
    run(op.execute, _FINAL)
