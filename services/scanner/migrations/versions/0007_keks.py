"""The keys that organizations bring for their secrets. The version before this one goes on without them."""

from alembic import op

from services._mesh.schema import run, tenancy
from services._mesh.state_schema import Watched, more_state_seals

revision = "0007"
down_revision = "0006"

_WATCHED = (Watched("keks", ("kek_id",), ("version", "provider", "key_id", "region", "key_version", "state")),)


def upgrade() -> None:
    """Make the table. Whoever could change a row of it unseen would choose who can open what is sealed next."""
    run(op.execute, [*_KEKS, *more_state_seals("scanner", _WATCHED)])


_KEKS = [
    """CREATE TABLE scanner.keks (
        organization_id uuid NOT NULL,
        kek_id uuid NOT NULL,
        version integer NOT NULL CHECK (version > 0),
        provider text NOT NULL CHECK (provider IN ('FILE', 'AWS', 'AZURE', 'GOOGLE')),
        key_id text NOT NULL CHECK (length(key_id) BETWEEN 1 AND 400),
        region text NOT NULL,
        key_version text NOT NULL,
        state text NOT NULL CHECK (state IN ('ACTIVE', 'SUPERSEDED')),
        created_at timestamptz NOT NULL,
        PRIMARY KEY (organization_id, kek_id),
        UNIQUE (organization_id, version),
        UNIQUE (organization_id, provider, key_id, key_version))""",
    "CREATE UNIQUE INDEX keks_active ON scanner.keks (organization_id) WHERE state = 'ACTIVE'",
    *tenancy("scanner", "keks", "state"),
    "GRANT SELECT, INSERT, UPDATE (state) ON scanner.keks TO scanner_api",
]
