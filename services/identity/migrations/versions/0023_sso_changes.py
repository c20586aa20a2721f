"""When what a provider vouches for changed, who changed it, and who confirmed that: approvals wait for it.

The version before this one may run meanwhile: a change that it makes is one that nobody waits for, as before. What
stands in these tables now has been believed all along.
"""

from alembic import op

from services._mesh.schema import run
from services._mesh.state_schema import Watched, watch_more

revision = "0023"
down_revision = "0022"

_MORE = ("changed_at", "changed_by", "confirmed_by")
_PROVIDERS = Watched(
    "sso_providers",
    ("provider_id",),
    (
        *("state", "entity_id", "certificates", "provider_initiated", "mfa_contexts", "default_role", "enforced"),
        *_MORE,
    ),
)
_COLUMNS = [
    "SET LOCAL lock_timeout = '10s'",
    """ALTER TABLE identity.sso_providers
        ADD COLUMN changed_at timestamptz,
        ADD COLUMN changed_by uuid,
        ADD COLUMN confirmed_by uuid,
        ADD CONSTRAINT confirmed_by_another CHECK (
          confirmed_by IS NULL OR (changed_by IS NOT NULL AND confirmed_by <> changed_by))""",
]


def upgrade() -> None:
    """Add the columns, and watch them."""
    run(op.execute, [*_COLUMNS, *watch_more("identity", _PROVIDERS, _MORE)])
