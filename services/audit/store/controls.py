"""What pg_catalog says of the controls that hold the log, the keys and every state change: one query, for any login.

Each row is a control that isn't as the migrations made it. Nothing of a tenant is read.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services._mesh.schema import HOLD_PAYLOAD, REFUSE_CHANGE, require_event
from services._mesh.state_schema import SEAL_OF, seal_state
from services.audit.model.controls import (
    BODIES_SHA256,
    CONSTRAINTS,
    EVENT_TRIGGERS,
    GUARDS,
    KEYS_CONSTRAINTS,
    KEYS_GUARDS,
    KEYS_KINDS,
    KEYS_POLICIES,
    KEYS_RIGHTS,
    KEYS_SCHEMA,
    KEYS_TRIGGERS,
    KINDS,
    LOGS,
    OPEN_TO_INSERTS,
    SEALED,
    SERVICES,
    TRIGGERS,
    Bypass,
)
from services.audit.store.tree import read_head
from services.audit.store.turning import read_last_partition

_TENANT = (
    "(organization_id = ( SELECT (NULLIF(current_setting('app.organization_id'::text, true), ''::text))::uuid "
    'AS "nullif"))'
)

# tgtype: 1 for each row, 2 before, 4 insert, 8 delete, 16 update, 32 truncate.
_CONTROLS = """
WITH tables AS (
  SELECT c.oid, n.nspname AS schema, n.nspname || '.' || c.relname AS name, c.relowner, c.relacl,
    c.relrowsecurity AND c.relforcerowsecurity AS secured,
    coalesce(k.kind, CASE WHEN n.nspname = 'audit' AND c.relname ~ '^(entries|payloads)_s[0-9]+$' THEN 'log' END,
      d.said) AS kind, d.said,
    EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'organization_id'
      AND NOT a.attisdropped) AS of_tenants
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN unnest(CAST(:tables AS text[]), CAST(:kinds AS text[])) AS k(name, kind)
    ON k.name = n.nspname || '.' || c.relname
  CROSS JOIN LATERAL (SELECT substring(obj_description(c.oid, 'pg_class') FROM '^kind=([a-z]+)$') AS said) AS d
  WHERE n.nspname = ANY(CAST(:services AS text[])) AND c.relkind IN ('r', 'p')
), triggers AS (
  SELECT t.tgrelid, t.tgname::text AS name, t.tgenabled::text AS enabled, t.tgtype AS type,
    f.nspname || '.' || p.proname AS function,
    t.tgqual IS NULL AND t.tgattr = '' AS always, t.tgqual IS NULL AS unconditional, t.tgattr[0] AS column_number,
    array_length(t.tgattr::int2[], 1) AS columns, encode(t.tgargs, 'escape') AS arguments
  FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_namespace f ON f.oid = p.pronamespace
  WHERE NOT t.tgisinternal
), logins AS (
  SELECT r.oid, r.rolname::text AS name, split_part(r.rolname, '_', 1) AS schema, r.rolcanlogin,
    r.rolsuper OR r.rolbypassrls OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication AS mighty
  FROM pg_roles r WHERE split_part(r.rolname, '_', 1) = ANY(CAST(:services AS text[]))
)
SELECT 'event trigger' AS control, w.name AS what, 'it is missing, disabled or changed' AS how
  FROM unnest(CAST(:event_triggers AS text[]), CAST(:events AS text[]), CAST(:tags AS text[]),
    CAST(:event_functions AS text[])) AS w(name, event, tags, function)
  WHERE NOT EXISTS (SELECT FROM pg_event_trigger e JOIN pg_proc p ON p.oid = e.evtfoid
    JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE e.evtname = w.name AND e.evtenabled IN ('O', 'A') AND e.evtevent = w.event
      AND coalesce(array_to_string(e.evttags, ','), '') = w.tags AND n.nspname || '.' || p.proname = w.function)
UNION ALL SELECT 'log', w.name, 'the table is missing, or isn''t sealed' FROM unnest(CAST(:logs AS text[])) AS w(name)
  WHERE NOT EXISTS (SELECT FROM tables t WHERE t.name = w.name AND t.said = 'log')
