"""Reads pg_catalog and says, as sentences, what breaks the rules of tenancy. The exceptions stand here, by column.

Every rule covers all schemas of services, so that a table that nobody thought of is covered as well.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import asyncpg

SERVICES = ("identity", "scanner", "pricing", "actions", "audit", "subjects")
KINDS = frozenset({"state", "inventory", "dispatch", "outbox", "lookup", "log", "reference"})
TENANT_EXPRESSION = (
    "(organization_id = ( SELECT (NULLIF(current_setting('app.organization_id'::text, true), ''::text))::uuid "
    'AS "nullif"))'
)

# (c) What the sequencer writes for all organizations holds hashes and positions only.
LOGS_WITHOUT_TENANT = frozenset({"audit.nodes", "audit.dedup", "audit.checkpoints", "audit.cosignatures"})
# The slug of an organization is its public name; only the installation's operator chooses one.
GLOBAL_KEYS = frozenset({("identity.organizations", "slug")})

_JOB = "job_id organization_id kind due_at status fence attempts failures lease_until published_at trace_parent"
_JOB_CHANGES = "status failures published_at lease_until"

# Policies beside `tenant`: (table, policy) -> (role, command, columns it may read, columns it may write). `{s}` is any
# service's schema.
EXCEPTIONS: dict[tuple[str, str], tuple[str, str, str, str]] = {
    # (a) dispatch tables: no payload, and one role.
    ("{s}.jobs", "dispatch"): ("{s}_dispatcher", "ALL", _JOB, _JOB_CHANGES),
    ("{s}.outbox_counters", "dispatch"): (
        "{s}_relay",
        "ALL",
        "organization_id value relayed cleared",
        "relayed cleared",
    ),
    ("identity.due_items", "dispatch"): (
        "identity_dispatcher",
        "SELECT",
        "organization_id kind subject_id due_at",
        "",
    ),
    # (b) before the organization is known: a session sees its own person's memberships.
    ("identity.members", "own"): ("identity_api", "SELECT", "*", "*"),
    # (b) a directory's token finds itself by its SHA-256.
    ("identity.scim_tokens", "lookup"): ("identity_api", "SELECT", "*", "*"),
    # A token shows itself to whoever supplies its text's SHA-256.
    ("identity.api_tokens", "by_secret"): ("identity_api", "SELECT", "*", "*"),
    # An invitation shows itself to whoever supplies its secret's SHA-256.
    ("identity.invitations", "by_secret"): ("identity_api", "SELECT", "*", "*"),
    # (c) the sequencer inserts, and keeps each organization's place in the chain.
    ("audit.events", "sequencer"): ("audit_sequencer", "INSERT", "", ""),
    ("audit.entries", "sequencer"): ("audit_sequencer", "INSERT", "", "*"),
    ("audit.payloads", "sequencer"): ("audit_sequencer", "INSERT", "", "*"),
    ("audit.erasures", "dispatch"): ("audit_dispatcher", "SELECT", "organization_id erasure_id state done_at", ""),
    ("audit.head_entries", "sequencer"): ("audit_sequencer", "ALL", "*", "*"),
    # The self-check finds out which organizations there are, and reads the rows of each under its own.
    ("audit.chains", "checker"): ("audit_checker", "SELECT", "organization_id seq leaf_hash", ""),
    ("audit.producers", "checker"): ("audit_checker", "SELECT", "organization_id producer counter", ""),
    ("audit.head_entries", "checker"): ("audit_checker", "SELECT", "*", ""),
    ("audit.chains", "sequencer"): ("audit_sequencer", "ALL", "organization_id seq leaf_hash", "*"),
    # (a) the archiver goes from organization to organization, and reads leaves under each.
    ("audit.chains", "archiver"): ("audit_archiver", "SELECT", "organization_id", ""),
    ("audit.producers", "sequencer"): ("audit_sequencer", "ALL", "organization_id producer counter", "*"),
    # (c) as well: a flush of several organizations finds and makes their keys, wrapped, at once.
    ("subjects.keys", "sealer"): (
        "subjects_sealer",
        "ALL",
        "organization_id subject_hash key_id wrapped_key destroyed_at",
        "organization_id subject_hash key_id wrapped_key created_at",
    ),
}

# Narrows what a limited role sees, wherever there is a connection to limit it to.
LIMITS, LIMITED = "limits", ("scanner", "actions")

Faults = AsyncIterator[str]
Rule = Callable[[asyncpg.Connection], Faults]


async def faults(connection: asyncpg.Connection, rules: Sequence[Rule] | None = None) -> list[str]:
    """Everything that breaks a rule."""
    return [fault for rule in rules or RULES async for fault in rule(connection)]


async def _tables(connection: asyncpg.Connection) -> list[Any]:
    rows: list[Any] = await connection.fetch(
        """SELECT c.oid, n.nspname AS schema, n.nspname || '.' || c.relname AS name, c.relkind::text AS relkind,
             c.relrowsecurity AS enabled, c.relforcerowsecurity AS forced, o.rolname AS owner,
             substring(obj_description(c.oid, 'pg_class') FROM '^kind=([a-z]+)$') AS kind,
             (SELECT format_type(a.atttypid, NULL) || CASE WHEN a.attnotnull THEN '' ELSE ' NULL' END
              FROM pg_attribute a
              WHERE a.attrelid = c.oid AND a.attname = 'organization_id' AND NOT a.attisdropped) AS organization
           FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_roles o ON o.oid = c.relowner
           WHERE n.nspname = ANY($1) AND c.relkind IN ('r', 'p', 'f', 'v', 'm') ORDER BY 2, 3""",
        list(SERVICES),
    )
    return rows


async def _kinds(connection: asyncpg.Connection) -> Faults:
    for table in await _tables(connection):
        if table["relkind"] not in ("r", "p"):
            continue
        if table["kind"] not in KINDS:
            yield f"{table['name']} has no comment kind=… that we know"
        elif table["kind"] == "reference" and table["organization"]:
            yield f"{table['name']} is a reference table with an organization_id"
        elif table["kind"] != "reference" and table["organization"] != "uuid":
            if table["name"] in LOGS_WITHOUT_TENANT:
                continue
            yield f"{table['name']} is a tenant table without organization_id uuid NOT NULL"


async def _security(connection: asyncpg.Connection) -> Faults:
    for table in await _tables(connection):
        if table["relkind"] in ("r", "p") and table["organization"] and not (table["enabled"] and table["forced"]):
            yield f"{table['name']}: row-level security isn't enabled and forced"
        if table["owner"] != f"{table['schema']}_owner":
            yield f"{table['name']} belongs to {table['owner']}"


async def _policies(connection: asyncpg.Connection) -> Faults:
    rows = await connection.fetch(
        """SELECT schemaname || '.' || tablename AS name, schemaname AS schema, policyname::text AS policy, permissive,
             roles::text[] AS roles, cmd, qual, with_check
           FROM pg_policies WHERE schemaname = ANY($1)""",
        list(SERVICES),
    )
    own: dict[str, Any] = {row["name"]: row for row in rows if row["policy"] == "tenant"}
    for table in await _tables(connection):
        if table["relkind"] in ("r", "p") and table["organization"]:
            fault = _tenant_policy_fault(own.get(table["name"]), table["kind"])
            if fault:
                yield f"{table['name']}: {fault}"
    for row in rows:
        if row["policy"] == LIMITS:
            if (row["permissive"], row["cmd"], row["roles"]) != ("RESTRICTIVE", "ALL", [f"{row['schema']}_api"]):
                yield f"{row['name']}: the policy {LIMITS} doesn't narrow what its API sees"
        elif row["policy"] != "tenant":
            allowed = _exception(row["schema"], row["name"], row["policy"])
            if allowed is None or (row["roles"], row["cmd"]) != ([allowed[0]], allowed[1]):
                yield f"{row['name']}: the policy {row['policy']} isn't on the list of exceptions"


def _tenant_policy_fault(policy: Any, kind: str) -> str:
    if policy is None:
        return "there is no policy `tenant`"
    # Without WITH CHECK, USING is what new rows are held to. A log is inserted into by a role of its own, so that its
    # tenant policy may be for reading only.
    commands = ("ALL", "SELECT") if kind == "log" else ("ALL",)
    held = policy["with_check"] in (None, TENANT_EXPRESSION)
    if policy["qual"] != TENANT_EXPRESSION or policy["cmd"] not in commands or not held:
        return "the policy `tenant` isn't the one condition on app.organization_id"
    if policy["roles"] != ["public"] or policy["permissive"] != "PERMISSIVE":
        return "the policy `tenant` doesn't hold for everybody"
    return ""


def _exception(schema: str, table: str, policy: str) -> tuple[str, str, str, str] | None:
    for (name, which), allowed in EXCEPTIONS.items():
        if (name.format(s=schema), which) == (table, policy):
            role, command, reads, writes = allowed
            return role.format(s=schema), command, reads, writes
    return None


async def _limits(connection: asyncpg.Connection) -> Faults:
    """Each table that says which connection its rows are of is narrowed to those of a limited role."""
    rows = await connection.fetch(
        """SELECT n.nspname || '.' || c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
           JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'connection_id' AND NOT a.attisdropped
           WHERE n.nspname = ANY($1) AND c.relkind IN ('r', 'p') AND NOT EXISTS (
             SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname = $2)""",
        list(LIMITED),
        LIMITS,
    )
    for row in rows:
        yield f"{row['name']} has rows of connections, and shows a limited role all of them"


async def _exception_columns(connection: asyncpg.Connection) -> Faults:
    """A role that sees across organizations reads and writes the listed columns, and no other."""
    rows = await connection.fetch(
        """SELECT p.schemaname AS schema, p.schemaname || '.' || p.tablename AS name, p.policyname::text AS policy,
             array_agg(a.attname::text) FILTER (WHERE has_column_privilege(r.oid, c.oid, a.attnum, 'SELECT')) AS reads,
             array_agg(a.attname::text) FILTER (WHERE has_column_privilege(r.oid, c.oid, a.attnum, 'INSERT')
               OR has_column_privilege(r.oid, c.oid, a.attnum, 'UPDATE')) AS writes,
             has_table_privilege(r.oid, c.oid, 'DELETE') AS deletes
           FROM pg_policies p CROSS JOIN unnest(p.roles) AS named JOIN pg_roles r ON r.rolname = named
           JOIN pg_class c ON c.oid = format('%I.%I', p.schemaname, p.tablename)::regclass
           JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
           WHERE p.schemaname = ANY($1) AND p.policyname <> 'tenant' GROUP BY 1, 2, 3, r.oid, c.oid""",
        list(SERVICES),
    )
    for row in rows:
        allowed = _exception(row["schema"], row["name"], row["policy"])
        if allowed is None:
            continue
        for what, listed in (("reads", allowed[2]), ("writes", allowed[3])):
            beyond = set(row[what] or ()) - set(listed.split())
            if listed != "*" and beyond:
                yield f"{row['name']}: {allowed[0]} {what} {', '.join(sorted(beyond))} of all organizations"
        if row["deletes"]:
            yield f"{row['name']}: {allowed[0]} deletes rows of all organizations"


async def _keys(connection: asyncpg.Connection) -> Faults:
    rows = await connection.fetch(
        """SELECT n.nspname || '.' || c.relname AS name, array_agg(a.attname::text ORDER BY k.place) AS columns
           FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
           CROSS JOIN unnest(i.indkey) WITH ORDINALITY AS k(number, place)
           LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.number
           WHERE n.nspname = ANY($1) AND (i.indisunique OR i.indisexclusion) AND EXISTS (
             SELECT FROM pg_attribute o WHERE o.attrelid = c.oid AND o.attname = 'organization_id')
           GROUP BY n.nspname, c.relname, i.indexrelid""",
        list(SERVICES),
    )
    for row in rows:
        columns = ", ".join(str(column) for column in row["columns"])
        if "organization_id" not in row["columns"] and (row["name"], columns) not in GLOBAL_KEYS:
            yield f"{row['name']}: the key ({columns}) is without organization_id"


async def _foreign_keys(connection: asyncpg.Connection) -> Faults:
    """A foreign key between tenant tables maps organization to organization, or it tells of rows that aren't seen."""
    rows = await connection.fetch(
        """SELECT c.conname::text AS key, n.nspname || '.' || t.relname AS name, EXISTS (
             SELECT FROM unnest(c.conkey, c.confkey) AS pair(ours, theirs)
             JOIN pg_attribute x ON x.attrelid = c.conrelid AND x.attnum = ours AND x.attname = 'organization_id'
             JOIN pg_attribute y ON y.attrelid = c.confrelid AND y.attnum = theirs AND y.attname = 'organization_id'
           ) AS scoped, n.nspname <> m.nspname AS foreign_schema
           FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid JOIN pg_namespace n ON n.oid = t.relnamespace
           JOIN pg_class f ON f.oid = c.confrelid JOIN pg_namespace m ON m.oid = f.relnamespace
           WHERE c.contype = 'f' AND n.nspname = ANY($1) AND (n.nspname <> m.nspname OR EXISTS (
             SELECT FROM pg_attribute o WHERE o.attrelid = c.confrelid AND o.attname = 'organization_id'))""",
        list(SERVICES),
    )
    for row in rows:
        if not row["scoped"]:
            yield f"{row['name']}: the foreign key {row['key']} is without organization_id"
        if row["foreign_schema"]:
            yield f"{row['name']}: the foreign key {row['key']} reaches into another service's schema"


