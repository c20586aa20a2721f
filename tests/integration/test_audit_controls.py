"""The watch on the controls in the database: nothing to say of what the migrations make, and a word on each bypass."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping

import pytest

from services._mesh.clock import Clock
from services._mesh.metrics import Metrics
from services.audit.control_watch import ControlWatch
from services.audit.model.alarms import Alarm
from services.audit.model.controls import BODIES_SHA256, EVENT_TRIGGERS, SERVICES
from services.audit.store.controls import _CONTROLS, _digest, _expected, _expected_of_keys
from tests.support.postgres import ROOT, TestDatabase, drop, new_database, new_keys_database

EVENTS_OFF = "SET event_triggers = off"
# A function of a known name that does nothing, in another schema.
STRANGER = "CREATE FUNCTION public.{}() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'"


@pytest.fixture
async def whole() -> AsyncIterator[TestDatabase]:
    made = await new_database(SERVICES)
    yield made
    await drop(made)


# What somebody does as superuser, and what the watch says of it: (control, what it is about).
BYPASSES: dict[str, tuple[str, tuple[str, str]]] = {
    "event trigger disabled": (
        "ALTER EVENT TRIGGER recoup_log_refuses_alter DISABLE",
        ("event trigger", "recoup_log_refuses_alter"),
    ),
    "event trigger dropped": (
        "DROP EVENT TRIGGER recoup_log_refuses_drop",
        ("event trigger", "recoup_log_refuses_drop"),
    ),
    "append-only disabled": (
        "ALTER TABLE audit.nodes DISABLE TRIGGER append_only",
        ("append-only trigger", "audit.nodes"),
    ),
    "append-only of a partition": (
        "ALTER TABLE audit.entries_s3 DISABLE TRIGGER append_only",
        ("append-only trigger", "audit.entries_s3"),
    ),
    "append-only not always": (
        "ALTER TABLE audit.nodes ENABLE TRIGGER append_only",
        ("append-only trigger", "audit.nodes"),
    ),
    "append-only dropped": ("DROP TRIGGER append_only ON audit.dedup", ("append-only trigger", "audit.dedup")),
    "unsealed": ("COMMENT ON TABLE audit.checkpoints IS 'kind=reference'", ("log", "audit.checkpoints")),
    "refusal emptied": (
        "CREATE OR REPLACE FUNCTION audit.refuse_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        ("trigger function", "audit.refuse_change()"),
    ),
    "outbox trigger disabled": (
        "ALTER TABLE identity.members DISABLE TRIGGER owes_event",
        ("outbox trigger", "identity.members"),
    ),
    "outbox trigger dropped": ("DROP TRIGGER owes_event ON actions.actions", ("outbox trigger", "actions.actions")),
    "outbox check emptied": (
        "CREATE OR REPLACE FUNCTION identity.require_event() RETURNS trigger LANGUAGE plpgsql"
        " AS 'BEGIN RETURN NULL; END'",
        ("trigger function", "identity.require_event()"),
    ),
    "payload trigger disabled": (
        "ALTER TABLE identity.outbox DISABLE TRIGGER final_state",
        ("payload trigger", "identity.outbox"),
    ),
    "payload trigger narrowed": (
        "DROP TRIGGER final_state ON actions.outbox;"
        " CREATE TRIGGER final_state BEFORE UPDATE OF log_index ON actions.outbox FOR EACH ROW"
        " EXECUTE FUNCTION actions.hold_payload(); ALTER TABLE actions.outbox ENABLE ALWAYS TRIGGER final_state",
        ("payload trigger", "actions.outbox"),
    ),
    "payload check emptied": (
        "CREATE OR REPLACE FUNCTION scanner.hold_payload() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        ("trigger function", "scanner.hold_payload()"),
    ),
    "payload constraint dropped": (
        "ALTER TABLE audit.outbox DROP CONSTRAINT payload_until_relayed",
        ("payload constraint", "audit.outbox"),
    ),
    "state trigger disabled": (
        "ALTER TABLE identity.members DISABLE TRIGGER seals_state",
        ("state trigger", "identity.members"),
    ),
    "state trigger always": (
        "ALTER TABLE audit.legal_holds ENABLE ALWAYS TRIGGER seals_state",
        ("state trigger", "audit.legal_holds"),
    ),
    "state trigger narrowed": (
        "DROP TRIGGER seals_state ON actions.approvals; CREATE CONSTRAINT TRIGGER seals_state"
        " AFTER INSERT OR UPDATE OR DELETE ON actions.approvals DEFERRABLE INITIALLY DEFERRED FOR EACH ROW"
        " EXECUTE FUNCTION actions.seal_state('action_id,person', 'plan_hash')",
        ("state trigger", "actions.approvals"),
    ),
    "seals emptied": (
        "CREATE OR REPLACE FUNCTION identity.seal_of(content jsonb, names text[]) RETURNS jsonb LANGUAGE sql IMMUTABLE"
        " AS 'SELECT content'",
        ("trigger function", "identity.seal_of(jsonb,text[])"),
    ),
    "no longer state": ("COMMENT ON TABLE identity.members IS NULL", ("kind", "identity.members")),
    "security off": ("ALTER TABLE audit.entries DISABLE ROW LEVEL SECURITY", ("row-level security", "audit.entries")),
    "security not forced": (
        "ALTER TABLE scanner.findings NO FORCE ROW LEVEL SECURITY",
        ("row-level security", "scanner.findings"),
    ),
    "policy widened": ("ALTER POLICY tenant ON audit.payloads USING (true)", ("policy", "audit.payloads")),
    "policy for everybody": ("CREATE POLICY more ON pricing.jobs USING (true)", ("policy", "pricing.jobs")),
    "superuser": ("ALTER ROLE audit_api SUPERUSER", ("role", "audit_api")),
    "bypassrls": ("ALTER ROLE identity_api BYPASSRLS", ("role", "identity_api")),
    "backups' reader makes roles": ("ALTER ROLE backup_reader CREATEROLE", ("role", "backup_reader")),
    "backups' reader writes": ("GRANT INSERT ON audit.head TO backup_reader", ("grant", "audit.head")),
    "owner logs in": ("ALTER ROLE audit_owner LOGIN", ("role", "audit_owner")),
    "membership": ("GRANT audit_sequencer TO scanner_worker", ("membership", "scanner_worker")),
    "membership of a stranger": ("GRANT audit_owner TO postgres", ("membership", "postgres")),
    "migration inherits": ("GRANT audit_owner TO audit_migrate WITH INHERIT TRUE", ("membership", "audit_migrate")),
    "grant on a log": ("GRANT UPDATE ON audit.nodes TO audit_sequencer", ("grant", "audit.nodes")),
    "grant of a column": ("GRANT UPDATE (hash) ON audit.nodes TO audit_sequencer", ("grant", "audit.nodes")),
    "insert for another": ("GRANT INSERT ON audit.checkpoints TO audit_api", ("grant", "audit.checkpoints")),
    "another service": ("GRANT SELECT ON audit.entries TO scanner_api", ("grant", "audit.entries")),
    "everybody": ("GRANT SELECT ON identity.members TO PUBLIC", ("grant", "identity.members")),
    "owner changed": ("ALTER TABLE audit.head OWNER TO audit_sequencer", ("owner", "audit.head")),
    "child": ("CREATE TABLE audit.more () INHERITS (audit.nodes)", ("child", "audit.more")),
    "rule": ("CREATE RULE quiet AS ON INSERT TO audit.dedup DO INSTEAD NOTHING", ("rule", "audit.dedup")),
    "trigger": (
        "CREATE TRIGGER more BEFORE INSERT ON audit.chains FOR EACH ROW EXECUTE FUNCTION audit.refuse_change()",
        ("trigger", "audit.chains"),
    ),
    "definer": ("ALTER FUNCTION actions.require_event() SECURITY DEFINER", ("function", "actions.require_event()")),
    "role setting": (
        "ALTER ROLE audit_sequencer SET session_replication_role = replica",
        ("setting", "audit_sequencer"),
    ),
    "append-only with another function": (
        f"{STRANGER.format('refuse_change')}; DROP TRIGGER append_only ON audit.nodes; CREATE TRIGGER append_only"
        " BEFORE UPDATE OR DELETE OR TRUNCATE ON audit.nodes FOR EACH STATEMENT"
        " EXECUTE FUNCTION public.refuse_change(); ALTER TABLE audit.nodes ENABLE ALWAYS TRIGGER append_only",
        ("append-only trigger", "audit.nodes"),
    ),
    "outbox trigger with another function": (
        f"{STRANGER.format('require_event')}; DROP TRIGGER owes_event ON identity.members; CREATE CONSTRAINT TRIGGER"
        " owes_event AFTER INSERT OR UPDATE OR DELETE ON identity.members DEFERRABLE INITIALLY DEFERRED FOR EACH ROW"
        " EXECUTE FUNCTION public.require_event()",
        ("outbox trigger", "identity.members"),
    ),
    "payload trigger with another function": (
        f"{STRANGER.format('hold_payload')}; DROP TRIGGER final_state ON actions.outbox; CREATE TRIGGER final_state"
        " BEFORE UPDATE OF payload ON actions.outbox FOR EACH ROW EXECUTE FUNCTION public.hold_payload();"
        " ALTER TABLE actions.outbox ENABLE ALWAYS TRIGGER final_state",
        ("payload trigger", "actions.outbox"),
    ),
    "state trigger with another function": (
        f"{STRANGER.format('seal_state')}; DROP TRIGGER seals_state ON audit.legal_holds; CREATE CONSTRAINT TRIGGER"
        " seals_state AFTER INSERT OR UPDATE OR DELETE ON audit.legal_holds DEFERRABLE INITIALLY DEFERRED FOR EACH ROW"
        " EXECUTE FUNCTION public.seal_state('hold_id', 'subject_hash,releaser_hash')",
        ("state trigger", "audit.legal_holds"),
    ),
    "a known name on another table": (
        f"{STRANGER.format('seal_state')}; CREATE TRIGGER seals_state BEFORE INSERT ON audit.entries FOR EACH ROW"
        " EXECUTE FUNCTION public.seal_state()",
        ("trigger", "audit.entries"),
    ),
    "event trigger's function emptied": (
        "CREATE OR REPLACE FUNCTION public.recoup_refuse_alter() RETURNS event_trigger LANGUAGE plpgsql"
        " SET search_path = pg_catalog AS 'BEGIN END'",
        ("trigger function", "recoup_refuse_alter()"),
    ),
    "event trigger with another function": (
        "CREATE FUNCTION public.nothing() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';"
        " DROP EVENT TRIGGER recoup_log_refuses_drop;"
        " CREATE EVENT TRIGGER recoup_log_refuses_drop ON sql_drop EXECUTE FUNCTION public.nothing()",
        ("event trigger", "recoup_log_refuses_drop"),
    ),
    "event trigger narrowed": (
        "DROP EVENT TRIGGER recoup_log_refuses_alter; CREATE EVENT TRIGGER recoup_log_refuses_alter ON ddl_command_end"
        " WHEN TAG IN ('COMMENT') EXECUTE FUNCTION public.recoup_refuse_alter()",
        ("event trigger", "recoup_log_refuses_alter"),
    ),
    "function with another search path": (
        "ALTER FUNCTION audit.require_event() SET search_path = public",
        ("trigger function", "audit.require_event()"),
    ),
    "state called inventory": (
        "SET LOCAL ROLE scanner_owner; COMMENT ON TABLE scanner.credentials IS 'kind=inventory';"
        " DROP TRIGGER owes_event ON scanner.credentials; RESET ROLE",
        ("outbox trigger", "scanner.credentials"),
    ),
    "state called inventory, as such": (
        "COMMENT ON TABLE scanner.credentials IS 'kind=inventory'",
        ("kind", "scanner.credentials"),
    ),
    "cosignatures unsealed": (
        "COMMENT ON TABLE audit.cosignatures IS 'kind=reference'",
        ("log", "audit.cosignatures"),
    ),
    "partition unsealed": (
        "COMMENT ON TABLE audit.payloads_s2 IS 'kind=reference'; DROP TRIGGER append_only ON audit.payloads_s2",
        ("append-only trigger", "audit.payloads_s2"),
    ),
    "final state disabled": (
        "ALTER TABLE actions.actions DISABLE TRIGGER final_state",
        ("guard", "actions.actions"),
    ),
    "final state emptied": (
        "CREATE OR REPLACE FUNCTION actions.hold_final_state() RETURNS trigger LANGUAGE plpgsql"
        " SET search_path = pg_catalog AS 'BEGIN RETURN NEW; END'",
        ("trigger function", "actions.hold_final_state()"),
    ),
    "who changes a provider confirms it": (
        "ALTER TABLE identity.sso_providers DROP CONSTRAINT confirmed_by_another",
        ("constraint", "identity.sso_providers"),
    ),
    "one person is enough": (
        "ALTER TABLE audit.erasures DROP CONSTRAINT two_people; ALTER TABLE audit.erasures ADD CONSTRAINT two_people"
        " CHECK (true)",
        ("constraint", "audit.erasures"),
    ),
    "database setting": ("ALTER DATABASE {name} SET event_triggers = off", ("setting", "the database")),
}


# The same in the database of the subjects' keys.
KEYS_BYPASSES: dict[str, tuple[str, tuple[str, str]]] = {
    "guard disabled": ("ALTER TABLE subjects.keys DISABLE TRIGGER only_destroyed", ("guard", "subjects.keys")),
    "guard not always": ("ALTER TABLE subjects.keys ENABLE TRIGGER never_emptied", ("guard", "subjects.keys")),
    "guard with another function": (
        f"{STRANGER.format('refuse_change')}; DROP TRIGGER only_destroyed ON subjects.keys;"
        " CREATE TRIGGER only_destroyed BEFORE UPDATE OR DELETE ON subjects.keys FOR EACH ROW"
        " EXECUTE FUNCTION public.refuse_change();"
        " ALTER TABLE subjects.keys ENABLE ALWAYS TRIGGER only_destroyed",
        ("guard", "subjects.keys"),
    ),
    "guard emptied": (
        "CREATE OR REPLACE FUNCTION subjects.refuse_change() RETURNS trigger LANGUAGE plpgsql"
        " SET search_path = pg_catalog AS 'BEGIN RETURN NEW; END'",
        ("trigger function", "subjects.refuse_change()"),
    ),
    "constraint dropped": (
        "ALTER TABLE subjects.keys DROP CONSTRAINT destroyed_for_a_reason",
        ("constraint", "subjects.keys"),
    ),
    "the eraser reads keys": (
        "GRANT SELECT (wrapped_key) ON subjects.keys TO subjects_eraser",
        ("right", "subjects.keys"),
    ),
    "the API deletes keys": ("GRANT DELETE ON subjects.keys TO subjects_api", ("right", "subjects.keys")),
    "the eraser sees every organization": (
        "CREATE POLICY more ON subjects.keys TO subjects_eraser USING (true)",
        ("policy", "subjects.keys"),
    ),
    "security not forced": (
        "ALTER TABLE subjects.keys NO FORCE ROW LEVEL SECURITY",
        ("row-level security", "subjects.keys"),
    ),
    "owner logs in": ("ALTER ROLE subjects_owner LOGIN", ("role", "subjects_owner")),
    "membership": ("GRANT subjects_eraser TO subjects_api", ("membership", "subjects_api")),
    "setting": (
        "ALTER ROLE subjects_eraser SET session_replication_role = replica",
        ("setting", "subjects_eraser"),
    ),
}


async def test_what_the_migrations_make_is_no_bypass(whole: TestDatabase) -> None:
    alarms: list[Alarm] = []
    metrics = Metrics()
    role = whole.role("audit_checker", 1)
    watch = ControlWatch(role, Clock(), alarms.append, metrics)
    assert await watch.look() == []
    assert alarms == []
    assert "recoup_controls_bypassed 0" in metrics.render()
    await role.close()


async def test_each_bypass_is_noticed_once_and_again_when_it_comes_back(whole: TestDatabase) -> None:
    superuser = await whole.superuser()
    await superuser.execute(EVENTS_OFF)
    role = whole.role("audit_checker", 1)
    for name, (statement, expected) in BYPASSES.items():
        alarms: list[Alarm] = []
        watch = ControlWatch(role, Clock(), alarms.append, Metrics())
        connection = await whole.superuser()
        await connection.execute(EVENTS_OFF)
        # Roles are the cluster's: whatever was done is taken back, and what can't be is done in a transaction.
        await connection.execute("BEGIN")
        await connection.execute(statement.format(name=f'"{whole.name}"'))
        found = await within(connection)
        await connection.execute("ROLLBACK")
        await connection.close()
        assert expected in {(each[0], each[1]) for each in found}, (name, found)
        assert await watch.look() == [], name
    await superuser.execute("ALTER TABLE audit.nodes DISABLE TRIGGER append_only")
    alarms = []
    metrics = Metrics()
    watch = ControlWatch(role, Clock(), alarms.append, metrics)
    for _ in range(3):
        assert len(await watch.look()) == 1
    assert "recoup_controls_bypassed 1" in metrics.render()
    await superuser.execute("ALTER TABLE audit.nodes ENABLE ALWAYS TRIGGER append_only")
    assert await watch.look() == []
    await superuser.execute("ALTER TABLE audit.nodes DISABLE TRIGGER append_only")
    await watch.look()
    assert [(each.kind, each.metadata["what"]) for each in alarms] == [("CONTROL_BYPASSED", "audit.nodes")] * 2
    assert len({each.key for each in alarms}) == 2
    await role.close()
    await superuser.close()


async def test_each_bypass_of_the_keys_is_noticed(whole: TestDatabase) -> None:
    made = await new_keys_database()
    role, keys = whole.role("audit_checker", 1), made.role("subjects_api", 1)
    alarms: list[Alarm] = []
    watch = ControlWatch(role, Clock(), alarms.append, Metrics(), keys=keys)
    for name, (statement, expected) in KEYS_BYPASSES.items():
        connection = await made.superuser()
        await connection.execute("BEGIN")
        await connection.execute(statement)
        found = await within(connection, _expected_of_keys())
        await connection.execute("ROLLBACK")
        await connection.close()
        assert expected in {(each[0], each[1]) for each in found}, (name, found)
        assert await watch.look() == [], name
    superuser = await made.superuser()
    await superuser.execute("ALTER TABLE subjects.keys DISABLE TRIGGER only_destroyed")
    for _ in range(2):
        assert len(await watch.look()) == 1
    # Nor is it forgotten while the keys are away.
    await superuser.execute("REVOKE SELECT ON pg_trigger FROM PUBLIC")
    with pytest.raises(Exception, match="permission denied"):
        await watch.look()
    assert watch._found
    assert [(each.kind, each.metadata["what"]) for each in alarms] == [("CONTROL_BYPASSED", "subjects.keys")]
    for each in (role, keys):
        await each.close()
    await superuser.close()
    await drop(made)


def test_the_bodies_are_those_of_the_bootstrap() -> None:
    script = (ROOT / "deploy" / "bootstrap.sql").read_text()
    for *_, function in EVENT_TRIGGERS:
        found = re.search(rf"FUNCTION {re.escape(function)}\(\).*?\$body\$(.*?)\$body\$", script, re.DOTALL)
        assert found is not None
        assert _digest(found[1]) == BODIES_SHA256[function]


async def within(connection: object, expected: Mapping[str, object] | None = None) -> list[tuple[str, str, str]]:
    """The watch's own query, in a transaction that sees what it did itself."""
    from sqlalchemy import bindparam, text
    from sqlalchemy.dialects import postgresql

    expected = expected or _expected(True)
    compiled = (
        text(_CONTROLS).bindparams(*(bindparam(key) for key in expected)).compile(dialect=postgresql.asyncpg.dialect())
    )
    arguments = [expected[key] for key in compiled.positiontup]
    rows = await connection.fetch(str(compiled), *arguments)  # type: ignore[attr-defined]
    return [(row["control"], row["what"], row["how"]) for row in rows]


async def test_without_event_triggers_their_absence_is_no_bypass(whole: TestDatabase) -> None:
    superuser = await whole.superuser()
    for name in ("alter", "drop", "opening"):
        await superuser.execute(f"DROP EVENT TRIGGER recoup_log_refuses_{name}")
    await superuser.close()
    role = whole.role("audit_checker", 1)
    assert len(await ControlWatch(role, Clock(), lambda _: None, Metrics()).look()) == 3
    assert await ControlWatch(role, Clock(), lambda _: None, Metrics(), event_triggers=False).look() == []
    await role.close()
