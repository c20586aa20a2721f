"""How old an organization lets the credentials of its connections get. The version before this one may run meanwhile.

An organization that never said has no row: it is reminded, and nothing of it is refused.
"""

from alembic import op

from services._mesh.schema import run, tenancy
from services._mesh.state_schema import Watched, more_state_seals

revision = "0017"
down_revision = "0016"

_COLUMNS = ("remind_after_days", "rotate_within_days", "enforced_from")


def upgrade() -> None:
    """Make the table; note on each credential what was told of it."""
    run(op.execute, ["SET LOCAL lock_timeout = '10s'", *_RULES, *_CREDENTIALS])
    run(op.execute, more_state_seals("scanner", (Watched("rotation_rules", (), _COLUMNS),)))


_RULES = [
    """CREATE TABLE scanner.rotation_rules (
        organization_id uuid NOT NULL,
        remind_after_days integer NOT NULL CHECK (remind_after_days BETWEEN 0 AND 3650),
        rotate_within_days integer NOT NULL CHECK (rotate_within_days BETWEEN 0 AND 3650),
        enforced_from timestamptz,
        changed_at timestamptz NOT NULL,
        PRIMARY KEY (organization_id))""",
    *tenancy("scanner", "rotation_rules", "state"),
    "GRANT SELECT, INSERT, UPDATE ON scanner.rotation_rules TO scanner_api",
    "GRANT SELECT ON scanner.rotation_rules TO scanner_worker",
]
_CREDENTIALS = [
    "ALTER TABLE scanner.credentials ADD COLUMN reminded_at timestamptz, ADD COLUMN refusal_told_at timestamptz",
    "GRANT SELECT (created_at, reminded_at, refusal_told_at), UPDATE (reminded_at, refusal_told_at)"
    " ON scanner.credentials TO scanner_worker",
]