async def _state_triggers(connection: asyncpg.Connection) -> Faults:
    # tgtype: 1 for each row, 2 before (so not set), 4 insert, 8 delete, 16 update.
    found = {
        row["name"]
        for row in await connection.fetch(
            """SELECT t.tgrelid::regclass::text AS name FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
               WHERE t.tgname = 'owes_event' AND t.tgdeferrable AND t.tginitdeferred AND t.tgenabled IN ('O', 'A')
                 AND t.tgtype = 1 + 4 + 8 + 16 AND t.tgqual IS NULL AND t.tgattr = '' AND p.proname = 'require_event'"""
        )
    }
    for table in await _tables(connection):
        if table["kind"] == "state" and table["name"] not in found:
            yield f"{table['name']} is a state table whose changes owe no event"


async def _logs(connection: asyncpg.Connection) -> Faults:
    found = {
        row["name"]
        for row in await connection.fetch(
            """SELECT t.tgrelid::regclass::text AS name FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
               WHERE t.tgname = 'append_only' AND t.tgenabled = 'A' AND t.tgtype = 2 + 8 + 16 + 32
                 AND p.proname = 'refuse_change'"""
        )
    }
    for table in await _tables(connection):
        if table["kind"] == "log" and table["name"] not in found:
            yield f"{table['name']} is a log that nothing keeps from being changed"


