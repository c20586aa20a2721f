"""Break-glass access and its reviews. Both are new tables: the version before this one doesn't know them."""

from alembic import op

from services._mesh.schema import run, tenancy
from services._mesh.state_schema import Watched, more_state_seals

revision = "0013"
down_revision = "0012"

# An hour at most, a second factor, a person: whoever writes the rows can't say otherwise. What is granted is never
# changed; it may be ended, once.
_ELEVATIONS = [
    """CREATE TABLE identity.elevations (
        organization_id uuid NOT NULL REFERENCES identity.organizations (organization_id),
        elevation_id uuid NOT NULL,
        holder text NOT NULL CHECK (holder LIKE 'user:%'),
        holder_person uuid NOT NULL,
        session_id text NOT NULL CHECK (session_id <> ''),
        aal smallint NOT NULL CHECK (aal >= 2),
        permissions text[] NOT NULL CHECK (cardinality(permissions) BETWEEN 1 AND 20),
        reason text NOT NULL CHECK (length(reason) >= 10),
        begins_at timestamptz NOT NULL,
        expires_at timestamptz NOT NULL,
        review_id uuid NOT NULL,
        ended_at timestamptz,
        ended_by text,
        PRIMARY KEY (organization_id, elevation_id),
        UNIQUE (organization_id, elevation_id, holder_person),
        CONSTRAINT an_hour_at_most CHECK (expires_at > begins_at AND expires_at <= begins_at + interval '60 minutes'),
        CHECK (ended_at >= begins_at AND ended_at <= expires_at),
        CHECK ((ended_at IS NULL) = (ended_by IS NULL)))""",
    "CREATE INDEX elevations_of_holder ON identity.elevations (organization_id, holder, expires_at)",
    *tenancy("identity", "elevations", "state"),
    "GRANT SELECT, INSERT, UPDATE (ended_at, ended_by) ON identity.elevations TO identity_api",
]

# Whom a review is about is whose elevation it is (the foreign key), and never who decides it. A verdict is for good.
_REVIEWS = [
    """CREATE TABLE identity.reviews (
        organization_id uuid NOT NULL REFERENCES identity.organizations (organization_id),
        review_id uuid NOT NULL,
        elevation_id uuid,
        subject_person uuid NOT NULL,
        opened_at timestamptz NOT NULL,
        due_at timestamptz NOT NULL,
        verdict text,
        note text,
        reviewer text,
        reviewer_person uuid,
        decided_at timestamptz,
        PRIMARY KEY (organization_id, review_id),
        UNIQUE (organization_id, elevation_id),
        FOREIGN KEY (organization_id, elevation_id, subject_person)
            REFERENCES identity.elevations (organization_id, elevation_id, holder_person),
        CONSTRAINT of_one_thing CHECK (num_nonnulls(elevation_id) = 1),
        CONSTRAINT verdict_fits CHECK (elevation_id IS NULL OR verdict IN ('JUSTIFIED', 'UNJUSTIFIED')),
        CONSTRAINT somebody_else_decides CHECK (reviewer_person <> subject_person),
        CONSTRAINT decided_whole CHECK (num_nulls(verdict, note, reviewer, reviewer_person, decided_at) IN (0, 5)))""",
    """CREATE INDEX reviews_open ON identity.reviews (organization_id, due_at) WHERE decided_at IS NULL""",
    *tenancy("identity", "reviews", "state"),
    "GRANT SELECT, INSERT, UPDATE (verdict, note, reviewer, reviewer_person, decided_at)"
    " ON identity.reviews TO identity_api",
]

_FINAL = [
    """CREATE FUNCTION identity.refuse_second_end() RETURNS trigger LANGUAGE plpgsql
       SET search_path = pg_catalog AS $body$
       BEGIN
         RAISE EXCEPTION 'what is over or decided in % stays so', TG_TABLE_NAME USING ERRCODE = 'RC005';
       END $body$""",
    *(
        f"CREATE TRIGGER final_state BEFORE UPDATE ON identity.{table} FOR EACH ROW"
        f" WHEN (OLD.{column} IS NOT NULL) EXECUTE FUNCTION identity.refuse_second_end()"
        for table, column in (("elevations", "ended_at"), ("reviews", "decided_at"))
    ),
]

# Linked identities are one person, also when they were linked only afterwards.
_PEOPLE = [
    """CREATE FUNCTION identity.require_other_person() RETURNS trigger LANGUAGE plpgsql
       SET search_path = pg_catalog AS $body$
       DECLARE
         subject uuid := coalesce((SELECT p.person_id FROM identity.persons p
           WHERE p.organization_id = NEW.organization_id AND p.user_id = NEW.subject_person), NEW.subject_person);
         reviewer uuid := coalesce((SELECT p.person_id FROM identity.persons p
           WHERE p.organization_id = NEW.organization_id AND p.user_id = NEW.reviewer_person), NEW.reviewer_person);
       BEGIN
         IF subject = reviewer THEN
           RAISE EXCEPTION 'somebody_else_decides: the reviewer is linked to whom the review is about'
             USING ERRCODE = '23514';
         END IF;
         RETURN NEW;
       END $body$""",
    "CREATE TRIGGER other_person BEFORE INSERT OR UPDATE ON identity.reviews FOR EACH ROW"
    " WHEN (NEW.reviewer_person IS NOT NULL) EXECUTE FUNCTION identity.require_other_person()",
]

_WATCHED = (
    Watched(
        "elevations",
        ("elevation_id",),
        ("holder", "holder_person", "session_id", "permissions", "begins_at", "expires_at", "ended_at"),
    ),
    Watched(
        "reviews",
        ("review_id",),
        ("elevation_id", "subject_person", "due_at", "verdict", "reviewer_person", "decided_at"),
    ),
)


def upgrade() -> None:
    """Make the tables."""
    run(op.execute, [*_ELEVATIONS, *_REVIEWS, *_FINAL, *_PEOPLE, *more_state_seals("identity", _WATCHED)])
