"""Single sign-on: identity providers, proven domains, who gets which role, and the sessions made of it.

New tables only: the version before this one may run meanwhile. Sessions of its people end with what they were made of.
"""

from alembic import op

from services._mesh.schema import allow, run, tenancy
from services._mesh.state_schema import Watched, more_state_seals

revision = "0020"
down_revision = "0019"

_PROVIDERS = [
    """CREATE TABLE identity.sso_providers (
        organization_id uuid NOT NULL REFERENCES identity.organizations (organization_id),
        provider_id uuid NOT NULL,
        display_name text NOT NULL,
        state text NOT NULL CHECK (state IN ('SETUP', 'ACTIVE', 'DISABLED')),
        entity_id text NOT NULL DEFAULT '',
        sso_url text NOT NULL DEFAULT '',
        certificates text[] NOT NULL DEFAULT '{}',
        metadata_url text NOT NULL DEFAULT '',
        provider_initiated boolean NOT NULL DEFAULT false,
        email_attribute text NOT NULL DEFAULT '',
        groups_attribute text NOT NULL DEFAULT '',
        mfa_contexts text[] NOT NULL DEFAULT '{}',
        default_role text NOT NULL DEFAULT '',
        session_minutes integer NOT NULL DEFAULT 480 CHECK (session_minutes BETWEEN 1 AND 1440),
        enforced boolean NOT NULL DEFAULT false,
        break_glass_member_id uuid,
        config_version bigint NOT NULL DEFAULT 1,
        tested_version bigint NOT NULL DEFAULT 0,
        version bigint NOT NULL DEFAULT 1,
        created_at timestamptz NOT NULL,
        PRIMARY KEY (organization_id, provider_id),
        FOREIGN KEY (organization_id, break_glass_member_id)
          REFERENCES identity.members (organization_id, member_id),
        CHECK (NOT enforced OR (state = 'ACTIVE' AND break_glass_member_id IS NOT NULL)))""",
    *tenancy("identity", "sso_providers", "state"),
    *allow("identity", "sso_providers", api="SELECT, INSERT, UPDATE"),
    """CREATE TABLE identity.sso_group_roles (
        organization_id uuid NOT NULL,
        mapping_id uuid NOT NULL,
        provider_id uuid NOT NULL,
        place integer NOT NULL,
        group_name text NOT NULL,
        role text NOT NULL,
        custom_role_id uuid,
        granted_by uuid NOT NULL,
        PRIMARY KEY (organization_id, mapping_id),
        UNIQUE (organization_id, provider_id, group_name),
        CHECK ((role = 'CUSTOM') = (custom_role_id IS NOT NULL)),
        FOREIGN KEY (organization_id, custom_role_id) REFERENCES identity.roles (organization_id, role_id),
        FOREIGN KEY (organization_id, provider_id)
          REFERENCES identity.sso_providers (organization_id, provider_id))""",
    *tenancy("identity", "sso_group_roles", "state"),
    *allow("identity", "sso_group_roles", api="SELECT, INSERT, DELETE"),
]

_DOMAINS = [
    """CREATE TABLE identity.sso_domains (
        organization_id uuid NOT NULL REFERENCES identity.organizations (organization_id),
        domain_id uuid NOT NULL,
        name text NOT NULL,
        challenge text NOT NULL,
        state text NOT NULL CHECK (state IN ('PENDING', 'VERIFIED')),
        verified_at timestamptz,
        created_at timestamptz NOT NULL,
        PRIMARY KEY (organization_id, domain_id),
        UNIQUE (organization_id, name))""",
    *tenancy("identity", "sso_domains", "state"),
    *allow("identity", "sso_domains", api="SELECT, INSERT, UPDATE, DELETE"),
]

