"""Exceptions, their reviews, and what falls due. The version before this one goes on with what it knows.

Run deploy/bootstrap.sql again first: it makes the role that finds what is due.
"""

from alembic import op

from services._mesh.schema import allow, run, tenancy
from services._mesh.state_schema import Watched, more_state_seals

revision = "0016"
down_revision = "0015"

_EXCEPTIONS = [
    """CREATE TABLE identity.exceptions (
        organization_id uuid NOT NULL REFERENCES identity.organizations (organization_id),
        exception_id uuid NOT NULL,
        kind text NOT NULL CHECK (kind IN ('SUPPRESSION', 'POLICY_OVERRIDE', 'ACCESS')),
        about text NOT NULL,
        reason text NOT NULL CHECK (length(reason) >= 10),
        owner text NOT NULL,
        owner_person uuid NOT NULL,
        reviewers uuid[] NOT NULL CHECK (cardinality(reviewers) <= 10),
        created_at timestamptz NOT NULL,
        term_begins_at timestamptz NOT NULL,
        notice_at timestamptz NOT NULL,
        expires_at timestamptz NOT NULL,
        ended_at timestamptz,
        ended_by text,
        PRIMARY KEY (organization_id, exception_id),
        UNIQUE (organization_id, exception_id, owner_person),
        CONSTRAINT a_year_at_most CHECK (
          expires_at > term_begins_at AND expires_at <= term_begins_at + interval '366 days'),
        CONSTRAINT owner_reviews_nothing CHECK (NOT owner_person = ANY (reviewers)),
        CHECK ((ended_at IS NULL) = (ended_by IS NULL)))""",
    "CREATE INDEX exceptions_in_force ON identity.exceptions (organization_id, kind, expires_at)"
    " WHERE ended_at IS NULL",
    "CREATE INDEX exceptions_about ON identity.exceptions (organization_id, about)",
    *tenancy("identity", "exceptions", "state"),
    "GRANT SELECT, INSERT, UPDATE (term_begins_at, notice_at, expires_at, ended_at, ended_by)"
    " ON identity.exceptions TO identity_api",
]

# Triggers with a condition of their own can't be told from ones that were weakened: the functions ask.
_GUARDS = [
    """CREATE OR REPLACE FUNCTION identity.refuse_second_end() RETURNS trigger LANGUAGE plpgsql
       SET search_path = pg_catalog AS $body$
       BEGIN
         IF coalesce(to_jsonb(OLD) ->> 'ended_at', to_jsonb(OLD) ->> 'decided_at') IS NOT NULL THEN
           RAISE EXCEPTION 'what is over or decided in % stays so', TG_TABLE_NAME USING ERRCODE = 'RC005';
         END IF;
         RETURN NEW;
       END $body$""",
    *(
        statement
        for table in ("elevations", "reviews", "exceptions")
        for statement in (
            f"DROP TRIGGER IF EXISTS final_state ON identity.{table}",
            f"CREATE TRIGGER final_state BEFORE UPDATE ON identity.{table}"
            " FOR EACH ROW EXECUTE FUNCTION identity.refuse_second_end()",
        )
    ),
    "DROP TRIGGER other_person ON identity.reviews",
    "CREATE TRIGGER other_person BEFORE INSERT OR UPDATE ON identity.reviews"
    " FOR EACH ROW EXECUTE FUNCTION identity.require_other_person()",
]

_REVIEWS = [
    "SET LOCAL lock_timeout = '10s'",
    """ALTER TABLE identity.reviews
        ADD COLUMN exception_id uuid,
        ADD COLUMN renewed_until timestamptz,
        ADD FOREIGN KEY (organization_id, exception_id, subject_person)
          REFERENCES identity.exceptions (organization_id, exception_id, owner_person),
        DROP CONSTRAINT of_one_thing,
        ADD CONSTRAINT of_one_thing CHECK (num_nonnulls(elevation_id, exception_id) = 1),
        DROP CONSTRAINT verdict_fits,
        ADD CONSTRAINT verdict_fits CHECK (verdict IS NULL OR CASE
          WHEN elevation_id IS NOT NULL THEN verdict IN ('JUSTIFIED', 'UNJUSTIFIED')
          ELSE verdict IN ('RENEW', 'END') END),
        ADD CONSTRAINT renewed_until_a_date CHECK ((verdict IS NOT NULL AND verdict = 'RENEW')
          = (renewed_until IS NOT NULL))""",
    "CREATE UNIQUE INDEX reviews_one_undecided ON identity.reviews (organization_id, exception_id)"
    " WHERE decided_at IS NULL",
    "GRANT UPDATE (renewed_until) ON identity.reviews TO identity_api",
    # An exception lasts longer than it was made for only by a review, which its owner can't decide.
    """CREATE FUNCTION identity.require_renewal() RETURNS trigger LANGUAGE plpgsql
       SET search_path = pg_catalog AS $body$
       BEGIN
         IF NEW.expires_at <> OLD.expires_at AND NOT EXISTS (SELECT 1 FROM identity.reviews r
             WHERE r.organization_id = NEW.organization_id AND r.exception_id = NEW.exception_id
               AND r.verdict = 'RENEW' AND r.renewed_until = NEW.expires_at) THEN
           RAISE EXCEPTION 'an exception is renewed by its review alone' USING ERRCODE = 'RC006';
         END IF;
         RETURN NEW;
       END $body$""",
    "CREATE TRIGGER renewed_by_review BEFORE UPDATE ON identity.exceptions"
    " FOR EACH ROW EXECUTE FUNCTION identity.require_renewal()",
]

# Without payload: the dispatcher finds out what is due in which organization, and it is dealt with under that one.
_DUE = [
    """CREATE TABLE identity.due_items (
        organization_id uuid NOT NULL,
        kind text NOT NULL,
        subject_id uuid NOT NULL,
        due_at timestamptz NOT NULL,
        PRIMARY KEY (organization_id, kind, subject_id, due_at))""",
    "CREATE INDEX due_items_due ON identity.due_items (due_at)",
    *tenancy("identity", "due_items", "dispatch"),
    # To lock a row takes a right to change it; none of its columns has any other use.
    *allow("identity", "due_items", api="SELECT, INSERT, DELETE, UPDATE"),
    "CREATE POLICY dispatch ON identity.due_items FOR SELECT TO identity_dispatcher USING (true)",
    "GRANT SELECT (organization_id, kind, subject_id, due_at) ON identity.due_items TO identity_dispatcher",
    # Break-glass access from before this version ends without an event of its own; its reviews are due as all others.
]

# Of a review no more is watched than before: whom it is about goes with its exception, and what it renews is
# watched there.
_WATCHED = (
    Watched(
        "exceptions",
        ("exception_id",),
        ("kind", "about", "owner_person", "reviewers", "term_begins_at", "expires_at", "ended_at"),
    ),
)


def upgrade() -> None:
    """Make the tables, and watch them."""
    run(op.execute, [*_EXCEPTIONS, *_REVIEWS, *_DUE, *_GUARDS, *more_state_seals("identity", _WATCHED)])
