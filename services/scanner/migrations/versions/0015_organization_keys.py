"""The organization's own keys. Their envelopes lie with those of connections, so that a KEK's rotation moves them too.

The version before this one may run meanwhile: it makes none, and a rotation that it does takes each for a base key,
can't move it, and says so; the next one moves it.
"""

from alembic import op

from services._mesh.schema import allow, run, tenancy
from services._mesh.state_schema import Watched, more_state_seals

revision = "0015"
down_revision = "0014"

# Whoever could change a row of it unseen would make an ended key good again, or another's good for webhooks.
_WATCHED = (Watched("organization_keys", ("key_id",), ("purpose", "name", "state", "ends_at")),)


def upgrade() -> None:
    """Make the table, and let envelopes belong to no connection."""
    run(op.execute, ["SET LOCAL lock_timeout = '10s'", *_CREDENTIALS, *_KEYS, *more_state_seals("scanner", _WATCHED)])


_CREDENTIALS = [
    """ALTER TABLE scanner.credentials
        ADD COLUMN purpose text NOT NULL DEFAULT 'aws.base_key',
        ALTER COLUMN connection_id DROP NOT NULL,
        ADD CONSTRAINT credentials_owner CHECK ((connection_id IS NULL) = (purpose IN ('webhook.key', 'ai.key')))""",
]
_KEYS = [
    """CREATE TABLE scanner.organization_keys (
        organization_id uuid NOT NULL,
        key_id uuid NOT NULL,
        purpose text NOT NULL CHECK (purpose IN ('webhook.key', 'ai.key')),
        name text NOT NULL,
        state text NOT NULL CHECK (state IN ('ACTIVE', 'RETIRING', 'REVOKED')),
        created_at timestamptz NOT NULL,
        ends_at timestamptz,
        PRIMARY KEY (organization_id, key_id),
        CHECK ((state = 'ACTIVE') = (ends_at IS NULL)))""",
    # So that two at most are live: the one that is used, and the one whose place it takes.
    "CREATE UNIQUE INDEX organization_keys_active ON scanner.organization_keys (organization_id, purpose, name)"
    " WHERE state = 'ACTIVE'",
    "CREATE UNIQUE INDEX organization_keys_retiring ON scanner.organization_keys (organization_id, purpose, name)"
    " WHERE state = 'RETIRING'",
    *tenancy("scanner", "organization_keys", "state"),
    *allow("scanner", "organization_keys", api="SELECT, INSERT", worker="SELECT"),
    "GRANT UPDATE (state, ends_at) ON scanner.organization_keys TO scanner_api, scanner_worker",
]
