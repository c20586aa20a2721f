"""Who approves an erasure is another human being than who asked and whom it is about, whichever login they use.

The version before this one may run meanwhile: it names only one of a decider's users, as it always did.
"""

from alembic import op

from services._mesh.schema import run

revision = "0016"
down_revision = "0015"

_DONE = "state NOT IN ('APPROVED', 'DONE')"


def upgrade() -> None:
    """Add the column, and what it is held to."""
    run(
        op.execute,
        [
            "SET LOCAL lock_timeout = '10s'",
            f"""ALTER TABLE audit.erasures
                ADD COLUMN decider_hashes bytea[] NOT NULL DEFAULT '{{}}',
                ADD CONSTRAINT two_people_of_all CHECK ({_DONE} OR requester_hash <> ALL (decider_hashes)),
                ADD CONSTRAINT not_of_oneself_at_all CHECK ({_DONE} OR subject_hash <> ALL (decider_hashes))""",
        ],
    )
