"""The self-check reads what stands beside the log: published heads, erased keys, and which events are on their way."""

from alembic import op

from services._mesh.schema import allow, run

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Let it read them, each within its organization; which organizations have a published head it sees across them."""
    run(
        op.execute,
        [
            *allow("audit", "head_entries", checker="SELECT"),
            "CREATE POLICY checker ON audit.head_entries FOR SELECT TO audit_checker USING (true)",
            *allow("audit", "erased_keys", checker="SELECT"),
            "GRANT SELECT (organization_id, event_id, action, log_index) ON audit.outbox TO audit_checker",
        ],
    )
