"""Tries to change the log as every login and as the tables' owner.

Tables, columns, policies and triggers are read from the catalog, so that a new one is tried as well.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import asyncpg
import pytest

from recoup_local.layout import LOGINS
from tests.support.postgres import TestDatabase, drop, new_database

SERVICES = ("identity", "scanner", "pricing", "actions", "audit")

# The audit schema in the catalog; most rows with the transaction that wrote them.
CATALOG = """
SELECT 'class', c.relname::text, concat_ws(' ', c.relowner, c.relacl, c.relkind, c.relrowsecurity,
  c.relforcerowsecurity, c.relpersistence, c.reloptions, obj_description(c.oid, 'pg_class'))
  FROM pg_class c WHERE c.relnamespace = 'audit'::regnamespace
UNION ALL SELECT 'trigger', t.tgrelid::regclass::text, concat_ws(' ', t.tgname, t.tgenabled, t.xmin)
  FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE c.relnamespace = 'audit'::regnamespace
UNION ALL SELECT 'policy', p.polrelid::regclass::text, concat_ws(' ', p.polname, p.xmin)
  FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid WHERE c.relnamespace = 'audit'::regnamespace
UNION ALL SELECT 'inherits', i.inhrelid::regclass::text, i.inhparent::regclass::text
  FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhparent WHERE c.relnamespace = 'audit'::regnamespace
UNION ALL SELECT 'rule', r.ev_class::regclass::text, concat_ws(' ', r.rulename, r.xmin)
  FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class WHERE c.relnamespace = 'audit'::regnamespace
UNION ALL SELECT 'function', p.oid::regprocedure::text, concat_ws(' ', p.xmin, p.proowner, p.proacl)
  FROM pg_proc p WHERE p.pronamespace = 'audit'::regnamespace
UNION ALL SELECT 'column', a.attrelid::regclass::text, concat_ws(' ', a.attname, a.attacl, a.atttypid, a.attnotnull)
  FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid WHERE c.relnamespace = 'audit'::regnamespace
UNION ALL SELECT 'event trigger', e.evtname::text, e.evtenabled::text FROM pg_event_trigger e
ORDER BY 1, 2, 3
"""


@pytest.fixture
async def whole() -> AsyncIterator[TestDatabase]:
    """A database with every service's tables."""
    made = await new_database(SERVICES)
    yield made
    await drop(made)


async def sealed(superuser: asyncpg.Connection) -> list[str]:
    """The log's tables, partitions among them."""
    rows = await superuser.fetch(
        "SELECT c.relname::text FROM pg_class c WHERE c.relnamespace = 'audit'::regnamespace"
        " AND c.relkind IN ('r', 'p') AND obj_description(c.oid, 'pg_class') = 'kind=log' ORDER BY 1"
    )
    return [row[0] for row in rows]


