"""Organizations, members, the revocation feed."""

from alembic import op

from services._mesh.schema import allow, mesh_tables, run, tenancy

revision = "0001"
down_revision = None

# Whose memberships a session may see before an organization is chosen: its own person's, and no others.
_OWN = "user_id = (select nullif(current_setting('app.user_id', true), '')::uuid)"


def upgrade() -> None:
    """Make identity's tables."""
    run(op.execute, [*mesh_tables("identity", jobs=False, worker=False), *_ORGANIZATIONS, *_MEMBERS, *_REVOCATIONS])


_ORGANIZATIONS = [
    """CREATE TABLE identity.organizations (
        organization_id uuid PRIMARY KEY,
        slug text NOT NULL UNIQUE,
        display_name text NOT NULL,
        time_zone text NOT NULL,
        reporting_currency text NOT NULL CHECK (reporting_currency ~ '^[A-Z]{3}$'),
        state text NOT NULL CHECK (state IN ('ACTIVE', 'SUSPENDED')),
        version bigint NOT NULL DEFAULT 1,
        created_at timestamptz NOT NULL)""",
    *tenancy("identity", "organizations", "state"),
    *allow("identity", "organizations", api="SELECT, INSERT, UPDATE"),
]

_MEMBERS = [
    """CREATE TABLE identity.members (
        organization_id uuid NOT NULL REFERENCES identity.organizations (organization_id),
        member_id uuid NOT NULL,
        user_id uuid NOT NULL,
        email text NOT NULL,
        role text NOT NULL,
        state text NOT NULL CHECK (state IN ('ACTIVE', 'REMOVED')),
        version bigint NOT NULL DEFAULT 1,
        created_at timestamptz NOT NULL,
        PRIMARY KEY (organization_id, member_id),
        UNIQUE (organization_id, user_id))""",
    "CREATE INDEX members_by_user ON identity.members (user_id)",
    *tenancy("identity", "members", "state"),
    f"CREATE POLICY own ON identity.members FOR SELECT TO identity_api USING ({_OWN})",
    *allow("identity", "members", api="SELECT, INSERT, UPDATE"),
]

# The feed is the mesh's, not a tenant's: its keys are ids, and every process reads all of it.
_REVOCATIONS = [
    """CREATE TABLE identity.revocations (
        seq bigint PRIMARY KEY,
        kind text NOT NULL,
        key text NOT NULL,
        revoked_at timestamptz NOT NULL)""",
    "COMMENT ON TABLE identity.revocations IS 'kind=reference'",
    "GRANT SELECT, INSERT ON identity.revocations TO identity_api",
    """CREATE TABLE identity.revocation_head (
        singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
        seq bigint NOT NULL)""",
    "COMMENT ON TABLE identity.revocation_head IS 'kind=reference'",
    "INSERT INTO identity.revocation_head (seq) VALUES (0)",
    "GRANT SELECT, UPDATE ON identity.revocation_head TO identity_api",
]