async def _grants(connection: asyncpg.Connection) -> Faults:
    rows = await connection.fetch(
        """SELECT n.nspname AS schema, n.nspname || '.' || c.relname AS name, coalesce(r.rolname, 'PUBLIC') AS role,
             g.privilege_type AS privilege, substring(obj_description(c.oid, 'pg_class') FROM 'kind=(.*)') AS kind,
             c.relkind::text AS relkind
           FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
           CROSS JOIN LATERAL (
             SELECT grantee, privilege_type FROM aclexplode(c.relacl)
             UNION ALL SELECT x.grantee, x.privilege_type FROM pg_attribute a, aclexplode(a.attacl) AS x
               WHERE a.attrelid = c.oid) AS g
           LEFT JOIN pg_roles r ON r.oid = g.grantee
           WHERE n.nspname = ANY($1) AND g.grantee <> c.relowner""",
        list(SERVICES),
    )
    for row in rows:
        what = f"{row['name']}: {row['privilege']} for {row['role']}"
        # (d) the one login that backs up.
        reads = (row["role"], row["privilege"]) == ("backup_reader", "SELECT")
        if not reads and not row["role"].startswith(f"{row['schema']}_"):
            yield f"{what}, which isn't a role of this service"
        if row["privilege"] in ("TRUNCATE", "TRIGGER", "REFERENCES", "MAINTAIN"):
            yield f"{what}, which no process needs"
        if row["kind"] == "log" and row["privilege"] in ("UPDATE", "DELETE"):
            yield f"{what} on a log"
        if row["kind"] == "outbox" and (row["privilege"] == "DELETE" or _beyond_relay(row)):
            yield f"{what} on an outbox"


