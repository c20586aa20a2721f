"""Holds every table of every service to the rules of tenancy, and shows that each rule can fail."""

from __future__ import annotations

import pytest

from tests.conftest import services_with_migrations
from tests.support import things
from tests.support.catalog import faults
from tests.support.postgres import ROOT, TestDatabase, drop, new_database

OK = "organization_id uuid NOT NULL, thing_id uuid NOT NULL, PRIMARY KEY (organization_id, thing_id)"
NULLIF = "(select nullif(current_setting('app.organization_id', true), '')::uuid)"


def table(columns: str = OK, kind: str = "inventory", condition: str = f"organization_id = {NULLIF}") -> list[str]:
    return [
        f"CREATE TABLE pricing.bad ({columns})",
        "ALTER TABLE pricing.bad ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE pricing.bad FORCE ROW LEVEL SECURITY",
        f"CREATE POLICY tenant ON pricing.bad USING ({condition}) WITH CHECK ({condition})",
        f"COMMENT ON TABLE pricing.bad IS 'kind={kind}'",
    ]


async def test_every_table_of_every_service_keeps_the_rules() -> None:
    services = services_with_migrations()
    assert "identity" in services
    database = await new_database(services)
    superuser = await database.superuser()
    found = await faults(superuser)
    tables = await superuser.fetchval("SELECT count(*) FROM pg_policies WHERE policyname = 'tenant'")
    await superuser.close()
    await drop(database)
    assert found == []
    assert tables >= 8


async def test_a_good_table_is_no_fault(database: TestDatabase) -> None:
    await things.install(database)
    await database.run_as_owner("pricing", table())
    superuser = await database.superuser()
    assert await faults(superuser) == []
    await superuser.close()