UNION ALL SELECT 'append-only trigger', t.name, 'it is missing, disabled or changed' FROM tables t
  WHERE t.kind = 'log' AND NOT EXISTS (SELECT FROM triggers g
    WHERE g.tgrelid = t.oid AND g.name = 'append_only' AND g.enabled = 'A' AND g.type = 2 + 8 + 16 + 32 AND g.always
      AND g.function = t.schema || '.refuse_change')
UNION ALL SELECT 'outbox trigger', t.name, 'it is missing, disabled or changed' FROM tables t
  WHERE t.kind = 'state' AND NOT EXISTS (SELECT FROM triggers g
    WHERE g.tgrelid = t.oid AND g.name = 'owes_event' AND g.enabled IN ('O', 'A') AND g.type = 1 + 4 + 8 + 16
      AND g.always AND g.function = t.schema || '.require_event')
-- Only as long as it isn't ALWAYS does a replica's session leave the seal as it was.
UNION ALL SELECT 'state trigger', t.name, 'it is missing, disabled or changed'
  FROM unnest(CAST(:sealed AS text[]), CAST(:arguments AS text[])) AS w(name, arguments)
  JOIN tables t ON t.name = w.name JOIN tables s ON s.name = t.schema || '.state_seals'
  WHERE NOT EXISTS (SELECT FROM triggers g
    WHERE g.tgrelid = t.oid AND g.name = 'seals_state' AND g.enabled = 'O' AND g.type = 1 + 4 + 8 + 16 AND g.always
      AND g.function = t.schema || '.seal_state' AND g.arguments = w.arguments)
-- While a schema isn't migrated yet its payloads can't be cleared at all.
UNION ALL SELECT 'payload trigger', t.name, 'it is missing, disabled or changed'
  FROM tables t JOIN pg_attribute a ON a.attrelid = t.oid AND a.attname = 'payload' AND NOT a.attnotnull
  WHERE t.kind = 'outbox' AND NOT EXISTS (SELECT FROM triggers g
    WHERE g.tgrelid = t.oid AND g.name = 'final_state' AND g.enabled = 'A' AND g.type = 1 + 2 + 16 AND g.unconditional
      AND g.columns = 1 AND g.column_number = a.attnum AND g.function = t.schema || '.hold_payload')
UNION ALL SELECT 'payload constraint', t.name, 'it is missing or changed'
  FROM tables t JOIN pg_attribute a ON a.attrelid = t.oid AND a.attname = 'payload' AND NOT a.attnotnull
  WHERE t.kind = 'outbox' AND NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conrelid = t.oid
    AND c.conname = 'payload_until_relayed'
    AND pg_get_expr(c.conbin, c.conrelid) = '((payload IS NOT NULL) OR (log_index IS NOT NULL))')
UNION ALL SELECT 'guard', w.table_name, format('the trigger %s is missing, disabled or changed', w.name)
  FROM unnest(CAST(:guarded AS text[]), CAST(:guards AS text[]), CAST(:guard_types AS int[]),
    CAST(:guard_states AS text[]), CAST(:guard_functions AS text[])) AS w(table_name, name, type, enabled, function)
  JOIN tables t ON t.name = w.table_name
  WHERE NOT EXISTS (SELECT FROM triggers g
    WHERE g.tgrelid = t.oid AND g.name = w.name AND g.type = w.type AND g.always
      AND g.enabled IN (w.enabled, 'A') AND g.function = t.schema || '.' || w.function)
UNION ALL SELECT 'constraint', w.table_name, format('%s is missing or changed', w.name)
  FROM unnest(CAST(:constrained AS text[]), CAST(:constraints AS text[]), CAST(:expressions AS text[]))
    AS w(table_name, name, expression) JOIN tables t ON t.name = w.table_name
  WHERE NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conrelid = t.oid AND c.conname = w.name AND c.convalidated
    AND pg_get_expr(c.conbin, c.conrelid) = w.expression)
