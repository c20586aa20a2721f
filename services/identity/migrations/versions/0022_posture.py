"""When members were seen last, and with which assurance level. The version before this one notes nothing."""

from alembic import op

from services._mesh.schema import allow, run, tenancy

revision = "0022"
down_revision = "0021"

_SIGHTINGS = [
    """CREATE TABLE identity.member_sightings (
        organization_id uuid NOT NULL REFERENCES identity.organizations (organization_id),
        user_id uuid NOT NULL,
        last_seen_at timestamptz NOT NULL,
        last_aal smallint NOT NULL,
        PRIMARY KEY (organization_id, user_id))""",
    *tenancy("identity", "member_sightings", "inventory"),
    *allow("identity", "member_sightings", api="SELECT, INSERT, UPDATE"),
]


def upgrade() -> None:
    """Make the table."""
    run(op.execute, _SIGHTINGS)
