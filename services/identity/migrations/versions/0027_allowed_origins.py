"""Which web pages of other origins may call for an organization.

A new table: the version before this one may run meanwhile, and the edge finds nobody who lets anything in.
"""

from alembic import op

from services._mesh.schema import allow, run, tenancy
from services._mesh.state_schema import Watched, more_state_seals

revision = "0027"
down_revision = "0026"

# Neither "*" nor "null" is an origin that anybody can allow, whoever writes the row.
_ORIGINS = [
    r"""CREATE TABLE identity.allowed_origins (
        organization_id uuid PRIMARY KEY REFERENCES identity.organizations (organization_id),
        origins text[] NOT NULL CHECK (cardinality(origins) <= 20
          AND array_to_string(origins, ' ') ~ '^(https?://[a-z0-9.-]+(:[0-9]+)?( |$))*$'),
        version bigint NOT NULL)""",
    *tenancy("identity", "allowed_origins", "state"),
    *allow("identity", "allowed_origins", api="SELECT, INSERT, UPDATE"),
]


def upgrade() -> None:
    """Make the table, and watch it."""
    watched = (Watched("allowed_origins", (), ("origins",)),)
    run(op.execute, [*_ORIGINS, *more_state_seals("identity", watched)])