UNION ALL SELECT 'trigger function', p.oid::regprocedure::text, 'it isn''t the one of the migrations'
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
  JOIN unnest(CAST(:functions AS text[]), CAST(:digests AS text[])) AS f(name, digest)
    ON f.name = n.nspname || '.' || p.proname
  WHERE encode(sha256(convert_to(btrim(regexp_replace(p.prosrc, '\\s+', ' ', 'g')), 'UTF8')), 'hex') <> f.digest
    OR p.proconfig IS DISTINCT FROM ARRAY['search_path=pg_catalog']
UNION ALL SELECT 'trigger', t.name, format('%s with %s is none of the migrations'' own', g.name, g.function)
  FROM tables t JOIN triggers g ON g.tgrelid = t.oid
  WHERE NOT EXISTS (
    SELECT FROM unnest(CAST(:trigger_names AS text[]), CAST(:trigger_functions AS text[])) AS w(name, function)
    WHERE w.name = g.name AND g.function = t.schema || '.' || w.function)
UNION ALL SELECT 'rule', t.name, format('%s rewrites what is done to it', r.rulename)
  FROM tables t JOIN pg_rewrite r ON r.ev_class = t.oid
UNION ALL SELECT 'kind', t.name, 'its comment doesn''t say what it is' FROM tables t
  WHERE t.kind IS NULL OR t.said IS DISTINCT FROM t.kind
UNION ALL SELECT 'row-level security', t.name, 'it isn''t enabled and forced' FROM tables t
  WHERE t.of_tenants AND NOT t.secured
UNION ALL SELECT 'policy', t.name, format('%s shows more than one organization''s rows', p.polname)
  FROM tables t JOIN pg_policy p ON p.polrelid = t.oid
  WHERE p.polname = 'tenant' AND (pg_get_expr(p.polqual, p.polrelid) <> :tenant
      OR coalesce(pg_get_expr(p.polwithcheck, p.polrelid), :tenant) <> :tenant)
    OR p.polname <> 'tenant' AND 0 = ANY(p.polroles)
    OR t.name = ANY(CAST(:closed AS text[])) AND concat_ws(' ', t.name, p.polname,
      array_to_string(p.polroles::oid[]::regrole[], ',')) <> ALL(CAST(:policies AS text[]))
UNION ALL SELECT 'owner', t.name, format('it belongs to %s', o.rolname)
  FROM tables t JOIN pg_roles o ON o.oid = t.relowner WHERE o.rolname <> t.schema || '_owner'
UNION ALL SELECT 'child', i.inhrelid::regclass::text, format('it adds rows to %s', t.name)
  FROM tables t JOIN pg_inherits i ON i.inhparent = t.oid
  WHERE t.kind = 'log' AND obj_description(i.inhrelid, 'pg_class') IS DISTINCT FROM 'kind=log'
UNION ALL SELECT DISTINCT 'grant', t.name, format('%s for %s', g.privilege_type, coalesce(r.rolname, 'everybody'))
  FROM tables t CROSS JOIN LATERAL (
    SELECT grantee, privilege_type FROM aclexplode(t.relacl)
    UNION ALL SELECT x.grantee, x.privilege_type FROM pg_attribute a, aclexplode(a.attacl) x WHERE a.attrelid = t.oid
  ) AS g LEFT JOIN pg_roles r ON r.oid = g.grantee
  WHERE g.grantee <> t.relowner AND (
    r.rolname IS NULL OR split_part(r.rolname, '_', 1) <> t.schema
      AND (r.rolname <> 'backup_reader' OR g.privilege_type <> 'SELECT')
    OR g.privilege_type IN ('TRUNCATE', 'TRIGGER', 'REFERENCES', 'MAINTAIN')
    OR t.kind = 'log' AND (g.privilege_type NOT IN ('SELECT', 'INSERT') OR g.privilege_type = 'INSERT'
      AND t.name || ' ' || r.rolname <> ALL(CAST(:inserters AS text[]))))