async def statements(superuser: asyncpg.Connection, table: str) -> list[str]:
    """Whatever would change the table, its rows, or what protects it."""
    name = f"audit.{table}"
    columns = await superuser.fetch(
        "SELECT attname::text FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped", name
    )
    policies = await superuser.fetch("SELECT polname::text FROM pg_policy WHERE polrelid = $1::regclass", name)
    keys = await superuser.fetch("SELECT conname::text FROM pg_constraint WHERE conrelid = $1::regclass", name)
    parents = await superuser.fetch(
        "SELECT inhparent::regclass::text FROM pg_inherits WHERE inhrelid = $1::regclass", name
    )
    first = columns[0][0]
    return [
        *(f"UPDATE {name} SET {column} = {column}" for (column,) in columns),
        f"DELETE FROM {name}",
        f"TRUNCATE {name}",
        f"TRUNCATE {name} CASCADE",
        f"DROP TABLE {name}",
        f"DROP TABLE {name} CASCADE",
        f"WITH gone AS (DELETE FROM {name} RETURNING 1) SELECT count(*) FROM gone",
        f"MERGE INTO {name} AS t USING (SELECT 1) AS s ON true WHEN MATCHED THEN DELETE",
        *(f"ALTER TABLE {name} {change}" for change in ALTERATIONS),
        f"ALTER TABLE {name} RENAME COLUMN {first} TO other",
        f"ALTER TABLE {name} DROP COLUMN {first} CASCADE",
        f"ALTER TABLE {name} ALTER COLUMN {first} DROP NOT NULL",
        *(f"ALTER TABLE {name} RENAME CONSTRAINT {key} TO other" for (key,) in keys),
        *(f"ALTER TABLE {name} DROP CONSTRAINT {key}" for (key,) in keys),
        *(f"ALTER TABLE {parent} DETACH PARTITION {name}" for (parent,) in parents),
        f"ALTER TABLE {name} ATTACH PARTITION audit.head DEFAULT",
        *(f"ALTER POLICY {policy} ON {name} USING (true)" for (policy,) in policies),
        *(f"DROP POLICY {policy} ON {name}" for (policy,) in policies),
        f"CREATE POLICY more ON {name} USING (true) WITH CHECK (true)",
        f"ALTER TRIGGER append_only ON {name} RENAME TO other",
        f"DROP TRIGGER append_only ON {name}",
        f"CREATE TRIGGER more BEFORE INSERT ON {name} EXECUTE FUNCTION audit.refuse_change()",
        f"CREATE RULE quiet AS ON INSERT TO {name} DO INSTEAD NOTHING",
        f"CREATE OR REPLACE RULE quiet AS ON UPDATE TO {name} DO INSTEAD DELETE FROM {name}",
        f"CREATE TABLE audit.child () INHERITS ({name})",
        f"CREATE TABLE audit.child PARTITION OF {name} DEFAULT",
        f"CREATE UNIQUE INDEX ON {name} ((1))",
        f"CREATE STATISTICS audit.more ON {first}, ctid FROM {name}",
        f"COMMENT ON TABLE {name} IS 'kind=state'",
        f"COMMENT ON TABLE {name} IS NULL",
        f"GRANT UPDATE, DELETE, TRUNCATE ON {name} TO audit_api",
        f"GRANT UPDATE ({first}) ON {name} TO audit_api",
        f"GRANT TRIGGER ON {name} TO PUBLIC",
    ]


ALTERATIONS = (
    "DISABLE TRIGGER ALL",
    "DISABLE TRIGGER append_only",
    "ENABLE REPLICA TRIGGER append_only",
    "DISABLE ROW LEVEL SECURITY",
    "NO FORCE ROW LEVEL SECURITY",
    "RENAME TO others",
    "SET SCHEMA public",
    "SET UNLOGGED",
    "OWNER TO audit_migrate",
    "ADD COLUMN more integer",
    "ADD CONSTRAINT more CHECK (false) NOT VALID",
    "INHERIT audit.head",
    "REPLICA IDENTITY NOTHING",
)
VALID = re.compile(
    r"^(UPDATE|DELETE|WITH|MERGE|GRANT|COMMENT|CREATE (POLICY|RULE|TRIGGER)|DROP (TABLE \S+ CASCADE|TRIGGER)"
    r"|ALTER (TABLE \S+ (DISABLE|ENABLE|NO FORCE|RENAME TO|OWNER|SET SCHEMA|DETACH|REPLICA)|TRIGGER))"
)
OF_THE_SCHEMA = [
    "DROP SCHEMA audit CASCADE",
    "ALTER SCHEMA audit RENAME TO others",
    "DROP FUNCTION audit.refuse_change() CASCADE",
    "ALTER FUNCTION audit.refuse_change() RENAME TO other",
    "ALTER FUNCTION audit.refuse_change() SET search_path = public",
    "CREATE OR REPLACE FUNCTION audit.refuse_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
    "DROP OWNED BY audit_owner CASCADE",
    "REASSIGN OWNED BY audit_owner TO audit_migrate",
    "GRANT UPDATE ON ALL TABLES IN SCHEMA audit TO audit_api",
    "SET session_replication_role = replica",
    "SET LOCAL session_replication_role = replica",
    "ALTER EVENT TRIGGER recoup_log_refuses_alter DISABLE",
    "DROP EVENT TRIGGER recoup_log_refuses_drop",
    "DROP FUNCTION public.recoup_refuse_drop() CASCADE",
    "ALTER ROLE audit_owner SUPERUSER",
    "ALTER ROLE audit_owner BYPASSRLS",
    "ALTER DATABASE postgres SET session_replication_role = replica",
    "CREATE EXTENSION file_fdw",
    "COPY (SELECT 1) TO PROGRAM 'true'",
]


# Runs each statement in a subtransaction of its own, which is always rolled back; says which of them were not refused.
TRY = """DO $do$
DECLARE statement text; done text[] := '{}';
BEGIN
  FOREACH statement IN ARRAY string_to_array(current_setting('test.statements'), chr(10)) LOOP
    BEGIN
      EXECUTE statement;
      done := done || statement;
      RAISE EXCEPTION 'undo';
    EXCEPTION WHEN others THEN NULL;
    END;
  END LOOP;
  PERFORM set_config('test.done', array_to_string(done, chr(10)), false);
END $do$"""


