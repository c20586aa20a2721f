"""Custom roles; what a member's role is limited to; since when a member may approve, and who confirmed it.

The version before this one may run meanwhile. It can't read members with a custom role; whom it adds or gives another
role may approve only once an Admin has confirmed it.
"""

from alembic import op

from services._mesh.schema import allow, run, tenancy
from services._mesh.state_schema import Watched, more_state_seals, watch_more

revision = "0014"
down_revision = "0013"

_MORE = (
    *("custom_role_id", "connection_ids", "resource_tags"),
    *("approver_for", "approver_since", "approver_by", "confirmed_by"),
)
_MEMBERS = Watched("members", ("member_id",), ("user_id", "role", "state", *_MORE))
_ROLES = Watched("roles", ("role_id",), ("name", "permissions"))
# Who came with the installation, or before this did, was let in by its operator.
_OPERATOR = "00000000-0000-0000-0000-000000000000"


def upgrade() -> None:
    """Make the table, and the columns of members."""
    run(op.execute, [*_TABLE, *_COLUMNS, *_GUARD, *_SEALS])


_TABLE = [
    """CREATE TABLE identity.roles (
        organization_id uuid NOT NULL REFERENCES identity.organizations (organization_id),
        role_id uuid NOT NULL,
        name text NOT NULL,
        description text NOT NULL,
        permissions text[] NOT NULL,
        version bigint NOT NULL DEFAULT 1,
        created_at timestamptz NOT NULL,
        PRIMARY KEY (organization_id, role_id),
        UNIQUE (organization_id, name))""",
    *tenancy("identity", "roles", "state"),
    *allow("identity", "roles", api="SELECT, INSERT, UPDATE, DELETE"),
]

_COLUMNS = [
    "SET LOCAL lock_timeout = '10s'",
    """ALTER TABLE identity.members
        ADD COLUMN custom_role_id uuid,
        ADD COLUMN connection_ids uuid[] NOT NULL DEFAULT '{}',
        ADD COLUMN resource_tags jsonb NOT NULL DEFAULT '[]',
        ADD COLUMN approver_for text,
        ADD COLUMN approver_since timestamptz,
        ADD COLUMN approver_by uuid,
        ADD COLUMN confirmed_by uuid,
        ADD CONSTRAINT custom_role FOREIGN KEY (organization_id, custom_role_id)
          REFERENCES identity.roles (organization_id, role_id),
        ADD CONSTRAINT custom_if_named CHECK (state = 'REMOVED' OR (role = 'CUSTOM') = (custom_role_id IS NOT NULL)),
        ADD CONSTRAINT admins_unlimited CHECK (
          role <> 'ADMIN' OR (connection_ids = '{}' AND resource_tags = '[]')),
        ADD CONSTRAINT confirmed_by_another CHECK (
          confirmed_by IS NULL OR (confirmed_by <> user_id AND confirmed_by IS DISTINCT FROM approver_by))""",
    "CREATE INDEX members_by_custom_role ON identity.members (organization_id, custom_role_id)"
    " WHERE custom_role_id IS NOT NULL",
    # No member changes by this, so no event is owed; what the columns say is sealed below.
    "ALTER TABLE identity.members DISABLE TRIGGER USER",
    "ALTER TABLE identity.members NO FORCE ROW LEVEL SECURITY",
    f"UPDATE identity.members SET approver_for = role, approver_since = created_at, confirmed_by = '{_OPERATOR}'",
    "ALTER TABLE identity.members FORCE ROW LEVEL SECURITY",
    "ALTER TABLE identity.members ENABLE TRIGGER USER",
]

# Who confirms is another human being than who approves and who gave the role, whichever of their logins did it.
_GUARD = [
    """CREATE FUNCTION identity.require_another_person() RETURNS trigger LANGUAGE plpgsql
        SET search_path = pg_catalog AS $body$
        DECLARE
          confirming uuid := coalesce((SELECT p.person_id FROM identity.persons p
            WHERE p.organization_id = NEW.organization_id AND p.user_id = NEW.confirmed_by), NEW.confirmed_by);
        BEGIN
          -- Nothing else that happens to a member is held up by it, not even that two of these turn out to be one.
          IF NEW.confirmed_by IS NULL OR TG_OP = 'UPDATE' AND NEW.confirmed_by IS NOT DISTINCT FROM OLD.confirmed_by
              AND NEW.approver_by IS NOT DISTINCT FROM OLD.approver_by AND NEW.user_id = OLD.user_id THEN
            RETURN NEW;
          ELSIF EXISTS (SELECT FROM unnest(ARRAY[NEW.user_id, NEW.approver_by]) AS u(id)
              LEFT JOIN identity.persons p ON p.organization_id = NEW.organization_id AND p.user_id = u.id
              WHERE coalesce(p.person_id, u.id) = confirming) THEN
            RAISE EXCEPTION 'another person has to confirm an approver' USING ERRCODE = 'RC005';
          END IF;
          RETURN NEW;
        END $body$""",
    "CREATE TRIGGER another_person BEFORE INSERT OR UPDATE ON identity.members"
    " FOR EACH ROW EXECUTE FUNCTION identity.require_another_person()",
]
_SEALS = [*more_state_seals("identity", (_ROLES,)), *watch_more("identity", _MEMBERS, _MORE)]
