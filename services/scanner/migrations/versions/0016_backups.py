"""Which backups there are, and how many of an organization's secrets in them are under which KEK.

Run deploy/bootstrap.sql again before this one: it makes the login that records backups. The version before this one may
run meanwhile: it retires KEKs without asking for backups, of which there are none yet.
"""

from alembic import op

from services._mesh.schema import allow, run, tenancy

revision = "0016"
down_revision = "0015"

_TABLES = [
    # One row for each KEK, and one without any for the platform, which says when a backup was verified.
    """CREATE TABLE scanner.backups (
        organization_id uuid NOT NULL,
        backup_id uuid NOT NULL,
        kek text NOT NULL,
        secrets integer NOT NULL CHECK (secrets >= 0),
        taken_at timestamptz NOT NULL,
        verified_at timestamptz,
        forgotten_at timestamptz,
        PRIMARY KEY (organization_id, backup_id, kek))""",
    "CREATE INDEX backups_kek ON scanner.backups (organization_id, kek) WHERE forgotten_at IS NULL",
    *tenancy("scanner", "backups", "state"),
    *allow("scanner", "backups", api="SELECT"),
    "GRANT SELECT, INSERT, UPDATE (verified_at, forgotten_at) ON scanner.backups TO scanner_backup",
    *allow("scanner", "keks", backup="SELECT"),
    *allow("scanner", "outbox", backup="SELECT, INSERT"),
    *allow("scanner", "outbox_counters", backup="SELECT, INSERT, UPDATE"),
]


def upgrade() -> None:
    """Make the table."""
    run(op.execute, ["SET LOCAL lock_timeout = '10s'", *_TABLES])