# Times here are the wall clock's: they are about tokens. What is used once is deleted by its use.
_LOGINS = [
    """CREATE TABLE identity.sso_requests (
        organization_id uuid NOT NULL,
        request_id text NOT NULL,
        provider_id uuid NOT NULL,
        relay_sha256 bytea NOT NULL,
        challenge text NOT NULL,
        return_to text NOT NULL,
        test_id uuid,
        expires_at timestamptz NOT NULL,
        PRIMARY KEY (organization_id, request_id))""",
    "CREATE INDEX sso_requests_end ON identity.sso_requests (organization_id, expires_at)",
    *tenancy("identity", "sso_requests", "inventory"),
    *allow("identity", "sso_requests", api="SELECT, INSERT, DELETE"),
    """CREATE TABLE identity.sso_assertions (
        organization_id uuid NOT NULL,
        provider_id uuid NOT NULL,
        assertion_sha256 bytea NOT NULL,
        expires_at timestamptz NOT NULL,
        PRIMARY KEY (organization_id, provider_id, assertion_sha256))""",
    "CREATE INDEX sso_assertions_end ON identity.sso_assertions (organization_id, expires_at)",
    *tenancy("identity", "sso_assertions", "inventory"),
    *allow("identity", "sso_assertions", api="SELECT, INSERT, DELETE"),
    """CREATE TABLE identity.sso_tests (
        organization_id uuid NOT NULL,
        test_id uuid NOT NULL,
        provider_id uuid NOT NULL,
        config_version bigint NOT NULL,
        state text NOT NULL CHECK (state IN ('PENDING', 'PASSED', 'FAILED')),
        problem text NOT NULL DEFAULT '',
        name_id text NOT NULL DEFAULT '',
        email text NOT NULL DEFAULT '',
        role text NOT NULL DEFAULT '',
        aal integer NOT NULL DEFAULT 0,
        attribute_names text[] NOT NULL DEFAULT '{}',
        expires_at timestamptz NOT NULL,
        PRIMARY KEY (organization_id, test_id))""",
    "CREATE INDEX sso_tests_end ON identity.sso_tests (organization_id, expires_at)",
    *tenancy("identity", "sso_tests", "inventory"),
    *allow("identity", "sso_tests", api="SELECT, INSERT, UPDATE, DELETE"),
    """CREATE TABLE identity.sso_codes (
        organization_id uuid NOT NULL,
        code_sha256 bytea NOT NULL,
        provider_id uuid NOT NULL,
        user_id uuid NOT NULL,
        aal integer NOT NULL,
        authenticated_at timestamptz NOT NULL,
        session_ends_at timestamptz NOT NULL,
        challenge text NOT NULL,
        expires_at timestamptz NOT NULL,
        PRIMARY KEY (organization_id, code_sha256))""",
    "CREATE INDEX sso_codes_end ON identity.sso_codes (organization_id, expires_at)",
    *tenancy("identity", "sso_codes", "inventory"),
    *allow("identity", "sso_codes", api="SELECT, INSERT, DELETE"),
]

_SESSIONS = [
    """CREATE TABLE identity.sso_sessions (
        organization_id uuid NOT NULL,
        session_id uuid NOT NULL,
        token_hash bytea NOT NULL,
        provider_id uuid NOT NULL,
        user_id uuid NOT NULL,
        aal integer NOT NULL CHECK (aal IN (1, 2)),
        authenticated_at timestamptz NOT NULL,
        expires_at timestamptz NOT NULL,
        ended_at timestamptz,
        PRIMARY KEY (organization_id, session_id),
        UNIQUE (organization_id, token_hash),
        FOREIGN KEY (organization_id, provider_id)
          REFERENCES identity.sso_providers (organization_id, provider_id))""",
    "CREATE INDEX sso_sessions_live ON identity.sso_sessions (organization_id, user_id) WHERE ended_at IS NULL",
    *tenancy("identity", "sso_sessions", "state"),
    *allow("identity", "sso_sessions", api="SELECT, INSERT, UPDATE"),
]

_WATCHED = (
    Watched(
        "sso_providers",
        ("provider_id",),
        ("state", "entity_id", "certificates", "provider_initiated", "mfa_contexts", "default_role", "enforced"),
    ),
    Watched("sso_group_roles", ("mapping_id",), ("provider_id", "group_name", "role", "custom_role_id")),
    Watched("sso_domains", ("domain_id",), ("name", "state")),
    Watched("sso_sessions", ("session_id",), ("token_hash", "user_id", "aal", "expires_at", "ended_at")),
)


def upgrade() -> None:
    """Make the tables, and watch those that decide who is let in."""
    run(op.execute, [*_PROVIDERS, *_DOMAINS, *_LOGINS, *_SESSIONS, *more_state_seals("identity", _WATCHED)])
