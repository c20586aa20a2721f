"""What every migration says about its tables: tenancy, the event that a state change owes, the mesh's own tables.

Pure text: each function gives SQL statements for `migrate.run`. Names come from this repository's constants, never
from input. Each table's kind stands in its comment, where the catalog test reads it:

    state      tenant rows whose change owes an event       inventory  tenant rows that don't (readings, progress)
    outbox     events on their way to the log               log        append-only
    lookup     read before the organization is known        reference  not of a tenant
    dispatch   columns without payload are seen across organizations by the one role that dispatches
"""

from __future__ import annotations

from collections.abc import Sequence

TENANT_KINDS = frozenset({"state", "inventory", "dispatch", "lookup", "outbox"})
CURRENT_ORGANIZATION = "(select nullif(current_setting('app.organization_id', true), '')::uuid)"

# The bodies of the trigger functions: what a database has is held against them (services/audit/control_watch.py).
REFUSE_CHANGE = """
BEGIN
  RAISE EXCEPTION 'the log is append-only: % of % refused', TG_OP, TG_TABLE_NAME
    USING ERRCODE = 'RC002';
END """


# What the relay may do to a payload: take it out of a row whose index the log has named, and nothing else.
HOLD_PAYLOAD = """
BEGIN
  IF NEW.payload IS NOT NULL OR OLD.log_index IS NULL OR NEW.log_index IS DISTINCT FROM OLD.log_index THEN
    RAISE EXCEPTION 'the payload of event % of %.% stays: the log must have named its index first',
      OLD.event_id, TG_TABLE_SCHEMA, TG_TABLE_NAME USING ERRCODE = 'RC004';
  END IF;
  RETURN NEW;
END """


def require_event(schema: str) -> str:
    """The body of a schema's require_event."""
    return f"""
BEGIN
  IF NOT EXISTS (SELECT 1 FROM {schema}.outbox
                 WHERE organization_id = coalesce(NEW.organization_id, OLD.organization_id)
                   AND txid = pg_current_xact_id()) THEN
    RAISE EXCEPTION 'a change of % commits without its event', TG_TABLE_NAME USING ERRCODE = 'RC001';
  END IF;
  RETURN NULL;
END """


def tenancy(schema: str, table: str, kind: str) -> list[str]:
    """Force row-level security on a tenant table, and mark its kind. Raises ValueError for a kind there isn't."""
    if kind not in TENANT_KINDS:
        raise ValueError(f"{schema}.{table}: {kind!r} isn't one of {sorted(TENANT_KINDS)}")
    name = f"{schema}.{table}"
    condition = f"organization_id = {CURRENT_ORGANIZATION}"
    statements = [
        f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY",
        f"ALTER TABLE {name} FORCE ROW LEVEL SECURITY",
        f"CREATE POLICY tenant ON {name} USING ({condition}) WITH CHECK ({condition})",
        f"COMMENT ON TABLE {name} IS 'kind={kind}'",
    ]
    if kind == "state":
        statements.append(
            f"CREATE CONSTRAINT TRIGGER owes_event AFTER INSERT OR UPDATE OR DELETE ON {name} "
            f"DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION {schema}.require_event()"
        )
    return statements


_CONNECTIONS = "(select nullif(current_setting('app.connection_ids', true), '')::uuid[])"
_TAGS = "(select nullif(current_setting('app.resource_tags', true), '')::jsonb)"
# For rows that belong to another one, which is limited itself.
UNLIMITED = f"{_CONNECTIONS} IS NULL AND {_TAGS} IS NULL"
# Any of the tags is enough: each is an object of one key.
ANY_TAG = f"EXISTS (SELECT FROM jsonb_array_elements({_TAGS}) AS wanted(tag) WHERE {{tags}} @> wanted.tag)"


