"""Bill sources, their imports, the batches that these leave, and what resources cost a day."""

from alembic import op

from services._mesh.schema import allow, mesh_tables, run, tenancy

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make pricing's tables."""
    run(op.execute, [*mesh_tables("pricing", jobs=True, worker=True), *_SOURCES, *_IMPORTS, *_BATCHES, *_COSTS])


_SOURCES = [
    """CREATE TABLE pricing.bill_sources (
        organization_id uuid NOT NULL,
        bill_source_id uuid NOT NULL,
        connection_id uuid NOT NULL,
        credential_id uuid NOT NULL,
        account text NOT NULL,
        region text NOT NULL,
        bucket text NOT NULL,
        prefix text NOT NULL,
        state text NOT NULL CHECK (state IN ('ACTIVE', 'DISABLED')),
        version bigint NOT NULL DEFAULT 1,
        created_at timestamptz NOT NULL,
        PRIMARY KEY (organization_id, bill_source_id),
        UNIQUE (organization_id, bucket, prefix))""",
    *tenancy("pricing", "bill_sources", "state"),
    *allow("pricing", "bill_sources", api="SELECT, INSERT, UPDATE", worker="SELECT"),
]

_IMPORTS = [
    """CREATE TABLE pricing.bill_imports (
        organization_id uuid NOT NULL,
        bill_import_id uuid NOT NULL,
        bill_source_id uuid NOT NULL,
        state text NOT NULL CHECK (state IN ('QUEUED', 'RUNNING', 'IMPORTED', 'UNCHANGED', 'FAILED')),
        problem text NOT NULL DEFAULT '',
        problem_row bigint NOT NULL DEFAULT 0,
        problem_column text NOT NULL DEFAULT '',
        created_at timestamptz NOT NULL,
        started_at timestamptz,
        finished_at timestamptz,
        PRIMARY KEY (organization_id, bill_import_id),
        FOREIGN KEY (organization_id, bill_source_id)
          REFERENCES pricing.bill_sources (organization_id, bill_source_id))""",
    # One import of a source at a time.
    "CREATE UNIQUE INDEX bill_imports_open ON pricing.bill_imports (organization_id, bill_source_id)"
    " WHERE state IN ('QUEUED', 'RUNNING')",
    "CREATE INDEX bill_imports_by_source ON pricing.bill_imports (organization_id, bill_source_id, bill_import_id)",
    *tenancy("pricing", "bill_imports", "state"),
    *allow("pricing", "bill_imports", api="SELECT, INSERT, UPDATE", worker="SELECT, INSERT, UPDATE"),
]

_BATCHES = [
    """CREATE TABLE pricing.bill_batches (
        organization_id uuid NOT NULL,
        batch_id uuid NOT NULL,
        bill_source_id uuid NOT NULL,
        bill_import_id uuid NOT NULL,
        billing_period date NOT NULL CHECK (extract(day FROM billing_period) = 1),
        sha256 text NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
        provenance text NOT NULL CHECK (provenance IN ('PROVIDER_FETCHED', 'USER_UPLOADED')),
        object text NOT NULL,
        object_version text NOT NULL,
        accounts text[] NOT NULL,
        rows bigint NOT NULL,
        currency text NOT NULL,
        complete_through date,
        period_closed boolean NOT NULL,
        imported_at timestamptz NOT NULL,
        is_current boolean NOT NULL,
        PRIMARY KEY (organization_id, batch_id),
        FOREIGN KEY (organization_id, bill_source_id)
          REFERENCES pricing.bill_sources (organization_id, bill_source_id),
        FOREIGN KEY (organization_id, bill_import_id)
          REFERENCES pricing.bill_imports (organization_id, bill_import_id))""",
    # One bill of a source and billing period counts at a time.
    "CREATE UNIQUE INDEX bill_batches_current ON pricing.bill_batches (organization_id, bill_source_id, billing_period)"
    " WHERE is_current",
    "CREATE INDEX bill_batches_by_import ON pricing.bill_batches (organization_id, bill_import_id)",
    *tenancy("pricing", "bill_batches", "state"),
    # A batch is a record: nothing of it ever changes but whether it is the current one.
    *allow("pricing", "bill_batches", api="SELECT", worker="SELECT, INSERT, UPDATE (is_current)"),
]

# Both are written in pieces before their batch's record is: until that stands and is current, nobody sees them.
_COSTS = [
    """CREATE TABLE pricing.bill_days (
        organization_id uuid NOT NULL,
        bill_import_id uuid NOT NULL,
        batch_id uuid NOT NULL,
        provider text NOT NULL,
        account text NOT NULL,
        day date NOT NULL,
        PRIMARY KEY (organization_id, bill_import_id, batch_id, provider, account, day),
        FOREIGN KEY (organization_id, bill_import_id)
          REFERENCES pricing.bill_imports (organization_id, bill_import_id))""",
    "CREATE INDEX bill_days_by_account ON pricing.bill_days (organization_id, account, day)",
    *tenancy("pricing", "bill_days", "inventory"),
    *allow("pricing", "bill_days", api="SELECT", worker="SELECT, INSERT, DELETE"),
    # A large bill is summed in pieces, so that one key may have several rows: whoever reads adds them up.
    """CREATE TABLE pricing.daily_costs (
        organization_id uuid NOT NULL,
        bill_import_id uuid NOT NULL,
        batch_id uuid NOT NULL,
        number bigint NOT NULL,
        provider text NOT NULL,
        account text NOT NULL,
        region text NOT NULL,
        resource_id text NOT NULL,
        day date NOT NULL,
        kind text NOT NULL CHECK (kind IN ('USAGE', 'CORRECTION', 'SPANNING')),
        sku_id text NOT NULL,
        sku_price_id text NOT NULL,
        pricing_category text NOT NULL,
        unit text NOT NULL,
        quantity numeric NOT NULL,
        effective_cost numeric NOT NULL,
        billed_cost numeric NOT NULL,
        list_cost numeric NOT NULL,
        contracted_cost numeric,
        rows bigint NOT NULL,
        PRIMARY KEY (organization_id, bill_import_id, batch_id, number),
        FOREIGN KEY (organization_id, bill_import_id)
          REFERENCES pricing.bill_imports (organization_id, bill_import_id))""",
    "CREATE INDEX daily_costs_by_resource ON pricing.daily_costs (organization_id, account, resource_id, day)",
    # For the sums of a line over a window, from which the prices of the reporting period come.
    "CREATE INDEX daily_costs_by_line ON pricing.daily_costs (organization_id, account, sku_price_id, day)",
    *tenancy("pricing", "daily_costs", "inventory"),
    *allow("pricing", "daily_costs", api="SELECT", worker="SELECT, INSERT, DELETE"),
]
