"""Credentials give way to others. The version before this one may run meanwhile: it begins no rotation."""

from alembic import op

from services._mesh.schema import limited, run, tenancy
from services._mesh.state_schema import Watched, more_state_seals

revision = "0014"
down_revision = "0013"

# Whoever could change these unseen would choose the credential that plans and bill sources are carried out with.
_WATCHED = (Watched("rotations", ("rotation_id",), ("connection_id", "candidate_id", "replaced_id", "state")),)


def upgrade() -> None:
    """Make the table; let whoever ends a rotation drop the credential that came to its end."""
    run(op.execute, ["SET LOCAL lock_timeout = '10s'", *_ROTATIONS, *_CREDENTIALS])
    run(op.execute, more_state_seals("scanner", _WATCHED))


_ROTATIONS = [
    """CREATE TABLE scanner.rotations (
        organization_id uuid NOT NULL,
        rotation_id uuid NOT NULL,
        connection_id uuid NOT NULL,
        state text NOT NULL CHECK (state IN ('PROBING', 'READING', 'DRAINING', 'DONE', 'FAILED', 'CANCELLED')),
        candidate_id uuid NOT NULL,
        replaced_id uuid NOT NULL,
        access_key_id text NOT NULL,
        replaced_access_key_id text NOT NULL,
        problem text NOT NULL DEFAULT '',
        role_checks jsonb NOT NULL DEFAULT '[]',
        permission_checks jsonb NOT NULL DEFAULT '[]',
        started_at timestamptz NOT NULL,
        promoted_at timestamptz,
        drains_until timestamptz,
        ended_at timestamptz,
        told boolean NOT NULL DEFAULT false,
        PRIMARY KEY (organization_id, rotation_id),
        FOREIGN KEY (organization_id, connection_id)
          REFERENCES scanner.connections (organization_id, connection_id))""",
    # One rotation of a connection at a time.
    "CREATE UNIQUE INDEX rotations_open ON scanner.rotations (organization_id, connection_id)"
    " WHERE state IN ('PROBING', 'READING', 'DRAINING')",
    "CREATE INDEX rotations_newest ON scanner.rotations (organization_id, connection_id, rotation_id)",
    "CREATE INDEX rotations_replaced ON scanner.rotations (organization_id, replaced_id)",
    *tenancy("scanner", "rotations", "state"),
    *limited("scanner", "rotations", connection="connection_id"),
    "GRANT SELECT, INSERT, UPDATE (state, problem, ended_at) ON scanner.rotations TO scanner_api",
    "GRANT SELECT, UPDATE (state, problem, role_checks, permission_checks, promoted_at, drains_until, ended_at, told)"
    " ON scanner.rotations TO scanner_worker",
]
_CREDENTIALS = [
    "GRANT SELECT (credential_id) ON scanner.credentials TO scanner_worker",
    "CREATE INDEX connections_credential ON scanner.connections (organization_id, credential_id)",
]