def limited(schema: str, table: str, *, connection: str = "", tags: str = "", otherwise: str = "") -> list[str]:
    """Narrow a table of a cloud's resources to what the caller's role is limited to (resource_limits.py).

    `connection` is the column of the row's connection; `tags` a condition for tagged rows (`ANY_TAG`) where the table
    has any; `otherwise` a whole condition for a table whose rows belong to another table's. Only the API's role has a
    caller.
    """
    conditions = [f"({otherwise})"] if otherwise else []
    if connection:
        conditions.append(f"({_CONNECTIONS} IS NULL OR {connection} = ANY ({_CONNECTIONS}::uuid[]))")
    if tags:
        conditions.append(f"({_TAGS} IS NULL OR {tags})")
    condition = " AND ".join(conditions)
    return [f"CREATE POLICY limits ON {schema}.{table} AS RESTRICTIVE TO {schema}_api USING ({condition})"]


def append_only(schema: str, *tables: str) -> list[str]:
    """Make tables logs: nothing in them is ever changed or dropped, not even by their owner. Say it last of all.

    Grants keep honest processes out; the trigger fires ALWAYS, which keeps out the owner and session_replication_role;
    and the comment seals the table: from then on deploy/bootstrap.sql's event triggers refuse to alter or drop it.
    """
    statements = [
        f"""DO $do$ BEGIN
            IF to_regprocedure('{schema}.refuse_change()') IS NULL THEN
              CREATE FUNCTION {schema}.refuse_change() RETURNS trigger LANGUAGE plpgsql
              SET search_path = pg_catalog AS $body${REFUSE_CHANGE}$body$;
            END IF;
        END $do$"""
    ]
    for name in (f"{schema}.{table}" for table in tables):
        statements += [
            f"CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {name} "
            f"FOR EACH STATEMENT EXECUTE FUNCTION {schema}.refuse_change()",
            f"ALTER TABLE {name} ENABLE ALWAYS TRIGGER append_only",
            f"COMMENT ON TABLE {name} IS 'kind=log'",
        ]
    return statements


def reference(schema: str, table: str) -> list[str]:
    """Mark a table that belongs to no tenant."""
    return [f"COMMENT ON TABLE {schema}.{table} IS 'kind=reference'"]


def allow(schema: str, table: str, **roles: str) -> list[str]:
    """Grant privileges, role by role: `allow("pricing", "prices", api="SELECT", worker="SELECT, INSERT")`."""
    return [f"GRANT {privileges} ON {schema}.{table} TO {schema}_{role}" for role, privileges in roles.items()]


def mesh_tables(schema: str, *, jobs: bool, worker: bool) -> list[str]:
    """The outbox with its counters, idempotency, and (where the service has any) jobs."""
    statements = _outbox(schema, worker) + _idempotency(schema)
    return statements + (_jobs(schema, worker) if jobs else [])


def _outbox(schema: str, worker: bool) -> list[str]:
    writers = {"api": "SELECT, INSERT", **({"worker": "SELECT, INSERT"} if worker else {})}
    counters = dict.fromkeys(writers, "SELECT, INSERT, UPDATE")
    return [
        f"""CREATE TABLE {schema}.outbox (
            organization_id uuid NOT NULL,
            event_id uuid NOT NULL,
            format smallint NOT NULL DEFAULT 1,
            counter bigint NOT NULL,
            action text NOT NULL,
            payload bytea NOT NULL,
            occurred_at timestamptz NOT NULL,
            trace_parent text NOT NULL DEFAULT '',
            txid xid8 NOT NULL DEFAULT pg_current_xact_id(),
            log_index bigint,
            PRIMARY KEY (organization_id, event_id),
            UNIQUE (organization_id, counter))""",
        f"CREATE INDEX outbox_txid ON {schema}.outbox (organization_id, txid)",
        f"CREATE INDEX outbox_pending ON {schema}.outbox (organization_id, counter) WHERE log_index IS NULL",
        # Runs as whoever commits, within their organization. RC001 is ours: class RC is free of PostgreSQL's own.
        f"""CREATE FUNCTION {schema}.require_event() RETURNS trigger LANGUAGE plpgsql
            SET search_path = pg_catalog AS $body${require_event(schema)}$body$""",
        *tenancy(schema, "outbox", "outbox"),
        *allow(schema, "outbox", **writers),
        f"GRANT SELECT, UPDATE (log_index) ON {schema}.outbox TO {schema}_relay",
        f"""CREATE TABLE {schema}.outbox_counters (
            organization_id uuid PRIMARY KEY,
            value bigint NOT NULL,
            relayed bigint NOT NULL DEFAULT 0)""",
        *tenancy(schema, "outbox_counters", "dispatch"),
        *allow(schema, "outbox_counters", **counters),
        # The relay finds out who has anything to relay here, and reads the events under that organization.
        f"CREATE POLICY dispatch ON {schema}.outbox_counters TO {schema}_relay USING (true)",
        f"GRANT SELECT, UPDATE (relayed) ON {schema}.outbox_counters TO {schema}_relay",
    ]


