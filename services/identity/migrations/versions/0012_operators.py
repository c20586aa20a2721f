"""Operators' access to organizations, and the token that hands a new installation to its first Admin.

New tables only: the version before this one doesn't know them.
"""

from alembic import op

from services._mesh.schema import allow, reference, run, tenancy
from services._mesh.state_schema import Watched, more_state_seals

revision = "0012"
down_revision = "0005"


def upgrade() -> None:
    """Make the tables."""
    watched = (Watched("operator_accesses", ("access_id",), ("operator_id", "role", "state", "expires_at")),)
    run(op.execute, [*_ACCESSES, *_ENTRIES, *_INSTALLATION, *more_state_seals("identity", watched)])


# Whoever asks isn't who decides, and nothing lasts longer than a day from the decision: also for whoever writes SQL.
_ACCESSES = [
    """CREATE TABLE identity.operator_accesses (
        organization_id uuid NOT NULL REFERENCES identity.organizations (organization_id),
        access_id uuid NOT NULL,
        operator_id uuid NOT NULL,
        role text NOT NULL CHECK (role IN ('AUDITOR', 'VIEWER')),
        reason text NOT NULL,
        hours integer NOT NULL CHECK (hours BETWEEN 1 AND 24),
        state text NOT NULL CHECK (state IN ('REQUESTED', 'GRANTED', 'REFUSED', 'REVOKED', 'EXPIRED')),
        requested_at timestamptz NOT NULL,
        decided_at timestamptz,
        decided_by uuid,
        expires_at timestamptz NOT NULL,
        PRIMARY KEY (organization_id, access_id),
        CONSTRAINT somebody_else_decides CHECK (decided_by <> operator_id OR state = 'REFUSED'),
        CONSTRAINT granted_for_a_time CHECK (
          state <> 'GRANTED'
          OR (decided_at IS NOT NULL AND decided_by IS NOT NULL
              AND expires_at <= decided_at + make_interval(hours => hours))))""",
    """CREATE UNIQUE INDEX operator_accesses_undecided ON identity.operator_accesses (organization_id, operator_id)
        WHERE state = 'REQUESTED'""",
    *tenancy("identity", "operator_accesses", "state"),
    *allow("identity", "operator_accesses", api="SELECT, INSERT, UPDATE"),
]

_ENTRIES = [
    """CREATE TABLE identity.operator_entries (
        organization_id uuid NOT NULL,
        access_id uuid NOT NULL,
        session_id text NOT NULL,
        entered_at timestamptz NOT NULL,
        PRIMARY KEY (organization_id, access_id, session_id),
        FOREIGN KEY (organization_id, access_id)
          REFERENCES identity.operator_accesses (organization_id, access_id))""",
    *tenancy("identity", "operator_entries", "state"),
    *allow("identity", "operator_entries", api="SELECT, INSERT"),
]

_INSTALLATION = [
    """CREATE TABLE identity.installation (
        singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
        token_sha256 bytea NOT NULL CHECK (length(token_sha256) = 32),
        token_expires_at timestamptz NOT NULL)""",
    *reference("identity", "installation"),
    *allow("identity", "installation", api="SELECT, INSERT, UPDATE, DELETE"),
]
