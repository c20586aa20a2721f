"""Entries and payloads apart, a partition for each shard; the log's own outbox and jobs; heads of organizations.

Needs the roles audit_relay, audit_dispatcher and audit_worker: run deploy/bootstrap.sql again first.
"""

from alembic import op

from services._mesh.schema import CURRENT_ORGANIZATION, allow, append_only, mesh_tables, reference, run

revision = "0002"
down_revision = "0001"

SHARD_BITS, SHARDS = 40, 8
PARTITIONED = ("entries", "payloads")


def upgrade() -> None:
    """Make the tables, copy what the log has, and seal them. An older version still running appends nothing more."""
    run(
        op.execute,
        [
            # Appends wait from here on, and find afterwards that they may not write into the old table.
            "SELECT 1 FROM audit.head FOR UPDATE",
            *_TABLES,
            *_partitions(),
            _COPY,
            *_security(),
            *_HEADS,
            *mesh_tables("audit", jobs=True, worker=True),
            *_rights(),
            *append_only("audit", *_sealed()),
        ],
    )


_TABLES = [
    # What is searched, without personal data: the actor is a keyed hash.
    """CREATE TABLE audit.entries (
        organization_id uuid NOT NULL,
        event_id uuid NOT NULL,
        idx bigint NOT NULL,
        organization_seq bigint NOT NULL,
        producer text NOT NULL,
        producer_counter bigint NOT NULL,
        action text NOT NULL,
        target text NOT NULL,
        result text NOT NULL,
        role text NOT NULL,
        actor_hash bytea CHECK (length(actor_hash) = 32),
        occurred_at timestamptz NOT NULL,
        appended_at timestamptz NOT NULL,
        request_id text NOT NULL,
        trace_id text NOT NULL,
        leaf bytea NOT NULL,
        PRIMARY KEY (organization_id, idx)) PARTITION BY RANGE (idx)""",
    "CREATE INDEX entries_producer ON audit.entries (organization_id, producer, producer_counter)",
    "CREATE INDEX entries_target ON audit.entries (organization_id, target, idx)",
    "CREATE INDEX entries_request ON audit.entries (organization_id, request_id, idx)",
    'CREATE INDEX entries_action ON audit.entries (organization_id, action COLLATE "C", idx)',
    "CREATE INDEX entries_occurred ON audit.entries (organization_id, occurred_at, idx)",
    # What nearly all events have is found without an index; so these hold the few others, and cost next to nothing.
    # A person has no role before an organization is chosen, which only identity has calls for.
    "CREATE INDEX entries_actor ON audit.entries (organization_id, actor_hash, idx)"
    " WHERE role <> 'SYSTEM' OR producer = 'identity'",
    "CREATE INDEX entries_role ON audit.entries (organization_id, role, idx) WHERE role <> 'SYSTEM'",
    "CREATE INDEX entries_result ON audit.entries (organization_id, result, idx) WHERE result <> 'OK'",
    # Traces are random and spread the writes of a flush over the whole index: this has a fifth of a B-tree's size.
    "CREATE INDEX entries_trace ON audit.entries USING hash (trace_id) WHERE trace_id <> ''",
    # Format 1 is the salt and then the payload, in the clear; key_id is for those that aren't.
    """CREATE TABLE audit.payloads (
        organization_id uuid NOT NULL,
        idx bigint NOT NULL,
        format smallint NOT NULL,
        subject text NOT NULL,
        key_id uuid,
        content bytea NOT NULL,
        PRIMARY KEY (organization_id, idx)) PARTITION BY RANGE (idx)""",
    # Which shards there are. The last one without a closed_size is the one that is appended to.
    """CREATE TABLE audit.shards (
        shard smallint PRIMARY KEY CHECK (shard >= 0),
        origin text NOT NULL UNIQUE,
        kind text NOT NULL CHECK (kind IN ('FIRST', 'YEARLY', 'RECOVERY')),
        opened_at timestamptz NOT NULL,
        closed_size bigint CHECK (closed_size >= 0))""",
    "CREATE UNIQUE INDEX shards_open ON audit.shards ((true)) WHERE closed_size IS NULL",
    *reference("audit", "shards"),
]

_OPEN_SHARD = "(SELECT shard FROM audit.shards WHERE closed_size IS NULL)"


def _partitions() -> list[str]:
    statements = []
    for table in PARTITIONED:
        for shard in range(SHARDS):
            first, end = shard << SHARD_BITS, (shard + 1) << SHARD_BITS
            statements.append(
                f"CREATE TABLE audit.{table}_s{shard} PARTITION OF audit.{table} FOR VALUES FROM ({first}) TO ({end})"
            )
    # An organization's chain has no place twice. Across shards the sequencer's locked head sees to that.
    statements += [
        f"CREATE UNIQUE INDEX entries_s{shard}_chain ON audit.entries_s{shard} (organization_id, organization_seq)"
        for shard in range(SHARDS)
    ]
    return statements


