"""Browser sessions, which a dashboard's cookie stands for.

New tables: the version before this one may run meanwhile, and refuses each such session.
"""

from alembic import op

from services._mesh.schema import allow, run, tenancy
from services._mesh.state_schema import Watched, more_state_seals

revision = "0028"
down_revision = "0027"

# Times are the wall clock's: they are about tokens.
_SESSIONS = [
    """CREATE TABLE identity.browser_sessions (
        organization_id uuid NOT NULL,
        session_id uuid NOT NULL,
        token_sha256 bytea NOT NULL CHECK (octet_length(token_sha256) = 32),
        user_id uuid NOT NULL,
        login_id text NOT NULL CHECK (login_id <> ''),
        provider_id uuid,
        aal smallint NOT NULL CHECK (aal IN (1, 2)),
        authenticated_at timestamptz NOT NULL,
        created_at timestamptz NOT NULL,
        expires_at timestamptz NOT NULL CHECK (expires_at <= created_at + interval '12 hours'),
        ended_at timestamptz,
        PRIMARY KEY (organization_id, session_id),
        UNIQUE (organization_id, token_sha256),
        FOREIGN KEY (organization_id, user_id) REFERENCES identity.members (organization_id, user_id))""",
    "CREATE INDEX browser_sessions_live ON identity.browser_sessions (organization_id, user_id) WHERE ended_at IS NULL",
    *tenancy("identity", "browser_sessions", "state"),
    *allow("identity", "browser_sessions", api="SELECT, INSERT, UPDATE"),
]

# When one was last used is no state: no event is owed for it.
_USES = [
    """CREATE TABLE identity.browser_session_uses (
        organization_id uuid NOT NULL,
        session_id uuid NOT NULL,
        used_at timestamptz NOT NULL,
        PRIMARY KEY (organization_id, session_id),
        FOREIGN KEY (organization_id, session_id)
          REFERENCES identity.browser_sessions (organization_id, session_id))""",
    *tenancy("identity", "browser_session_uses", "inventory"),
    *allow("identity", "browser_session_uses", api="SELECT, INSERT, UPDATE"),
]

_WATCHED = Watched(
    "browser_sessions",
    ("session_id",),
    ("token_sha256", "user_id", "login_id", "provider_id", "aal", "authenticated_at", "expires_at", "ended_at"),
)


def upgrade() -> None:
    """Make the tables, and watch the sessions."""
    run(op.execute, [*_SESSIONS, *_USES, *more_state_seals("identity", (_WATCHED,))])