BAD: dict[str, tuple[list[str], str]] = {
    "no kind": (["CREATE TABLE pricing.bad (a int)"], "pricing.bad has no comment kind="),
    "unknown kind": (table(kind="stuff"), "pricing.bad has no comment kind="),
    "no organization": (
        ["CREATE TABLE pricing.bad (a int)", "COMMENT ON TABLE pricing.bad IS 'kind=inventory'"],
        "without organization_id uuid NOT NULL",
    ),
    "nullable organization": (table("organization_id uuid"), "without organization_id uuid NOT NULL"),
    "reference with a tenant": (table(kind="reference"), "reference table with an organization_id"),
    "not enabled": ([*table(), "ALTER TABLE pricing.bad DISABLE ROW LEVEL SECURITY"], "isn't enabled and forced"),
    "not forced": ([*table(), "ALTER TABLE pricing.bad NO FORCE ROW LEVEL SECURITY"], "isn't enabled and forced"),
    "no policy": ([*table(), "DROP POLICY tenant ON pricing.bad"], "there is no policy `tenant`"),
    "true policy": (table(condition="true"), "isn't the one condition"),
    "policy without nullif": (
        table(condition="organization_id = current_setting('app.organization_id')::uuid"),
        "isn't the one condition",
    ),
    "weak check": (
        [*table(), "ALTER POLICY tenant ON pricing.bad WITH CHECK (true)"],
        "isn't the one condition",
    ),
    "second policy": (
        [*table(), "CREATE POLICY more ON pricing.bad FOR SELECT TO pricing_api USING (true)"],
        "the policy more isn't on the list",
    ),
    "wrong role of an exception": (
        ["ALTER POLICY dispatch ON pricing.jobs TO pricing_worker"],
        "the policy dispatch isn't on the list",
    ),
    "dispatcher sees a payload": (
        ["GRANT SELECT (warrant) ON pricing.jobs TO pricing_dispatcher"],
        "pricing_dispatcher reads warrant of all organizations",
    ),
    "dispatcher changes a fence": (
        ["GRANT UPDATE (fence) ON pricing.jobs TO pricing_dispatcher"],
        "pricing_dispatcher writes fence of all organizations",
    ),
    "dispatcher deletes": (["GRANT DELETE ON pricing.jobs TO pricing_dispatcher"], "deletes rows of all"),
    "key without organization": (
        [*table(), "CREATE UNIQUE INDEX ON pricing.bad (thing_id)"],
        "the key (thing_id) is without organization_id",
    ),
    "foreign key without organization": (
        [
            *table(f"{OK}, parent uuid, UNIQUE (thing_id)"),
            "ALTER TABLE pricing.bad ADD CONSTRAINT up FOREIGN KEY (parent) REFERENCES pricing.bad (thing_id)",
        ],
        "the foreign key up is without organization_id",
    ),
    "state without trigger": (table(kind="state"), "a state table whose changes owe no event"),
    "state with half a trigger": (
        [
            *table(kind="state"),
            "CREATE CONSTRAINT TRIGGER owes_event AFTER INSERT ON pricing.bad DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION pricing.require_event()",
        ],
        "a state table whose changes owe no event",
    ),
    "state with a disabled trigger": (
        ["ALTER TABLE pricing.things DISABLE TRIGGER owes_event"],
        "pricing.things is a state table whose changes owe no event",
    ),
    "log without guard": (table(kind="log"), "a log that nothing keeps from being changed"),
    "log with update": (
        # Before it is sealed: afterwards the grant is refused.
        [*table(kind="log")[:-1], "GRANT UPDATE ON pricing.bad TO pricing_api", table(kind="log")[-1]],
        "UPDATE for pricing_api on",
    ),
    "outbox with delete": (["GRANT DELETE ON pricing.outbox TO pricing_api"], "on an outbox"),
    "outbox with update": (["GRANT UPDATE ON pricing.outbox TO pricing_api"], "on an outbox"),
    "another service's role": ([*table(), "GRANT SELECT ON pricing.bad TO audit_api"], "isn't a role of this service"),
    "everybody": ([*table(), "GRANT SELECT ON pricing.bad TO PUBLIC"], "isn't a role of this service"),
    "truncate": ([*table(), "GRANT TRUNCATE ON pricing.bad TO pricing_api"], "which no process needs"),
    "owner's view": (
        ["CREATE VIEW pricing.bad AS SELECT * FROM pricing.things"],
        "the view pricing.bad isn't security_invoker",
    ),
    "materialized view": (
        ["CREATE MATERIALIZED VIEW pricing.bad AS SELECT 1"],
        "materialized view or foreign table",
    ),
    "security definer": (
        ["CREATE FUNCTION pricing.bad() RETURNS int LANGUAGE sql SECURITY DEFINER RETURN 1"],
        "is SECURITY DEFINER",
    ),
    "function for everybody": (
        [
            "CREATE FUNCTION pricing.bad() RETURNS int LANGUAGE sql RETURN 1",
            "GRANT EXECUTE ON FUNCTION pricing.bad TO PUBLIC",
        ],
        "may be executed by everybody",
    ),
}


@pytest.mark.parametrize(("statements", "fault"), BAD.values(), ids=BAD.keys())
async def test_each_rule_can_fail(database: TestDatabase, statements: list[str], fault: str) -> None:
    await things.install(database)
    await database.run_as_owner("pricing", statements)
    superuser = await database.superuser()
    found = await faults(superuser)
    await superuser.close()
    assert [each for each in found if fault in each], found


MIGHTY = {
    "superuser": "ALTER ROLE pricing_api SUPERUSER",
    "bypass": "ALTER ROLE pricing_api BYPASSRLS",
    "member": "GRANT pricing_owner TO pricing_api",
    "login": "ALTER ROLE pricing_owner LOGIN",
    "owner": "ALTER TABLE pricing.things OWNER TO pricing_api",
    "event trigger": "ALTER EVENT TRIGGER recoup_log_refuses_drop DISABLE",
}


@pytest.mark.parametrize("statement", MIGHTY.values(), ids=MIGHTY.keys())
async def test_no_role_is_mightier_than_its_task(database: TestDatabase, statement: str) -> None:
    await things.install(database)
    superuser = await database.superuser()
    changed = superuser.transaction()  # Roles are the cluster's, not the database's.
    await changed.start()
    await superuser.execute(statement)
    found = await faults(superuser)
    await changed.rollback()
    await superuser.close()
    assert found


