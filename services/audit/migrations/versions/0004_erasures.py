"""Erasures of data subjects, legal holds that block them, and the list of the keys that were destroyed."""

from alembic import op

from services._mesh.schema import CURRENT_ORGANIZATION, allow, append_only, run, tenancy

revision = "0004"
down_revision = "0002"


def upgrade() -> None:
    """Make the tables; the head learns how often was erased, and which generation of the keys was looked at."""
    run(op.execute, [*_HEAD, *_ERASURES, *_HOLDS, *_ERASED, *append_only("audit", "erased_keys")])


# A flush reads both under the lock that it holds anyway: keys that it found before an erasure aren't used after it.
_HEAD = [
    "ALTER TABLE audit.head ADD COLUMN erasures bigint NOT NULL DEFAULT 0, ADD COLUMN keys_generation uuid",
    *allow("audit", "head", worker="SELECT"),
]

# People stand here as keyed hashes, the subject too: an erasure leaves no name behind. What two people must do, two
# people must have done, and nobody approves that what they did themselves becomes unreadable.
_ERASURES = [
    """CREATE TABLE audit.erasures (
        organization_id uuid NOT NULL,
        erasure_id uuid NOT NULL,
        subject_hash bytea NOT NULL CHECK (length(subject_hash) = 32),
        reason text NOT NULL CHECK (length(reason) BETWEEN 1 AND 1000),
        state text NOT NULL CHECK (state IN ('REQUESTED', 'APPROVED', 'REJECTED', 'DONE')),
        requester_hash bytea NOT NULL CHECK (length(requester_hash) = 32),
        requested_at timestamptz NOT NULL,
        decider_hash bytea CHECK (length(decider_hash) = 32),
        decided_at timestamptz,
        comment text NOT NULL DEFAULT '',
        done_at timestamptz,
        keys_destroyed integer NOT NULL DEFAULT 0,
        events_erased bigint NOT NULL DEFAULT 0,
        PRIMARY KEY (organization_id, erasure_id),
        CONSTRAINT decided CHECK ((state = 'REQUESTED') = (decider_hash IS NULL)
          AND (decider_hash IS NULL) = (decided_at IS NULL) AND (state = 'DONE') = (done_at IS NOT NULL)),
        CONSTRAINT two_people CHECK (state NOT IN ('APPROVED', 'DONE') OR decider_hash <> requester_hash),
        CONSTRAINT not_of_oneself CHECK (state NOT IN ('APPROVED', 'DONE') OR decider_hash <> subject_hash))""",
    "CREATE UNIQUE INDEX erasures_open ON audit.erasures (organization_id, subject_hash)"
    " WHERE state IN ('REQUESTED', 'APPROVED')",
    *tenancy("audit", "erasures", "state"),
    *allow("audit", "erasures", api="SELECT, INSERT, UPDATE"),
    # Which organizations have erasures to execute, or to hold a restored database of keys against.
    "CREATE POLICY dispatch ON audit.erasures FOR SELECT TO audit_dispatcher USING (true)",
    "GRANT SELECT (organization_id, erasure_id, state) ON audit.erasures TO audit_dispatcher",
]

_HOLDS = [
    """CREATE TABLE audit.legal_holds (
        organization_id uuid NOT NULL,
        hold_id uuid NOT NULL,
        subject_hash bytea CHECK (length(subject_hash) = 32),
        reason text NOT NULL CHECK (length(reason) BETWEEN 1 AND 1000),
        placer_hash bytea NOT NULL CHECK (length(placer_hash) = 32),
        placed_at timestamptz NOT NULL,
        releaser_hash bytea CHECK (length(releaser_hash) = 32),
        released_at timestamptz,
        release_reason text NOT NULL DEFAULT '' CHECK (length(release_reason) <= 1000),
        PRIMARY KEY (organization_id, hold_id),
        CONSTRAINT released CHECK ((releaser_hash IS NULL) = (released_at IS NULL)
          AND (released_at IS NULL) = (release_reason = '')))""",
    "CREATE INDEX legal_holds_placed ON audit.legal_holds (organization_id, subject_hash) WHERE released_at IS NULL",
    *tenancy("audit", "legal_holds", "state"),
    *allow("audit", "legal_holds", api="SELECT, INSERT, UPDATE"),
]

# Append-only, as the log is: whatever is restored, what stands here must not open anything.
_ERASED = [
    """CREATE TABLE audit.erased_keys (
        organization_id uuid NOT NULL,
        key_id uuid NOT NULL,
        erasure_id uuid NOT NULL,
        PRIMARY KEY (organization_id, key_id))""",
    "ALTER TABLE audit.erased_keys ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE audit.erased_keys FORCE ROW LEVEL SECURITY",
    f"CREATE POLICY tenant ON audit.erased_keys USING (organization_id = {CURRENT_ORGANIZATION})"
    f" WITH CHECK (organization_id = {CURRENT_ORGANIZATION})",
    *allow("audit", "erased_keys", api="SELECT, INSERT"),
]
