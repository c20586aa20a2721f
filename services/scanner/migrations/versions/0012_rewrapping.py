"""Credentials know the KEK that they are under, and whether they were moved to another. The version before goes on."""

from alembic import op

from services._mesh.schema import run

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Add the columns. The KEK is read from the envelope itself (docs/ENVELOPE.md), so that it can't say otherwise."""
    run(op.execute, ["SET LOCAL lock_timeout = '10s'", *_CREDENTIALS, *_KEKS])


_CREDENTIALS = [
    """ALTER TABLE scanner.credentials
        ADD COLUMN kek bytea GENERATED ALWAYS AS (CASE
          WHEN length(envelope) < 5 THEN ''::bytea
          WHEN get_byte(envelope, 0) = 1 THEN substring(envelope FROM 4 FOR get_byte(envelope, 2))
          ELSE substring(envelope FROM 5 FOR get_byte(envelope, 2) * 256 + get_byte(envelope, 3)) END) STORED,
        ADD COLUMN rewrapped_at timestamptz,
        ADD COLUMN untold boolean NOT NULL DEFAULT false,
        ADD COLUMN stuck_for uuid,
        ADD COLUMN problem text NOT NULL DEFAULT ''""",
    "CREATE INDEX credentials_kek ON scanner.credentials (organization_id, kek, credential_id)",
    "CREATE INDEX credentials_untold ON scanner.credentials (organization_id, credential_id) WHERE untold",
    "GRANT UPDATE (envelope, rewrapped_at, untold, stuck_for, problem) ON scanner.credentials TO scanner_api",
]
_KEKS = [
    "ALTER TABLE scanner.keks DROP CONSTRAINT keks_state_check, ADD CONSTRAINT keks_state_check"
    " CHECK (state IN ('ACTIVE', 'SUPERSEDED', 'RETIRED'))",
]
