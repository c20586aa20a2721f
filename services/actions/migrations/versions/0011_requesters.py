"""Whose login a request was made by, also where a token of theirs made it: they approve it under no name.

The version before this one may run meanwhile: of what a token requests there, only the person is known, as before.
"""

from alembic import op

from services._mesh.schema import run
from services._mesh.state_schema import Watched, watch_more

revision = "0011"
down_revision = "0010"

_WATCHED = Watched("actions", ("action_id",), ("requester_person", "plan_hash", "state", "requester_user"))


def upgrade() -> None:
    """Add the column, and the guard."""
    run(
        op.execute,
        [
            "SET LOCAL lock_timeout = '10s'",
            "ALTER TABLE actions.actions ADD COLUMN requester_user uuid",
            # Logins that were one person when the action was requested may be two by now: what stands in the request
            # itself is compared, whoever the persons are.
            """CREATE FUNCTION actions.require_another_person() RETURNS trigger LANGUAGE plpgsql
                SET search_path = pg_catalog AS $body$
                BEGIN
                  IF NEW.decision = 'APPROVED' AND EXISTS (SELECT FROM actions.actions a
                      CROSS JOIN unnest(NEW.persons || NEW.person) AS u(id)
                      WHERE a.organization_id = NEW.organization_id AND a.action_id = NEW.action_id
                        AND (u.id = a.requester_user OR a.requested_by IN ('user:' || u.id, NEW.decided_by))) THEN
                    RAISE EXCEPTION 'another_person: who requested an action approves it under no login'
                      USING ERRCODE = '23514';
                  END IF;
                  RETURN NEW;
                END $body$""",
            "CREATE TRIGGER another_person BEFORE INSERT OR UPDATE ON actions.approvals"
            " FOR EACH ROW EXECUTE FUNCTION actions.require_another_person()",
            *watch_more("actions", _WATCHED, ("requester_user",)),
        ],
    )
