"""The worker drops only a credential that a rotation put out of use, or a key that ends, whatever is asked of it.

The version before this one may run meanwhile: it drops nothing else.
"""

from alembic import op

from services._mesh.schema import run

revision = "0022"
down_revision = "0021"

# With the worker's own rights and row-level security, by which it reads all three tables. An API decides for itself.
_REFUSE = """CREATE FUNCTION scanner.refuse_drop() RETURNS trigger LANGUAGE plpgsql
  SET search_path = pg_catalog AS $body$
BEGIN
  IF current_user = 'scanner_worker' AND (
    NOT EXISTS (
      SELECT FROM scanner.rotations r WHERE r.organization_id = OLD.organization_id AND (
        r.replaced_id = OLD.credential_id
        OR (r.candidate_id = OLD.credential_id AND r.state IN ('FAILED', 'CANCELLED'))))
    AND NOT EXISTS (
      SELECT FROM scanner.organization_keys k WHERE k.organization_id = OLD.organization_id
        AND k.key_id = OLD.credential_id AND k.state <> 'ACTIVE')
    OR EXISTS (
      SELECT FROM scanner.connections c WHERE c.organization_id = OLD.organization_id
        AND c.credential_id = OLD.credential_id AND c.state <> 'DISABLED'))
  THEN
    RAISE EXCEPTION 'the worker drops only what is out of use' USING ERRCODE = 'insufficient_privilege';
  END IF;
  RETURN OLD;
END $body$"""


def upgrade() -> None:
    """Make the trigger."""
    run(
        op.execute,
        [
            "SET LOCAL lock_timeout = '10s'",
            _REFUSE,
            "CREATE TRIGGER refuses_drop BEFORE DELETE ON scanner.credentials"
            " FOR EACH ROW EXECUTE FUNCTION scanner.refuse_drop()",
        ],
    )