async def tried(connection: asyncpg.Connection, attempts: list[str]) -> list[str]:
    """The statements that were not refused; each is rolled back."""
    await connection.execute("SELECT set_config('test.statements', $1, false)", "\n".join(attempts))
    await connection.execute(TRY)
    done = str(await connection.fetchval("SELECT current_setting('test.done')"))
    return done.splitlines()


async def outside(connection: asyncpg.Connection) -> None:
    """What can't be tried within a transaction."""
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute("ALTER SYSTEM SET session_replication_role = replica")


async def granted(connection: asyncpg.Connection, done: list[str]) -> list[str]:
    """The statements without the grants, which are run for good.

    PostgreSQL answers the grant of somebody who may read a table with a warning, and grants nothing.
    """
    for statement in done:
        if statement.startswith("GRANT"):
            await connection.execute(statement)
    return [statement for statement in done if not statement.startswith("GRANT")]


@pytest.mark.parametrize("service", SERVICES)
async def test_no_login_changes_the_log(whole: TestDatabase, service: str) -> None:
    superuser = await whole.superuser()
    before = await superuser.fetch(CATALOG)
    tables = await sealed(superuser)
    assert {"nodes", "dedup", "checkpoints"} < set(tables)
    for role in (f"{service}_{login}" for login in LOGINS[service]):
        login = await whole.login(role)
        for table in tables:
            assert await granted(login, await tried(login, await statements(superuser, table))) == [], (role, table)
        assert await granted(login, await tried(login, OF_THE_SCHEMA)) == [], role
        await outside(login)
        await login.close()
    assert await superuser.fetch(CATALOG) == before
    await superuser.close()


async def test_not_even_the_owner_changes_the_log(whole: TestDatabase) -> None:
    superuser, owner = await whole.superuser(), await whole.login("audit_migrate")
    before = await superuser.fetch(CATALOG)
    await owner.execute("SET ROLE audit_owner")
    for table in await sealed(superuser):
        assert await tried(owner, await statements(superuser, table)) == [], table
    assert await tried(owner, OF_THE_SCHEMA) == []
    await outside(owner)
    assert await superuser.fetch(CATALOG) == before
    await owner.close()
    await superuser.close()


async def test_what_is_tried_would_change_the_log_if_nothing_refused_it(whole: TestDatabase) -> None:
    """As superuser, the statements are valid: it is the rights and triggers that refuse them, not their spelling."""
    superuser = await whole.superuser()
    for name in ("alter", "opening", "drop"):
        await superuser.execute(f"ALTER EVENT TRIGGER recoup_log_refuses_{name} DISABLE")
    for table in await sealed(superuser):
        attempts = await statements(superuser, table)
        await superuser.execute(f"ALTER TABLE audit.{table} DISABLE TRIGGER append_only")
        done = set(await tried(superuser, attempts))
        await superuser.execute(f"ALTER TABLE audit.{table} ENABLE ALWAYS TRIGGER append_only")
        # The others are none of this table's kind: of partitions, or of what a partition inherits.
        valid = [each for each in attempts if VALID.search(each)]
        assert len(valid) > 20
        assert [each for each in valid if each not in done] == []
    await superuser.close()


async def test_without_event_triggers_rows_are_still_kept(whole: TestDatabase) -> None:
    """What remains where a managed PostgreSQL has none: logins change nothing, and the owner no row as it is."""
    superuser, owner = await whole.superuser(), await whole.login("audit_migrate")
    for name in ("alter", "opening", "drop"):
        await superuser.execute(f"DROP EVENT TRIGGER recoup_log_refuses_{name}")
    await owner.execute("SET ROLE audit_owner")
    login = await whole.login("audit_sequencer")
    for table in await sealed(superuser):
        attempts = await statements(superuser, table)
        assert await granted(login, await tried(login, attempts)) == [], table
        rows = [each for each in attempts if each.startswith(("UPDATE", "DELETE", "TRUNCATE", "WITH", "MERGE"))]
        assert len(rows) > 6
        assert await tried(owner, rows) == [], table
        # It has to take the trigger away first, which is noticed (test_audit_controls.py).
        lifted = f"ALTER TABLE audit.{table} DISABLE TRIGGER append_only"
        assert await tried(owner, [lifted]) == [lifted]
    for connection in (login, owner, superuser):
        await connection.close()