@pytest.mark.services("audit")
@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE audit.entries",
        "DROP TABLE audit.entries_s1",
        "ALTER TABLE audit.entries DETACH PARTITION audit.entries_s0",
        "ALTER TABLE audit.entries_s0 DISABLE TRIGGER append_only",
        "ALTER TABLE audit.payloads ADD COLUMN more text",
        "TRUNCATE audit.entries_s0",
        "UPDATE audit.payloads_s0 SET content = ''",
        "DROP TABLE audit.events",
        "DROP SCHEMA audit CASCADE",
        "DROP FUNCTION audit.refuse_change() CASCADE",
        "DROP TRIGGER append_only ON audit.entries",
        "DROP POLICY tenant ON audit.entries",
        "DROP OWNED BY audit_owner",
        "ALTER TABLE audit.entries DISABLE TRIGGER append_only",
        "ALTER TABLE audit.entries RENAME TO others",
        "ALTER TABLE audit.entries DISABLE ROW LEVEL SECURITY",
        "ALTER TABLE audit.nodes DROP CONSTRAINT nodes_pkey",
        "ALTER TRIGGER append_only ON audit.entries RENAME TO other",
        "ALTER POLICY tenant ON audit.entries USING (true)",
        "ALTER FUNCTION audit.refuse_change() RENAME TO other",
        "CREATE OR REPLACE FUNCTION audit.refuse_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        "CREATE RULE quiet AS ON INSERT TO audit.entries DO INSTEAD NOTHING",
        "CREATE TRIGGER more BEFORE INSERT ON audit.entries FOR EACH ROW EXECUTE FUNCTION audit.refuse_change()",
        "CREATE POLICY more ON audit.entries USING (true)",
        "COMMENT ON TABLE audit.entries IS 'kind=state'",
        "COMMENT ON TABLE audit.entries IS NULL",
        "TRUNCATE audit.entries",
        "UPDATE audit.entries SET action = ''",
        "DELETE FROM audit.nodes",
    ],
)
async def test_not_even_its_owner_changes_the_log(database: TestDatabase, statement: str) -> None:
    with pytest.raises(Exception, match="the log is append-only"):
        await database.run_as_owner("audit", [statement])


async def test_bootstrapping_twice_changes_nothing(database: TestDatabase) -> None:
    await things.install(database)
    superuser = await database.superuser()
    await superuser.execute((ROOT / "deploy" / "bootstrap.sql").read_text())
    assert await faults(superuser) == []
    await superuser.close()


# A row's xmin changes with every write, even one that writes what was there.
CATALOG = """
SELECT n.nspname AS schema, kind, what FROM pg_namespace n JOIN LATERAL (
  SELECT 'relation' AS kind, concat_ws(' ', c.relname, c.relkind, c.relacl, c.xmin) AS what
    FROM pg_class c WHERE c.relnamespace = n.oid
  UNION ALL SELECT 'column', concat_ws(' ', c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.xmin)
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid WHERE c.relnamespace = n.oid
  UNION ALL SELECT 'policy', concat_ws(' ', c.relname, p.polname, p.xmin)
    FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid WHERE c.relnamespace = n.oid
  UNION ALL SELECT 'function', concat_ws(' ', p.proname, p.proacl, p.xmin)
    FROM pg_proc p WHERE p.pronamespace = n.oid
) found ON true
WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') ORDER BY 1, 2, 3
"""


@pytest.mark.services("identity", "audit")
async def test_migrating_twice_changes_nothing(database: TestDatabase) -> None:
    before = await catalog_of(database)
    for service in ("identity", "audit"):
        await database.migrate(service)
    assert {schema for schema, _ in before} >= {"identity", "audit"}
    assert await catalog_of(database) == before


async def catalog_of(database: TestDatabase) -> dict[tuple[str, str], list[str]]:
    """What stands in the catalog, by schema and kind; each row carries the id of the transaction that wrote it."""
    superuser = await database.superuser()
    rows = await superuser.fetch(CATALOG)
    await superuser.close()
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        found.setdefault((row["schema"], row["kind"]), []).append(row["what"])
    return found
