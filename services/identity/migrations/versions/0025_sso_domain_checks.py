"""Proven domains are looked for again: since when a record is gone, and when the next look is due.

The version before this one may run meanwhile: what falls due here it leaves alone, and says so in its own log.
"""

from alembic import op

from services._mesh.schema import run
from services._mesh.state_schema import Watched, watch_more

revision = "0025"
down_revision = "0024"

_DOMAINS = Watched("sso_domains", ("domain_id",), ("name", "state", "missing_since"))
_STATEMENTS = [
    "SET LOCAL lock_timeout = '10s'",
    "ALTER TABLE identity.sso_domains ADD COLUMN missing_since timestamptz",
    # The owner sees the rows of all organizations while row-level security isn't forced on it: in here alone.
    *(f"ALTER TABLE identity.{table} NO FORCE ROW LEVEL SECURITY" for table in ("sso_domains", "due_items")),
    "INSERT INTO identity.due_items (organization_id, kind, subject_id, due_at)"
    " SELECT organization_id, 'domain_check', domain_id, verified_at FROM identity.sso_domains"
    " WHERE state = 'VERIFIED'",
    *(f"ALTER TABLE identity.{table} FORCE ROW LEVEL SECURITY" for table in ("sso_domains", "due_items")),
]


def upgrade() -> None:
    """Add the column, watch it, and have each proven domain looked for."""
    run(op.execute, [*_STATEMENTS, *watch_more("identity", _DOMAINS, ("missing_since",))])