def payload_retention(schema: str) -> list[str]:
    """Let the relay's role clear payloads that the log has (clearing.py): of relayed rows, and to nothing but NULL.

    Nothing is scanned or written anew. Whoever holds the table for longer than ten seconds, as a dump does, makes the
    migration fail, to be run again, rather than hold up every write behind it.
    """
    return [
        "SET LOCAL lock_timeout = '10s'",
        # Not valid: what stands there already had a payload for as long as it had to.
        f"""ALTER TABLE {schema}.outbox ALTER COLUMN payload DROP NOT NULL, ADD COLUMN relayed_at timestamptz,
            ADD CONSTRAINT payload_until_relayed CHECK (payload IS NOT NULL OR log_index IS NOT NULL) NOT VALID""",
        f"ALTER TABLE {schema}.outbox_counters ADD COLUMN cleared bigint NOT NULL DEFAULT 0",
        f"""CREATE FUNCTION {schema}.hold_payload() RETURNS trigger LANGUAGE plpgsql
            SET search_path = pg_catalog AS $body${HOLD_PAYLOAD}$body$""",
        # A name that the watch of the version before knows: it looks on while this is migrated.
        f"CREATE TRIGGER final_state BEFORE UPDATE OF payload ON {schema}.outbox"
        f" FOR EACH ROW EXECUTE FUNCTION {schema}.hold_payload()",
        f"ALTER TABLE {schema}.outbox ENABLE ALWAYS TRIGGER final_state",
        f"GRANT UPDATE (payload, relayed_at) ON {schema}.outbox TO {schema}_relay",
        f"GRANT UPDATE (cleared) ON {schema}.outbox_counters TO {schema}_relay",
    ]


def relaying(schema: str) -> list[str]:
    """What the relay calls for many organizations at once, in one round trip each; row-level security stays on.

    An advisory lock instead of the counter's row: holding that row during the append would hold up every writer. Who
    gets it just as another relay lets go of it may append once more what that one did, which has no effect.
    """
    return [
        f"""CREATE FUNCTION {schema}.relay_claim(organizations uuid[], most bigint)
            RETURNS TABLE (organization uuid, event uuid, number bigint, body bytea)
            LANGUAGE plpgsql SET search_path = pg_catalog AS $body$
            BEGIN
              FOREACH organization IN ARRAY organizations LOOP
                CONTINUE WHEN NOT pg_try_advisory_xact_lock(hashtextextended('relay {schema} ' || organization, 0));
                PERFORM set_config('app.organization_id', organization::text, true);
                RETURN QUERY SELECT organization, o.event_id, o.counter, o.payload FROM {schema}.outbox AS o
                  WHERE o.organization_id = organization AND o.log_index IS NULL ORDER BY o.counter LIMIT most;
              END LOOP;
              PERFORM set_config('app.organization_id', '', true);
            END $body$""",
        # One element of each array for each event.
        f"""CREATE FUNCTION {schema}.relay_mark(
              moment timestamptz, organizations uuid[], events uuid[], numbers bigint[], places bigint[])
            RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS $body$
            DECLARE organization uuid;
            BEGIN
              FOR organization IN SELECT DISTINCT each FROM unnest(organizations) AS each LOOP
                PERFORM set_config('app.organization_id', organization::text, true);
                UPDATE {schema}.outbox AS o SET log_index = m.place, relayed_at = moment
                  FROM unnest(organizations, events, places) AS m(organization_id, event_id, place)
                  WHERE m.organization_id = organization AND o.organization_id = organization
                    AND o.event_id = m.event_id;
                UPDATE {schema}.outbox_counters AS c SET relayed = greatest(c.relayed, m.through)
                  FROM (SELECT max(e.number) AS through
                        FROM unnest(organizations, numbers) AS e(organization_id, number)
                        WHERE e.organization_id = organization) AS m
                  WHERE c.organization_id = organization;
              END LOOP;
              PERFORM set_config('app.organization_id', '', true);
            END $body$""",
        *(
            statement
            for name in ("relay_claim(uuid[], bigint)", "relay_mark(timestamptz, uuid[], uuid[], bigint[], bigint[])")
            for statement in (
                f"REVOKE ALL ON FUNCTION {schema}.{name} FROM PUBLIC",
                f"GRANT EXECUTE ON FUNCTION {schema}.{name} TO {schema}_relay",
            )
        ),
    ]


