"""Roles that are limited to some connections or tags see no others.

The version before this one may run meanwhile: it says nothing of limits, and serves nobody who has any.
"""

from alembic import op

from services._mesh.schema import ANY_TAG, limited, run

revision = "0005"
down_revision = "0004"

# A finding has the tags of its resource, as they were last seen.
_TAGGED = f"""EXISTS (SELECT FROM scanner.resources r WHERE r.organization_id = findings.organization_id
  AND r.connection_id = findings.connection_id AND r.account = findings.account AND r.region = findings.region
  AND r.type = findings.type AND r.id = findings.id AND {ANY_TAG.format(tags="r.tags")})"""


def upgrade() -> None:
    """Make the policies."""
    of_connections = ("connections", "credentials", "scans")
    statements = [each for table in of_connections for each in limited("scanner", table, connection="connection_id")]
    statements += limited("scanner", "resources", connection="connection_id", tags=ANY_TAG.format(tags="tags"))
    statements += limited("scanner", "findings", connection="connection_id", tags=_TAGGED)
    run(op.execute, ["SET LOCAL lock_timeout = '10s'", *statements])
