"""The database of subjects' keys: its rules of tenancy, who reaches what, and that a key can only be destroyed."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import UUID, uuid4

import asyncpg
import pytest

from tests.support.catalog import KEYS_RULES, faults
from tests.support.postgres import KEYS_MIGRATIONS, ROOT, TestDatabase, drop, new_keys_database

ACME, GLOBEX = UUID(int=1), UUID(int=2)
INSERT = """INSERT INTO subjects.keys (organization_id, subject_hash, key_id, wrapped_key, created_at)
VALUES ($1, $2, $3, $4, $5)"""
DESTROY = "UPDATE subjects.keys SET wrapped_key = '', destroyed_at = now(), erasure_id = gen_random_uuid()"


@pytest.fixture
async def keys(database: TestDatabase) -> AsyncIterator[TestDatabase]:
    """A database of keys, in a cluster where the log's roles are known too."""
    assert database.handle
    made = await new_keys_database()
    yield made
    await drop(made)


async def put(keys: TestDatabase, organization: UUID, subject: bytes = b"s" * 32) -> UUID:
    key_id = uuid4()
    sealer = await keys.login("subjects_sealer")
    try:
        await sealer.execute(INSERT, organization, subject, key_id, os.urandom(90), datetime.now(UTC))
    finally:
        await sealer.close()
    return key_id


async def test_its_tables_keep_the_rules_of_tenancy(keys: TestDatabase) -> None:
    superuser = await keys.superuser()
    assert await faults(superuser, KEYS_RULES) == []
    assert await superuser.fetchval("SELECT count(*) FROM pg_policies WHERE tablename = 'keys'") == 2
    await superuser.execute(
        "GRANT SELECT ON subjects.keys TO audit_api; ALTER TABLE subjects.keys NO FORCE ROW LEVEL SECURITY"
    )
    found = await faults(superuser, KEYS_RULES)
    await superuser.close()
    assert [fault for fault in found if "isn't a role of this service" in fault]
    assert [fault for fault in found if "isn't enabled and forced" in fault]


async def test_making_it_twice_changes_nothing(keys: TestDatabase) -> None:
    await put(keys, ACME)
    superuser = await keys.superuser()
    generation = await superuser.fetchval("SELECT generation FROM subjects.generation")
    await superuser.execute((ROOT / "deploy" / "bootstrap_keys.sql").read_text())
    await keys.migrate("subjects", KEYS_MIGRATIONS)
    assert await superuser.fetchval("SELECT generation FROM subjects.generation") == generation
    assert await superuser.fetchval("SELECT count(*) FROM subjects.keys") == 1
    await superuser.close()


@pytest.mark.parametrize("role", ["audit_api", "audit_sequencer", "identity_api", "scanner_worker"])
async def test_no_login_of_the_log_reaches_it(keys: TestDatabase, role: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await keys.login(role)


async def test_a_reader_sees_one_organization_and_a_sealer_all(keys: TestDatabase) -> None:
    await put(keys, ACME)
    await put(keys, GLOBEX)
    api = await keys.login("subjects_api")
    assert await api.fetchval("SELECT count(*) FROM subjects.keys") == 0
    async with api.transaction():
        await api.execute("SELECT set_config('app.organization_id', $1, true)", str(ACME))
        assert [row["organization_id"] for row in await api.fetch("SELECT * FROM subjects.keys")] == [ACME]
    await api.close()
    sealer = await keys.login("subjects_sealer")
    assert await sealer.fetchval("SELECT count(*) FROM (SELECT key_id FROM subjects.keys) AS k") == 2
    await sealer.close()


async def test_an_eraser_destroys_within_one_organization_and_reads_no_key(keys: TestDatabase) -> None:
    await put(keys, ACME)
    await put(keys, GLOBEX)
    eraser = await keys.login("subjects_eraser")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await eraser.fetch("SELECT wrapped_key FROM subjects.keys")
    async with eraser.transaction():
        await eraser.execute("SELECT set_config('app.organization_id', $1, true)", str(ACME))
        assert await eraser.execute(DESTROY) == "UPDATE 1"
    await eraser.close()
    superuser = await keys.superuser()
    rows = await superuser.fetch("SELECT organization_id, length(wrapped_key) AS n FROM subjects.keys ORDER BY 1")
    await superuser.close()
    assert [(row["organization_id"], row["n"]) for row in rows] == [(ACME, 0), (GLOBEX, 90)]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE subjects.keys SET wrapped_key = 'other'",
        "UPDATE subjects.keys SET wrapped_key = ''",
        f"{DESTROY}, subject_hash = decode(repeat('00', 32), 'hex')",
        "UPDATE subjects.keys SET destroyed_at = now(), erasure_id = gen_random_uuid()",
        "DELETE FROM subjects.keys",
        "TRUNCATE subjects.keys",
    ],
)
@pytest.mark.parametrize("role", ["subjects_owner", "postgres"])
async def test_a_key_can_be_destroyed_and_nothing_else(keys: TestDatabase, statement: str, role: str) -> None:
    await put(keys, ACME)
    superuser = await keys.superuser()
    # RLS hides every row from the owner, so that it is told the organization.
    await superuser.execute(f"SET app.organization_id = '{ACME}'; SET ROLE {role}")
    with pytest.raises(asyncpg.PostgresError, match=r"a key can be destroyed|gone_when_destroyed"):
        await superuser.execute(statement)
    await superuser.close()


async def test_what_is_destroyed_stays_destroyed(keys: TestDatabase) -> None:
    await put(keys, ACME)
    superuser = await keys.superuser()
    await superuser.execute(DESTROY)
    await superuser.execute("SET session_replication_role = replica")
    for statement in ("UPDATE subjects.keys SET destroyed_at = NULL, erasure_id = NULL, wrapped_key = 'back'", DESTROY):
        with pytest.raises(asyncpg.PostgresError, match="a key can be destroyed"):
            await superuser.execute(statement)
    await superuser.close()


async def test_a_subject_has_one_key_that_is_alive(keys: TestDatabase) -> None:
    await put(keys, ACME)
    with pytest.raises(asyncpg.UniqueViolationError):
        await put(keys, ACME)
    superuser = await keys.superuser()
    await superuser.execute(DESTROY)
    await superuser.close()
    await put(keys, ACME)
