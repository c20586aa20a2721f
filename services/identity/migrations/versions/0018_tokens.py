"""Service accounts and API tokens.

The version before this one may run meanwhile: it knows neither, and refuses every token.
"""

from alembic import op

from services._mesh.schema import allow, run, tenancy
from services._mesh.state_schema import Watched, more_state_seals

revision = "0018"
down_revision = "0017"

# Which token it is, before the organization is known: whoever supplies its digest sees the row, and no other.
_BY_DIGEST = "secret_sha256 = (select decode(nullif(current_setting('app.token_sha256', true), ''), 'hex'))"

_SERVICE_ACCOUNTS = [
    """CREATE TABLE identity.service_accounts (
        organization_id uuid NOT NULL REFERENCES identity.organizations (organization_id),
        service_account_id uuid NOT NULL,
        display_name text NOT NULL,
        owner_user_id uuid NOT NULL,
        state text NOT NULL CHECK (state IN ('ACTIVE', 'DISABLED')),
        version bigint NOT NULL DEFAULT 1,
        created_at timestamptz NOT NULL,
        PRIMARY KEY (organization_id, service_account_id),
        FOREIGN KEY (organization_id, owner_user_id) REFERENCES identity.members (organization_id, user_id))""",
    "CREATE INDEX service_accounts_by_owner ON identity.service_accounts (organization_id, owner_user_id)",
    *tenancy("identity", "service_accounts", "state"),
    *allow("identity", "service_accounts", api="SELECT, INSERT, UPDATE"),
]

_TOKENS = [
    """CREATE TABLE identity.api_tokens (
        organization_id uuid NOT NULL REFERENCES identity.organizations (organization_id),
        token_id uuid NOT NULL,
        service_account_id uuid,
        creator_user_id uuid NOT NULL,
        display_name text NOT NULL,
        secret_sha256 bytea NOT NULL CHECK (octet_length(secret_sha256) = 32),
        hint text NOT NULL,
        permissions text[] NOT NULL,
        connection_ids uuid[] NOT NULL,
        state text NOT NULL CHECK (state IN ('ACTIVE', 'REVOKED')),
        created_at timestamptz NOT NULL,
        expires_at timestamptz NOT NULL CHECK (expires_at <= created_at + interval '8760 hours'),
        replaced_by uuid,
        PRIMARY KEY (organization_id, token_id),
        FOREIGN KEY (organization_id, service_account_id)
          REFERENCES identity.service_accounts (organization_id, service_account_id),
        FOREIGN KEY (organization_id, creator_user_id) REFERENCES identity.members (organization_id, user_id))""",
    "CREATE INDEX api_tokens_by_secret ON identity.api_tokens (secret_sha256)",
    "CREATE INDEX api_tokens_by_creator ON identity.api_tokens (organization_id, creator_user_id)",
    "CREATE INDEX api_tokens_by_service_account ON identity.api_tokens (organization_id, service_account_id)",
    *tenancy("identity", "api_tokens", "state"),
    f"CREATE POLICY by_secret ON identity.api_tokens FOR SELECT TO identity_api USING ({_BY_DIGEST})",
    *allow("identity", "api_tokens", api="SELECT, INSERT, UPDATE"),
]

# When a token was last used is no state: no event is owed for it, and it decides nothing.
_USES = [
    """CREATE TABLE identity.api_token_uses (
        organization_id uuid NOT NULL,
        token_id uuid NOT NULL,
        last_used_at timestamptz NOT NULL,
        PRIMARY KEY (organization_id, token_id),
        FOREIGN KEY (organization_id, token_id) REFERENCES identity.api_tokens (organization_id, token_id))""",
    *tenancy("identity", "api_token_uses", "inventory"),
    *allow("identity", "api_token_uses", api="SELECT, INSERT, UPDATE"),
]

_WATCHED = (
    Watched("service_accounts", ("service_account_id",), ("owner_user_id", "state")),
    Watched(
        "api_tokens",
        ("token_id",),
        (
            *("service_account_id", "creator_user_id", "secret_sha256", "permissions", "connection_ids", "state"),
            *("created_at", "expires_at"),
        ),
    ),
)


def upgrade() -> None:
    """Make the tables, and watch them."""
    run(op.execute, [*_SERVICE_ACCOUNTS, *_TOKENS, *_USES, *more_state_seals("identity", _WATCHED)])
