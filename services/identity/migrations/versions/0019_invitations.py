"""Invitations, owners, and each person's default organization; the last Admin stays by the database's own rule.

The version before this one may run meanwhile: it knows none of these, and its own check of the last Admin is stricter.
"""

from alembic import op

from services._mesh.schema import allow, run, tenancy
from services._mesh.state_schema import Watched, more_state_seals

revision = "0019"
down_revision = "0018"

# Before the organization is known: an invitation shows itself to whoever supplies its secret's SHA-256.
_SUPPLIED = "secret_digest = (select decode(nullif(current_setting('app.invitation_sha256', true), ''), 'hex'))"

_INVITATIONS = [
    """CREATE TABLE identity.invitations (
        organization_id uuid NOT NULL REFERENCES identity.organizations (organization_id),
        invitation_id uuid NOT NULL,
        email text NOT NULL,
        role text NOT NULL,
        secret_digest bytea NOT NULL CHECK (octet_length(secret_digest) = 32),
        state text NOT NULL CHECK (state IN ('PENDING', 'ACCEPTED', 'REVOKED')),
        inviter text NOT NULL,
        created_at timestamptz NOT NULL,
        expires_at timestamptz NOT NULL,
        settled_at timestamptz,
        member_id uuid,
        PRIMARY KEY (organization_id, invitation_id),
        UNIQUE (organization_id, secret_digest),
        CHECK ((state = 'PENDING') = (settled_at IS NULL)),
        CHECK ((state = 'ACCEPTED') = (member_id IS NOT NULL)))""",
    "CREATE INDEX invitations_by_secret ON identity.invitations (secret_digest)",
    "CREATE UNIQUE INDEX invitations_pending ON identity.invitations (organization_id, email) WHERE state = 'PENDING'",
    *tenancy("identity", "invitations", "state"),
    f"CREATE POLICY by_secret ON identity.invitations FOR SELECT TO identity_api USING ({_SUPPLIED})",
    # What an invitation says can't be edited, and what became of it is final.
    *allow("identity", "invitations", api="SELECT, INSERT, UPDATE (state, settled_at, member_id)"),
    """CREATE FUNCTION identity.settle_once() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $body$
        BEGIN
          IF OLD.state <> 'PENDING' THEN
            RAISE EXCEPTION 'an invitation is settled once' USING ERRCODE = 'RC015';
          END IF;
          RETURN NEW;
        END $body$""",
    "CREATE TRIGGER settle_once BEFORE UPDATE ON identity.invitations"
    " FOR EACH ROW EXECUTE FUNCTION identity.settle_once()",
]

_OWNERSHIPS = [
    """CREATE TABLE identity.ownerships (
        organization_id uuid PRIMARY KEY REFERENCES identity.organizations (organization_id),
        member_id uuid NOT NULL,
        since timestamptz NOT NULL,
        FOREIGN KEY (organization_id, member_id) REFERENCES identity.members (organization_id, member_id))""",
    *tenancy("identity", "ownerships", "state"),
    *allow("identity", "ownerships", api="SELECT, INSERT, UPDATE"),
]

# At the commit, with the organization's row locked: whoever waited for it counts what the one before left.
_LAST_ADMIN = [
    """CREATE FUNCTION identity.keep_admin() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $body$
        BEGIN
          IF OLD.role <> 'ADMIN' OR OLD.state <> 'ACTIVE' THEN
            RETURN NULL;
          END IF;
          PERFORM FROM identity.organizations WHERE organization_id = OLD.organization_id FOR NO KEY UPDATE;
          IF NOT EXISTS (SELECT FROM identity.members
                         WHERE organization_id = OLD.organization_id AND role = 'ADMIN' AND state = 'ACTIVE') THEN
            RAISE EXCEPTION 'the last Admin of an organization stays' USING ERRCODE = 'RC016';
          END IF;
          RETURN NULL;
        END $body$""",
    "CREATE CONSTRAINT TRIGGER keep_admin AFTER UPDATE OR DELETE ON identity.members DEFERRABLE INITIALLY DEFERRED"
    " FOR EACH ROW EXECUTE FUNCTION identity.keep_admin()",
]

_DEFAULT = ["ALTER TABLE identity.members ADD COLUMN default_chosen_at timestamptz"]

_WATCHED = (
    Watched(
        "invitations",
        ("invitation_id",),
        ("email", "role", "secret_digest", "state", "expires_at", "member_id"),
    ),
    Watched("ownerships", (), ("member_id",)),
)


def upgrade() -> None:
    """Make the tables, and watch them."""
    run(op.execute, [*_INVITATIONS, *_OWNERSHIPS, *_LAST_ADMIN, *_DEFAULT, *more_state_seals("identity", _WATCHED)])
