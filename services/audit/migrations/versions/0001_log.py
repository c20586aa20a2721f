"""The log: events under tenancy; nodes, heads and deduplication that hold no tenant's content; append-only all."""

from alembic import op

from services._mesh.schema import CURRENT_ORGANIZATION, append_only, run

revision = "0001"
down_revision = None

APPEND_ONLY = ("events", "nodes", "dedup", "checkpoints")


def upgrade() -> None:
    """Make the log's tables."""
    run(op.execute, [*_TABLES, *_RIGHTS, *append_only("audit", *APPEND_ONLY)])


_TABLES = [
    # The projection without personal data, the payload with its salt, and the leaf. Format says how they're encoded.
    """CREATE TABLE audit.events (
        organization_id uuid NOT NULL,
        event_id uuid NOT NULL,
        format smallint NOT NULL DEFAULT 1,
        idx bigint NOT NULL,
        organization_seq bigint NOT NULL,
        producer text NOT NULL,
        producer_counter bigint NOT NULL,
        action text NOT NULL,
        target text NOT NULL,
        result text NOT NULL,
        role text NOT NULL,
        occurred_at timestamptz NOT NULL,
        appended_at timestamptz NOT NULL,
        request_id text NOT NULL,
        trace_id text NOT NULL,
        payload bytea NOT NULL,
        salt bytea NOT NULL,
        leaf bytea NOT NULL,
        PRIMARY KEY (organization_id, event_id),
        UNIQUE (organization_id, idx),
        UNIQUE (organization_id, organization_seq))""",
    "CREATE INDEX events_producer ON audit.events (organization_id, producer, producer_counter)",
    "CREATE INDEX events_target ON audit.events (organization_id, target, idx)",
    "CREATE INDEX events_request ON audit.events (organization_id, request_id, idx)",
    "ALTER TABLE audit.events ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE audit.events FORCE ROW LEVEL SECURITY",
    f"CREATE POLICY tenant ON audit.events FOR SELECT USING (organization_id = {CURRENT_ORGANIZATION})",
    "CREATE POLICY sequencer ON audit.events FOR INSERT TO audit_sequencer WITH CHECK (true)",
    """CREATE TABLE audit.nodes (
        height smallint NOT NULL,
        position bigint NOT NULL,
        hash bytea NOT NULL CHECK (length(hash) = 32),
        PRIMARY KEY (height, position))""",
    """CREATE TABLE audit.dedup (
        event_id uuid PRIMARY KEY,
        payload_sha256 bytea NOT NULL,
        idx bigint NOT NULL UNIQUE)""",
    """CREATE TABLE audit.checkpoints (
        size bigint PRIMARY KEY,
        root bytea NOT NULL,
        note text NOT NULL,
        signed_at timestamptz NOT NULL)""",
    # One row: the head that the one sequencer in force moves. The epoch fences all others.
    """CREATE TABLE audit.head (
        singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
        epoch bigint NOT NULL,
        size bigint NOT NULL)""",
    "INSERT INTO audit.head (epoch, size) VALUES (0, 0)",
    "COMMENT ON TABLE audit.head IS 'kind=reference'",
    """CREATE TABLE audit.chains (
        organization_id uuid PRIMARY KEY,
        seq bigint NOT NULL,
        leaf_hash bytea NOT NULL)""",
    """CREATE TABLE audit.producers (
        organization_id uuid NOT NULL,
        producer text NOT NULL,
        counter bigint NOT NULL,
        PRIMARY KEY (organization_id, producer))""",
]
for _table in ("chains", "producers"):
    _TABLES += [
        f"ALTER TABLE audit.{_table} ENABLE ROW LEVEL SECURITY",
        f"ALTER TABLE audit.{_table} FORCE ROW LEVEL SECURITY",
        f"CREATE POLICY tenant ON audit.{_table} USING (organization_id = {CURRENT_ORGANIZATION})",
        f"CREATE POLICY sequencer ON audit.{_table} TO audit_sequencer USING (true) WITH CHECK (true)",
        f"COMMENT ON TABLE audit.{_table} IS 'kind=dispatch'",
    ]

_RIGHTS = [
    "GRANT SELECT ON audit.events, audit.nodes, audit.checkpoints TO audit_api",
    "GRANT INSERT ON audit.events, audit.nodes, audit.dedup, audit.checkpoints TO audit_sequencer",
    "GRANT SELECT ON audit.nodes, audit.dedup, audit.checkpoints, audit.head, audit.chains, audit.producers"
    " TO audit_sequencer",
    "GRANT UPDATE ON audit.head TO audit_sequencer",
    "GRANT INSERT, UPDATE ON audit.chains, audit.producers TO audit_sequencer",
]
