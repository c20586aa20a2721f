"""What witnesses cosigned, append-only. Without a foreign key, which would alter a sealed log."""

from alembic import op

from services._mesh.schema import append_only, run

revision = "0003"
down_revision = "0005"


def upgrade() -> None:
    """Make the table."""
    run(
        op.execute,
        [
            # The place of the checkpoint's size, as in audit.checkpoints; the witness as its vkey.
            """CREATE TABLE audit.cosignatures (
                place bigint NOT NULL,
                witness text NOT NULL,
                line text NOT NULL,
                cosigned_at timestamptz NOT NULL,
                PRIMARY KEY (place, witness))""",
            "GRANT SELECT ON audit.cosignatures TO audit_api",
            "GRANT SELECT, INSERT ON audit.cosignatures TO audit_sequencer",
            *append_only("audit", "cosignatures"),
        ],
    )