UNION ALL SELECT DISTINCT 'right', t.name, format('%s%s for %s', g.privilege_type,
    coalesce(' of ' || g.column_name, ''), coalesce(r.rolname, 'everybody'))
  FROM tables t CROSS JOIN LATERAL (
    SELECT NULL AS column_name, grantee, privilege_type FROM aclexplode(t.relacl)
    UNION ALL SELECT a.attname::text, x.grantee, x.privilege_type FROM pg_attribute a, aclexplode(a.attacl) x
      WHERE a.attrelid = t.oid
  ) AS g LEFT JOIN pg_roles r ON r.oid = g.grantee
  WHERE g.grantee <> t.relowner AND t.name = ANY(CAST(:closed AS text[]))
    AND format('%s .%s %s %s', t.name, g.column_name, g.privilege_type, r.rolname) <> ALL(CAST(:rights AS text[]))
UNION ALL SELECT 'function', p.oid::regprocedure::text, 'it runs with its owner''s rights'
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
  WHERE n.nspname = ANY(CAST(:services AS text[])) AND p.prosecdef
UNION ALL SELECT 'role', l.name, 'it may do more than its process needs' FROM logins l WHERE l.mighty
UNION ALL SELECT 'role', r.rolname::text, 'it may do more than read' FROM pg_roles r
  WHERE r.rolname = 'backup_reader' AND (r.rolsuper OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication
    OR EXISTS (SELECT FROM pg_auth_members m WHERE r.oid IN (m.member, m.roleid) AND NOT m.admin_option))
UNION ALL SELECT 'role', l.name, 'it owns tables and can log in' FROM logins l
  WHERE l.rolcanlogin AND l.name LIKE '%\\_owner'
UNION ALL SELECT 'membership', m.member::regrole::text, format('it is a member of %s', m.roleid::regrole)
  FROM pg_auth_members m
  WHERE (m.roleid IN (SELECT oid FROM logins) OR m.member IN (SELECT oid FROM logins))
    AND NOT EXISTS (SELECT FROM logins a JOIN logins b ON b.schema = a.schema
      WHERE a.oid = m.member AND b.oid = m.roleid AND a.name = a.schema || '_migrate' AND b.name = b.schema || '_owner'
        AND NOT m.inherit_option AND NOT m.admin_option)
UNION ALL SELECT 'setting', coalesce(nullif(s.setrole, 0)::regrole::text, 'the database'), c.setting
  FROM pg_db_role_setting s CROSS JOIN unnest(s.setconfig) AS c(setting)
  WHERE s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
    AND c.setting ~ '^(session_replication_role|row_security|event_triggers)='
ORDER BY 1, 2, 3 LIMIT 200
"""
_AGES = """
SELECT h.size AS head, c.size AS signed, c.signed_at FROM audit.head h LEFT JOIN LATERAL (
  SELECT size, signed_at FROM audit.checkpoints ORDER BY size DESC LIMIT 1) AS c ON true
"""


async def read_key_bypasses(connection: AsyncConnection) -> list[Bypass]:
    """The same of the database of the subjects' keys, at most 200."""
    rows = await connection.execute(text(_CONTROLS), _expected_of_keys())
    return [Bypass(row.control, row.what, row.how) for row in rows]


async def read_bypasses(connection: AsyncConnection, *, event_triggers: bool = True) -> list[Bypass]:
    """The controls that aren't as they should be, at most 200. `event_triggers` says whether there should be any."""
    rows = await connection.execute(text(_CONTROLS), _expected(event_triggers))
    return [Bypass(row.control, row.what, row.how) for row in rows]


async def read_unannounced(connection: AsyncConnection) -> list[Bypass]:
    """Partitions that aren't there, though no event says that they were detached. Within PLATFORM.

    Shards are detached in their order, so that a later one's event stands for those before it: theirs may be in it.
    """
    how = "it isn't attached, and no event says that it was detached"
    return [Bypass("partition", row.name, how) for row in await connection.execute(text(_UNANNOUNCED))]


_UNANNOUNCED = """
SELECT format('audit.%s_s%s', t.name, s.shard) AS name
FROM audit.shards s CROSS JOIN (VALUES ('entries'), ('payloads')) AS t(name)
WHERE NOT EXISTS (SELECT FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = ('audit.' || t.name)::regclass AND c.relname = format('%s_s%s', t.name, s.shard))
  AND NOT EXISTS (SELECT FROM audit.entries e
    WHERE e.action COLLATE "C" = 'audit.shard.detach' AND e.producer = 'audit' AND e.result = 'OK'
      AND substring(e.target FROM '^shards/([0-9]{1,5})$')::integer >= s.shard)
  AND NOT EXISTS (SELECT FROM audit.outbox o WHERE o.action = 'audit.shard.detach' AND o.log_index IS NULL)
ORDER BY s.shard, t.name LIMIT 20
"""