def _idempotency(schema: str) -> list[str]:
    return [
        f"""CREATE TABLE {schema}.idempotency (
            organization_id uuid NOT NULL,
            actor text NOT NULL,
            rpc text NOT NULL,
            request_id text NOT NULL,
            body_sha256 bytea NOT NULL,
            response bytea NOT NULL,
            created_at timestamptz NOT NULL,
            PRIMARY KEY (organization_id, actor, rpc, request_id))""",
        *tenancy(schema, "idempotency", "inventory"),
        *allow(schema, "idempotency", api="SELECT, INSERT, DELETE"),
    ]


# What a dispatcher and a worker may see and change of a job. The payload (subject, warrant, error) is read under the
# job's own organization; a worker can neither make a job nor change what one is about.
DISPATCH_COLUMNS = (
    "job_id, organization_id, kind, due_at, status, fence, attempts, failures, lease_until, published_at, trace_parent"
)
_DISPATCH_CHANGES = "status, failures, published_at, lease_until"
_WORK_COLUMNS = "job_id, organization_id, kind, subject_id, due_at, status, fence, attempts, failures, lease_until"
_WORK_CHANGES = "status, due_at, failures, published_at, lease_until, last_error"


def _jobs(schema: str, worker: bool) -> list[str]:
    statements = [
        # planned_for is the due date that the job was made with: with kind and subject it tells the same work apart,
        # while due_at moves with each attempt.
        f"""CREATE TABLE {schema}.jobs (
            organization_id uuid NOT NULL,
            job_id uuid NOT NULL,
            kind text NOT NULL,
            subject_id uuid NOT NULL,
            planned_for timestamptz NOT NULL,
            due_at timestamptz NOT NULL,
            status text NOT NULL CHECK (status IN ('READY', 'LEASED', 'DONE', 'DEAD', 'CANCELLED')),
            fence bigint NOT NULL DEFAULT 0,
            attempts integer NOT NULL DEFAULT 0,
            failures integer NOT NULL DEFAULT 0,
            lease_owner text NOT NULL DEFAULT '',
            lease_until timestamptz,
            published_at timestamptz,
            warrant text NOT NULL,
            last_error text NOT NULL DEFAULT '',
            trace_parent text NOT NULL DEFAULT '',
            created_at timestamptz NOT NULL,
            PRIMARY KEY (organization_id, job_id),
            UNIQUE (organization_id, kind, subject_id, planned_for))""",
        f"CREATE INDEX jobs_by_id ON {schema}.jobs (job_id)",
        f"CREATE INDEX jobs_due ON {schema}.jobs (organization_id, due_at) WHERE status = 'READY'",
        f"CREATE INDEX jobs_leased ON {schema}.jobs (organization_id, lease_until) WHERE status = 'LEASED'",
        *tenancy(schema, "jobs", "dispatch"),
        *allow(schema, "jobs", api="SELECT, INSERT, UPDATE"),
        f"CREATE POLICY dispatch ON {schema}.jobs TO {schema}_dispatcher USING (true)",
        f"GRANT SELECT ({DISPATCH_COLUMNS}), UPDATE ({_DISPATCH_CHANGES}) ON {schema}.jobs TO {schema}_dispatcher",
    ]
    if worker:
        statements.append(
            f"GRANT SELECT ({_WORK_COLUMNS}), UPDATE ({_WORK_CHANGES}) ON {schema}.jobs TO {schema}_worker"
        )
    return statements


def run(execute: object, statements: Sequence[str]) -> None:
    """Execute statements one after the other through Alembic's `op.execute`."""
    assert callable(execute)
    for statement in statements:
        execute(statement)
