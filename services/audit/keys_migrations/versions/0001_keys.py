"""The keys that payloads are sealed under: one that is alive for each subject, and what is left of those destroyed."""

from alembic import op

from services._mesh.schema import allow, reference, run, tenancy

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables of the keys."""
    run(op.execute, [*_KEYS, *_GUARD, *_GENERATION])


# A destroyed key's row stays: it tells an erased payload from one whose key was lost. A dead row version still holds
# the wrapped key until it is vacuumed, so that here every one of them is reason enough to vacuum.
_KEYS = [
    """CREATE TABLE subjects.keys (
        organization_id uuid NOT NULL,
        subject_hash bytea NOT NULL CHECK (length(subject_hash) = 32),
        key_id uuid NOT NULL,
        wrapped_key bytea NOT NULL,
        created_at timestamptz NOT NULL,
        destroyed_at timestamptz,
        erasure_id uuid,
        PRIMARY KEY (organization_id, key_id),
        CONSTRAINT gone_when_destroyed CHECK ((destroyed_at IS NULL) = (length(wrapped_key) > 0)),
        CONSTRAINT destroyed_for_a_reason CHECK ((destroyed_at IS NULL) = (erasure_id IS NULL)))
       WITH (autovacuum_vacuum_threshold = 0, autovacuum_vacuum_scale_factor = 0)""",
    "CREATE UNIQUE INDEX keys_alive ON subjects.keys (organization_id, subject_hash) WHERE destroyed_at IS NULL",
    "CREATE INDEX keys_erasure ON subjects.keys (organization_id, erasure_id) WHERE destroyed_at IS NOT NULL",
    *tenancy("subjects", "keys", "inventory"),
    # A flush of the log holds events of several organizations, and asks for their keys at once.
    "CREATE POLICY sealer ON subjects.keys TO subjects_sealer USING (true) WITH CHECK (true)",
    "GRANT SELECT (organization_id, subject_hash, key_id, wrapped_key, destroyed_at),"
    " INSERT (organization_id, subject_hash, key_id, wrapped_key, created_at) ON subjects.keys TO subjects_sealer",
    *allow("subjects", "keys", api="SELECT"),
    "GRANT SELECT (organization_id, subject_hash, key_id, created_at, destroyed_at, erasure_id),"
    " UPDATE (wrapped_key, destroyed_at, erasure_id) ON subjects.keys TO subjects_eraser",
]

# A key is made and destroyed, and nothing else ever happens to it: none comes back, none is exchanged.
_GUARD = [
    """CREATE FUNCTION subjects.refuse_change() RETURNS trigger LANGUAGE plpgsql
       SET search_path = pg_catalog AS $body$
       BEGIN
         IF TG_OP = 'UPDATE' AND OLD.destroyed_at IS NULL AND NEW.destroyed_at IS NOT NULL
           AND (NEW.organization_id, NEW.subject_hash, NEW.key_id, NEW.created_at)
             = (OLD.organization_id, OLD.subject_hash, OLD.key_id, OLD.created_at)
         THEN
           RETURN NEW;
         END IF;
         RAISE EXCEPTION 'a key can be destroyed, and nothing else: % of % refused', TG_OP, TG_TABLE_NAME
           USING ERRCODE = 'RC003';
       END $body$""",
    "CREATE TRIGGER only_destroyed BEFORE UPDATE OR DELETE ON subjects.keys"
    " FOR EACH ROW EXECUTE FUNCTION subjects.refuse_change()",
    "ALTER TABLE subjects.keys ENABLE ALWAYS TRIGGER only_destroyed",
    "CREATE TRIGGER never_emptied BEFORE TRUNCATE ON subjects.keys"
    " FOR EACH STATEMENT EXECUTE FUNCTION subjects.refuse_change()",
    "ALTER TABLE subjects.keys ENABLE ALWAYS TRIGGER never_emptied",
]

# Changes with each destruction. Whoever knows another one reads a copy from before it, or must read again.
_GENERATION = [
    """CREATE TABLE subjects.generation (
        singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
        generation uuid NOT NULL)""",
    "INSERT INTO subjects.generation (generation) VALUES (gen_random_uuid())",
    *reference("subjects", "generation"),
    *allow("subjects", "generation", api="SELECT", sealer="SELECT"),
    "GRANT SELECT, UPDATE (generation) ON subjects.generation TO subjects_eraser",
]
