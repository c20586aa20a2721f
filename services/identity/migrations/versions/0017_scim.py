"""What a directory provisions by SCIM: its tokens, users, groups, and the roles that groups stand for.

The version before this one may run meanwhile: it reads none of it.
"""

from alembic import op

from services._mesh.schema import allow, run, tenancy
from services._mesh.state_schema import Watched, more_state_seals

revision = "0017"
down_revision = "0016"

# Before the organization is known, a row is shown to whoever supplies the SHA-256 of its token.
_LOOKUP = "token_sha256 = (select decode(nullif(current_setting('app.scim_token_sha256', true), ''), 'hex'))"

_TOKENS = [
    """CREATE TABLE identity.scim_tokens (
        organization_id uuid NOT NULL REFERENCES identity.organizations (organization_id),
        token_id uuid NOT NULL,
        name text NOT NULL,
        token_sha256 bytea NOT NULL CHECK (octet_length(token_sha256) = 32),
        created_by uuid NOT NULL,
        created_at timestamptz NOT NULL,
        expires_at timestamptz NOT NULL,
        revoked_at timestamptz,
        PRIMARY KEY (organization_id, token_id))""",
    "CREATE INDEX scim_tokens_by_hash ON identity.scim_tokens (token_sha256)",
    *tenancy("identity", "scim_tokens", "state"),
    f"CREATE POLICY lookup ON identity.scim_tokens FOR SELECT TO identity_api USING ({_LOOKUP})",
    *allow("identity", "scim_tokens", api="SELECT, INSERT, UPDATE"),
    """CREATE TABLE identity.scim_token_uses (
        organization_id uuid NOT NULL,
        token_id uuid NOT NULL,
        used_at timestamptz NOT NULL,
        wrote_at timestamptz,
        PRIMARY KEY (organization_id, token_id),
        FOREIGN KEY (organization_id, token_id) REFERENCES identity.scim_tokens (organization_id, token_id))""",
    *tenancy("identity", "scim_token_uses", "inventory"),
    *allow("identity", "scim_token_uses", api="SELECT, INSERT, UPDATE"),
]

_USERS = [
    """CREATE TABLE identity.scim_users (
        organization_id uuid NOT NULL REFERENCES identity.organizations (organization_id),
        scim_id uuid NOT NULL,
        user_name text NOT NULL,
        user_name_key text NOT NULL,
        external_id text NOT NULL,
        display_name_key text NOT NULL,
        email_key text NOT NULL,
        active boolean NOT NULL,
        document jsonb NOT NULL,
        user_id uuid,
        version bigint NOT NULL,
        created_at timestamptz NOT NULL,
        modified_at timestamptz NOT NULL,
        deleted_at timestamptz,
        PRIMARY KEY (organization_id, scim_id))""",
    """CREATE UNIQUE INDEX scim_users_by_name ON identity.scim_users (organization_id, user_name_key)
        WHERE deleted_at IS NULL""",
    """CREATE UNIQUE INDEX scim_users_by_user ON identity.scim_users (organization_id, user_id)
        WHERE deleted_at IS NULL AND user_id IS NOT NULL""",
    "CREATE INDEX scim_users_by_external_id ON identity.scim_users (organization_id, external_id)",
    "CREATE INDEX scim_users_by_email ON identity.scim_users (organization_id, email_key)",
    *tenancy("identity", "scim_users", "state"),
    *allow("identity", "scim_users", api="SELECT, INSERT, UPDATE"),
]

_GROUPS = [
    """CREATE TABLE identity.scim_groups (
        organization_id uuid NOT NULL REFERENCES identity.organizations (organization_id),
        group_id uuid NOT NULL,
        display_name text NOT NULL,
        display_name_key text NOT NULL,
        external_id text NOT NULL,
        version bigint NOT NULL,
        created_at timestamptz NOT NULL,
        modified_at timestamptz NOT NULL,
        deleted_at timestamptz,
        PRIMARY KEY (organization_id, group_id))""",
    """CREATE UNIQUE INDEX scim_groups_by_name ON identity.scim_groups (organization_id, display_name_key)
        WHERE deleted_at IS NULL""",
    "CREATE INDEX scim_groups_by_external_id ON identity.scim_groups (organization_id, external_id)",
    *tenancy("identity", "scim_groups", "state"),
    *allow("identity", "scim_groups", api="SELECT, INSERT, UPDATE"),
    """CREATE TABLE identity.scim_group_members (
        organization_id uuid NOT NULL,
        group_id uuid NOT NULL,
        scim_id uuid NOT NULL,
        PRIMARY KEY (organization_id, group_id, scim_id),
        FOREIGN KEY (organization_id, group_id) REFERENCES identity.scim_groups (organization_id, group_id),
        FOREIGN KEY (organization_id, scim_id) REFERENCES identity.scim_users (organization_id, scim_id))""",
    "CREATE INDEX scim_group_members_by_user ON identity.scim_group_members (organization_id, scim_id)",
    *tenancy("identity", "scim_group_members", "state"),
    *allow("identity", "scim_group_members", api="SELECT, INSERT, DELETE"),
]

_ROLES = [
    # The first place that fits gives the role.
    """CREATE TABLE identity.scim_roles (
        organization_id uuid NOT NULL REFERENCES identity.organizations (organization_id),
        mapping_id uuid NOT NULL,
        place integer NOT NULL,
        group_name text NOT NULL,
        group_name_key text NOT NULL,
        role text NOT NULL,
        custom_role_id uuid,
        PRIMARY KEY (organization_id, mapping_id),
        UNIQUE (organization_id, group_name_key))""",
    *tenancy("identity", "scim_roles", "state"),
    *allow("identity", "scim_roles", api="SELECT, INSERT, DELETE"),
]

_WATCHED = (
    Watched("scim_tokens", ("token_id",), ("token_sha256", "expires_at", "revoked_at")),
    Watched("scim_users", ("scim_id",), ("user_id", "active", "deleted_at")),
    Watched("scim_group_members", ("group_id", "scim_id"), ("scim_id",)),
    Watched("scim_roles", ("mapping_id",), ("place", "group_name_key", "role", "custom_role_id")),
)


def upgrade() -> None:
    """Make the tables, and watch those that decide who may do what."""
    run(op.execute, [*_TOKENS, *_USERS, *_GROUPS, *_ROLES, *more_state_seals("identity", _WATCHED)])