async def read_shards_left(connection: AsyncConnection) -> int:
    """How many shards there are partitions for after the one that is appended to."""
    return await read_last_partition(connection) - (await read_head(connection))[0]


async def read_unsigned_since(connection: AsyncConnection) -> float | None:
    """When the newest checkpoint was signed, as seconds since 1970, if the log has grown since; else None."""
    row = (await connection.execute(text(_AGES))).one()
    if not row.head or row.head == row.signed or row.signed_at is None:
        return None
    return float(row.signed_at.timestamp())


def _expected(event_triggers: bool) -> Mapping[str, object]:
    bodies = {f"{each}.require_event": require_event(each) for each in SERVICES}
    bodies |= {f"{each}.hold_payload": HOLD_PAYLOAD for each in SERVICES}
    bodies |= {f"{each}.seal_of": SEAL_OF for each in SERVICES}
    bodies |= {f"{each}.seal_state": seal_state(each) for each in SERVICES}
    bodies["audit.refuse_change"] = REFUSE_CHANGE
    sealing = EVENT_TRIGGERS if event_triggers else ()
    digests = {name: _digest(body) for name, body in bodies.items()}
    others = ("actions.hold_final_state", "identity.require_another_person", *(function for *_, function in sealing))
    digests |= {name: BODIES_SHA256[name] for name in others}
    return {
        "services": list(SERVICES),
        "logs": list(LOGS),
        "inserters": list(OPEN_TO_INSERTS),
        "tenant": _TENANT,
        "sealed": [name for name, _, _ in SEALED],
        # As PostgreSQL writes out the zero bytes after each argument.
        "arguments": ["".join(f"{each}\\000" for each in arguments) for _, *arguments in SEALED],
        "closed": [],
        "policies": [],
        "rights": [],
        **_columns(sealing, "event_triggers", "events", "tags", "event_functions"),
        **_columns(digests.items(), "functions", "digests"),
        **_columns(KINDS.items(), "tables", "kinds"),
        **_columns(TRIGGERS, "trigger_names", "trigger_functions"),
        **_columns(GUARDS, *_GUARD),
        **_columns(CONSTRAINTS, *_CONSTRAINT),
    }


def _expected_of_keys() -> Mapping[str, object]:
    return {
        "services": [KEYS_SCHEMA],
        "logs": [],
        "inserters": [],
        "tenant": _TENANT,
        "sealed": [],
        "arguments": [],
        "closed": list(KEYS_KINDS),
        "policies": list(KEYS_POLICIES),
        "rights": list(KEYS_RIGHTS),
        **_columns((), "event_triggers", "events", "tags", "event_functions"),
        **_columns([(_KEYS_FUNCTION, BODIES_SHA256[_KEYS_FUNCTION])], "functions", "digests"),
        **_columns(KEYS_KINDS.items(), "tables", "kinds"),
        **_columns(KEYS_TRIGGERS, "trigger_names", "trigger_functions"),
        **_columns(KEYS_GUARDS, *_GUARD),
        **_columns(KEYS_CONSTRAINTS, *_CONSTRAINT),
    }


_GUARD = ("guarded", "guards", "guard_types", "guard_states", "guard_functions")
_CONSTRAINT = ("constrained", "constraints", "expressions")
_KEYS_FUNCTION = "subjects.refuse_change"


def _columns(rows: Iterable[Sequence[object]], *names: str) -> Mapping[str, list[object]]:
    """Rows as arrays, one for each column."""
    listed = list(rows)
    return {name: [row[place] for row in listed] for place, name in enumerate(names)}


def _digest(body: str) -> str:
    return hashlib.sha256(re.sub(r"\s+", " ", body).strip().encode()).hexdigest()
