"""Who confirms an approver, and on whose gift; who lets an operator in, under all their logins: held by the data.

The version before this one may run meanwhile, but for confirming approvers: it doesn't say when, and is refused.
"""

from alembic import op

from services._mesh.schema import run

revision = "0026"
down_revision = "0025"

_OPERATOR = "00000000-0000-0000-0000-000000000000"
_PERSON = """coalesce((SELECT p.person_id FROM identity.persons p
            WHERE p.organization_id = NEW.organization_id AND p.user_id = {user}), {user})"""
# A role is known by its name; a custom one by its id and version (`role_key` in model/membership.py).
_KEY = """(CASE WHEN {m}.custom_role_id IS NULL THEN {m}.role ELSE
            (SELECT concat(r.role_id, '/', r.version) FROM identity.roles r
             WHERE r.organization_id = {m}.organization_id AND r.role_id = {m}.custom_role_id) END)"""

# The moment comes with the confirmation, since only the service knows the clock that waiting goes by.
_CONFIRMATION = f"""CREATE OR REPLACE FUNCTION identity.require_another_person() RETURNS trigger LANGUAGE plpgsql
    SET search_path = pg_catalog AS $body$
    DECLARE
      confirming uuid := {_PERSON.format(user="NEW.confirmed_by")};
      giving uuid := {_PERSON.format(user="NEW.approver_by")};
      owning uuid := {_PERSON.format(user="NEW.user_id")};
    BEGIN
      -- Nothing else that happens to a member is held up by it, not even that two of these turn out to be one.
      IF NEW.confirmed_by IS NULL OR TG_OP = 'UPDATE' AND NEW.confirmed_by IS NOT DISTINCT FROM OLD.confirmed_by
          AND NEW.approver_by IS NOT DISTINCT FROM OLD.approver_by AND NEW.user_id = OLD.user_id THEN
        RETURN NEW;
      END IF;
      IF NEW.confirmed_by = '{_OPERATOR}' THEN
        -- The operator answers for an organization's first members, and for nobody later.
        IF TG_OP = 'INSERT' AND EXISTS (SELECT FROM identity.organizations o
            WHERE o.organization_id = NEW.organization_id AND o.created_at = NEW.created_at) THEN
          RETURN NEW;
        END IF;
        RAISE EXCEPTION 'the operator confirms the first members alone' USING ERRCODE = 'RC005';
      ELSIF confirming IN (owning, giving) THEN
        RAISE EXCEPTION 'another person has to confirm an approver' USING ERRCODE = 'RC005';
      ELSIF TG_OP = 'INSERT' OR NEW.confirmed_at IS NULL THEN
        RAISE EXCEPTION 'whoever is a member already is confirmed, at a moment' USING ERRCODE = 'RC005';
      ELSIF OLD.approver_for = {_KEY.format(m="OLD")} AND (giving IS NULL OR giving = owning OR NOT coalesce((
          -- Two people, and not one with a guest: who gave the role is a member still, and no fresh approver.
          SELECT bool_and(coalesce(m.approver_for = {_KEY.format(m="m")} AND (m.confirmed_by IS NOT NULL
            OR m.approver_since + interval '24 hours' <= NEW.confirmed_at), false))
          FROM identity.members m LEFT JOIN identity.persons p
            ON p.organization_id = m.organization_id AND p.user_id = m.user_id
          WHERE m.organization_id = NEW.organization_id AND m.state = 'ACTIVE'
            AND coalesce(p.person_id, m.user_id) = giving), false)) THEN
        RAISE EXCEPTION 'a settled member gave the role, or nobody confirms it' USING ERRCODE = 'RC005';
      END IF;
      RETURN NEW;
    END $body$"""

_DECIDERS = """ALTER TABLE identity.operator_accesses
    ADD COLUMN decided_as text,
    ADD COLUMN deciders uuid[] NOT NULL DEFAULT '{}',
    ADD CONSTRAINT no_login_of_theirs CHECK (state <> 'GRANTED' OR operator_id <> ALL (deciders))"""


def upgrade() -> None:
    """Replace the guard, and add the columns."""
    run(
        op.execute,
        [
            "SET LOCAL lock_timeout = '10s'",
            "ALTER TABLE identity.members ADD COLUMN confirmed_at timestamptz",
            _CONFIRMATION,
            _DECIDERS,
        ],
    )
