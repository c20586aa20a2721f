"""Bill sources that are switched off: their place is free, and others take over what they bill, account by account.

The version before this one may run meanwhile: it inserts into the same columns, and finds the same violation where a
bucket and prefix are in use. Only a batch that is replaced in part it would count whole; so nobody should disable a
source before all processes are of this version.
"""

from alembic import op

from services._mesh.schema import run

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Change pricing's tables."""
    run(op.execute, [*_SOURCES, *_BATCHES, *_COSTS])


_SOURCES = [
    "CREATE UNIQUE INDEX bill_sources_active ON pricing.bill_sources (organization_id, bucket, prefix)"
    " WHERE state = 'ACTIVE'",
    "ALTER TABLE pricing.bill_sources DROP CONSTRAINT bill_sources_organization_id_bucket_prefix_key",
]
# Those of its accounts that another source's batch of the same period bills by now: they count there.
_BATCHES = [
    "ALTER TABLE pricing.bill_batches ADD COLUMN replaced_accounts text[] NOT NULL DEFAULT '{}'",
    "GRANT UPDATE (replaced_accounts) ON pricing.bill_batches TO pricing_worker",
]
# Whole bills are deleted at once: by default the index of a large table would keep them for long.
_COSTS = [
    f"ALTER TABLE pricing.{table} SET (autovacuum_vacuum_scale_factor = 0.01)" for table in ("daily_costs", "bill_days")
]
