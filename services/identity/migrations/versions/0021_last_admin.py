"""The rule of the last Admin takes no lock of its own.

Every transaction that changes a member counts its event before it commits, in one row of the organization: whoever
comes second waits there, and its rule sees what the first one left.
"""

from alembic import op

from services._mesh.schema import run

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    """Replace the function; its trigger stays."""
    run(op.execute, [_FUNCTION])


_FUNCTION = """
CREATE OR REPLACE FUNCTION identity.keep_admin() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $body$
BEGIN
  IF OLD.role = 'ADMIN' AND OLD.state = 'ACTIVE' AND NOT EXISTS (
      SELECT FROM identity.members
      WHERE organization_id = OLD.organization_id AND role = 'ADMIN' AND state = 'ACTIVE') THEN
    RAISE EXCEPTION 'the last Admin of an organization stays' USING ERRCODE = 'RC016';
  END IF;
  RETURN NULL;
END $body$"""