def _beyond_relay(row: Any) -> bool:
    return bool(row["privilege"] == "UPDATE" and row["role"] != f"{row['schema']}_relay")


async def _views_and_functions(connection: asyncpg.Connection) -> Faults:
    for table in await _tables(connection):
        if table["relkind"] == "v":
            options = await connection.fetchval("SELECT reloptions FROM pg_class WHERE oid = $1", table["oid"])
            if "security_invoker=true" not in (options or []):
                yield f"the view {table['name']} isn't security_invoker"
        elif table["relkind"] in ("m", "f"):
            yield f"{table['name']} is a materialized view or foreign table, which knows no row-level security"
    rows = await connection.fetch(
        """SELECT p.oid::regprocedure::text AS name, p.prosecdef AS definer,
             has_function_privilege('public', p.oid, 'EXECUTE') AS public
           FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = ANY($1)""",
        [*SERVICES, "public"],
    )
    for row in rows:
        if row["definer"]:
            yield f"the function {row['name']} is SECURITY DEFINER"
        if row["public"] and not row["name"].startswith("recoup_refuse_"):
            yield f"the function {row['name']} may be executed by everybody"


async def _roles(connection: asyncpg.Connection) -> Faults:
    rows = await connection.fetch(
        """SELECT r.rolname AS role, r.rolcanlogin AS login,
             r.rolsuper OR r.rolbypassrls OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication AS mighty,
             (SELECT array_agg(g.rolname::text) FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid
              WHERE m.member = r.oid) AS memberships,
             EXISTS (SELECT FROM pg_shdepend d WHERE d.refobjid = r.oid AND d.deptype = 'o') AS owns
           FROM pg_roles r WHERE r.rolname ~ ('^(' || array_to_string($1::text[], '|') || ')_')""",
        list(SERVICES),
    )
    for row in rows:
        service, _, task = row["role"].partition("_")
        if row["mighty"]:
            yield f"the role {row['role']} may do more than any process should (superuser, BYPASSRLS, CREATEROLE, …)"
        if row["login"] and row["owns"]:
            yield f"the role {row['role']} can log in and owns something"
        if task == "owner" and row["login"]:
            yield f"the role {row['role']} owns tables and can log in"
        expected = [f"{service}_owner"] if task == "migrate" else []
        if (row["memberships"] or []) != expected:
            yield f"the role {row['role']} is a member of {row['memberships']}"
    bypasses = "SELECT array_agg(rolname::text) FROM pg_roles WHERE rolbypassrls AND NOT rolsuper"
    if beyond := set(await connection.fetchval(bypasses) or ()) - {"backup_reader"}:
        yield f"row-level security lets {', '.join(sorted(beyond))} through"
    if await connection.fetchval(
        "SELECT EXISTS (SELECT FROM pg_auth_members WHERE member = to_regrole('backup_reader'))"
    ):
        yield "backup_reader is a member of another role"


async def _event_triggers(connection: asyncpg.Connection) -> Faults:
    found = {row[0] for row in await connection.fetch("SELECT evtname FROM pg_event_trigger WHERE evtenabled <> 'D'")}
    for name in ("recoup_log_refuses_alter", "recoup_log_refuses_drop", "recoup_log_refuses_opening"):
        if name not in found:
            yield f"the event trigger {name} isn't there"


RULES: tuple[Rule, ...] = (
    _kinds,
    _security,
    _policies,
    _limits,
    _exception_columns,
    _keys,
    _foreign_keys,
    _state_triggers,
    _logs,
    _grants,
    _views_and_functions,
    _roles,
    _event_triggers,
)
# The subjects' keys, in their own database, are no log: what guards them is a trigger of the table's own.
KEYS_RULES = tuple(rule for rule in RULES if rule is not _event_triggers)
