"""When credentials were last fetched to be opened. The version before this one may run meanwhile, and notes nothing."""

from alembic import op

from services._mesh.schema import run, tenancy

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    """Make the table. Whoever destroys a credential drops its row."""
    run(op.execute, ["SET LOCAL lock_timeout = '10s'", *_USES])


_USES = [
    """CREATE TABLE scanner.credential_uses (
        organization_id uuid NOT NULL,
        credential_id uuid NOT NULL,
        last_used_at timestamptz NOT NULL,
        PRIMARY KEY (organization_id, credential_id))""",
    *tenancy("scanner", "credential_uses", "inventory"),
    "GRANT SELECT, INSERT, UPDATE, DELETE ON scanner.credential_uses TO scanner_api",
    "GRANT SELECT (credential_id), DELETE ON scanner.credential_uses TO scanner_worker",
    "CREATE INDEX rotations_candidate ON scanner.rotations (organization_id, candidate_id)",
]