# Forced row-level security hides the organizations from the owner, too: it is lifted for the list of them only.
_COPY = """DO $do$
DECLARE chain record; copied bigint; total bigint := 0;
BEGIN
  ALTER TABLE audit.chains NO FORCE ROW LEVEL SECURITY;
  FOR chain IN SELECT organization_id, seq FROM audit.chains ORDER BY organization_id LOOP
    PERFORM set_config('app.organization_id', chain.organization_id::text, true);
    INSERT INTO audit.entries (organization_id, event_id, idx, organization_seq, producer, producer_counter, action,
        target, result, role, occurred_at, appended_at, request_id, trace_id, leaf)
      SELECT organization_id, event_id, idx, organization_seq, producer, producer_counter, action,
        target, result, role, occurred_at, appended_at, request_id, trace_id, leaf FROM audit.events;
    GET DIAGNOSTICS copied = ROW_COUNT;
    IF copied <> chain.seq THEN
      RAISE EXCEPTION 'organization % has % events, but its chain % links', chain.organization_id, copied, chain.seq;
    END IF;
    INSERT INTO audit.payloads (organization_id, idx, format, subject, content)
      SELECT organization_id, idx, 1, CASE WHEN actor ~ '^(process|spiffe):' THEN '' ELSE actor END, salt || payload
      FROM audit.events, LATERAL (SELECT convert_from(payload, 'UTF8')::jsonb ->> 'actor' AS actor) AS who;
    GET DIAGNOSTICS copied = ROW_COUNT;
    IF copied <> chain.seq THEN
      RAISE EXCEPTION 'organization %: % payloads of % were copied', chain.organization_id, copied, chain.seq;
    END IF;
    total := total + copied;
  END LOOP;
  IF total <> (SELECT size FROM audit.head) THEN
    RAISE EXCEPTION 'the log has % leaves, but its organizations have % events', (SELECT size FROM audit.head), total;
  END IF;
  PERFORM set_config('app.organization_id', '', true);
  ALTER TABLE audit.chains FORCE ROW LEVEL SECURITY;
END $do$"""


def _every(table: str) -> list[str]:
    return [table, *(f"{table}_s{shard}" for shard in range(SHARDS))]


def _sealed() -> list[str]:
    return [name for table in PARTITIONED for name in _every(table)]


def _security() -> list[str]:
    statements = []
    for name in _sealed():
        statements += [
            f"ALTER TABLE audit.{name} ENABLE ROW LEVEL SECURITY",
            f"ALTER TABLE audit.{name} FORCE ROW LEVEL SECURITY",
            f"CREATE POLICY tenant ON audit.{name} FOR SELECT USING (organization_id = {CURRENT_ORGANIZATION})",
        ]
    # A shard that was closed takes nothing more, whoever appends. The subquery runs once for each statement.
    statements += [
        f"CREATE POLICY sequencer ON audit.{table} FOR INSERT TO audit_sequencer"
        f" WITH CHECK (idx >> {SHARD_BITS} = {_OPEN_SHARD})"
        for table in PARTITIONED
    ]
    return statements


# The newest head that was published for each organization: its entry in the tree of heads, and the hashes from there
# to its root, one after the other.
_HEADS = [
    """CREATE TABLE audit.head_entries (
        organization_id uuid NOT NULL,
        publish_event_id uuid NOT NULL,
        position bigint NOT NULL CHECK (position >= 0),
        entry bytea NOT NULL,
        path bytea NOT NULL CHECK (length(path) % 32 = 0),
        organization_seq bigint NOT NULL,
        published_at timestamptz NOT NULL,
        PRIMARY KEY (organization_id))""",
    "ALTER TABLE audit.head_entries ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE audit.head_entries FORCE ROW LEVEL SECURITY",
    f"CREATE POLICY tenant ON audit.head_entries USING (organization_id = {CURRENT_ORGANIZATION})",
    "CREATE POLICY sequencer ON audit.head_entries TO audit_sequencer USING (true) WITH CHECK (true)",
    "COMMENT ON TABLE audit.head_entries IS 'kind=inventory'",
]


def _rights() -> list[str]:
    return [
        "REVOKE INSERT ON audit.events FROM audit_sequencer",
        *(each for table in PARTITIONED for each in allow("audit", table, api="SELECT", sequencer="INSERT")),
        *allow("audit", "shards", api="SELECT", sequencer="SELECT, INSERT, UPDATE (closed_size)", worker="SELECT"),
        *allow("audit", "head_entries", api="SELECT", sequencer="SELECT, INSERT, UPDATE"),
        # Ids, digests and places only: with it an event is found in the one partition that holds it.
        "GRANT SELECT (event_id, idx) ON audit.dedup TO audit_api",
        "GRANT SELECT ON audit.head TO audit_api",
    ]
