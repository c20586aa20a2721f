"""Which users are one human being, and which login of an identity provider or directory is which user.

The version before this one may run meanwhile: it reads neither.
"""

from alembic import op

from services._mesh.schema import allow, run, tenancy
from services._mesh.state_schema import Watched, more_state_seals

revision = "0005"
down_revision = "0004"

_PERSONS = [
    """CREATE TABLE identity.persons (
        organization_id uuid NOT NULL REFERENCES identity.organizations (organization_id),
        user_id uuid NOT NULL,
        person_id uuid NOT NULL,
        linked_at timestamptz NOT NULL,
        PRIMARY KEY (organization_id, user_id))""",
    "CREATE INDEX persons_by_person ON identity.persons (organization_id, person_id)",
    *tenancy("identity", "persons", "state"),
    *allow("identity", "persons", api="SELECT, INSERT, UPDATE"),
]

_LINKED = [
    """CREATE TABLE identity.linked_identities (
        organization_id uuid NOT NULL REFERENCES identity.organizations (organization_id),
        identity_id uuid NOT NULL,
        kind text NOT NULL CHECK (kind IN ('SAML', 'SCIM')),
        issuer text NOT NULL,
        subject text NOT NULL,
        user_id uuid NOT NULL,
        state text NOT NULL CHECK (state IN ('ACTIVE', 'REMOVED')),
        created_at timestamptz NOT NULL,
        PRIMARY KEY (organization_id, identity_id),
        UNIQUE (organization_id, kind, issuer, subject))""",
    "CREATE INDEX linked_identities_by_user ON identity.linked_identities (organization_id, user_id)",
    *tenancy("identity", "linked_identities", "state"),
    *allow("identity", "linked_identities", api="SELECT, INSERT, UPDATE"),
]

_WATCHED = (
    Watched("persons", ("user_id",), ("person_id",)),
    Watched("linked_identities", ("identity_id",), ("kind", "issuer", "subject", "user_id", "state")),
)


def upgrade() -> None:
    """Make the tables, and watch them."""
    run(op.execute, [*_PERSONS, *_LINKED, *more_state_seals("identity", _WATCHED)])
