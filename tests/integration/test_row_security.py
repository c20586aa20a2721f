"""Row-level security as a process meets it, on real tables: with another organization, with none, with what is left.

The catalog test holds every table to the one condition; here it is seen at work, and broken on purpose.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from services._mesh.clock import Clock
from services._mesh.uow import Store
from services.identity.model.membership import Role
from services.identity.usecases import organizations
from services.identity.usecases.organizations import NewOrganization
from tests.support.erasing import ADA
from tests.support.postgres import TestDatabase
from tests.support.things import ACME, GLOBEX

pytestmark = pytest.mark.services("identity")

NAMED = "SELECT set_config('app.organization_id', $1, true)"
# Tables that have rows once an organization was created.
TABLES = ("organizations", "members", "outbox", "outbox_counters", "state_seals")


@pytest.fixture
async def api(database: TestDatabase) -> AsyncIterator[asyncpg.Connection]:
    """The API's own login, in a database with two organizations."""
    role = database.role("identity_api", 1)
    for organization, slug in ((ACME, "acme"), (GLOBEX, "globex")):
        given = NewOrganization(organization, slug, slug, "UTC", "USD", ((ADA, "a@x.example", Role.ADMIN),))
        await organizations.create_organization(Store(role, "identity", Clock()), given)
    await role.close()
    connection = await database.login("identity_api")
    yield connection
    await connection.close()


async def seen(connection: asyncpg.Connection, table: str) -> set[object]:
    rows = await connection.fetch(f"SELECT organization_id FROM identity.{table}")
    return {row["organization_id"] for row in rows}


@pytest.mark.parametrize("table", TABLES)
async def test_rows_are_the_organizations_own_and_gone_with_the_transaction(
    api: asyncpg.Connection, table: str
) -> None:
    async with api.transaction():
        assert await seen(api, table) == set()  # Nobody has said which organization.
        await api.execute(NAMED, str(ACME))
        assert await seen(api, table) == {ACME}
    # What a transaction leaves behind on its connection is an empty text, and no NULL: that is no organization either.
    assert await api.fetchval("SELECT current_setting('app.organization_id', true)") == ""
    assert await seen(api, table) == set()
    async with api.transaction():
        assert await seen(api, table) == set()


@pytest.mark.parametrize("table", TABLES)
async def test_an_exception_leaves_no_organization_behind(api: asyncpg.Connection, table: str) -> None:
    with pytest.raises(asyncpg.DivisionByZeroError):
        async with api.transaction():
            await api.execute(NAMED, str(ACME))
            await api.execute("SELECT 1 / 0")
    assert await seen(api, table) == set()


async def test_without_nullif_what_is_left_behind_would_be_an_error(
    database: TestDatabase, api: asyncpg.Connection
) -> None:
    """Why the condition is what it is: the shorter one works until a connection is used again."""
    short = "organization_id = current_setting('app.organization_id', true)::uuid"
    await database.run_as_owner("identity", [f"ALTER POLICY tenant ON identity.members USING ({short})"])
    async with api.transaction():
        await api.execute(NAMED, str(ACME))
        assert await seen(api, "members") == {ACME}
    with pytest.raises(asyncpg.InvalidTextRepresentationError):
        await seen(api, "members")


async def test_what_goes_around_the_policies_is_what_the_catalog_test_refuses(
    database: TestDatabase, api: asyncpg.Connection
) -> None:
    """An owner's view, a materialized view and a SECURITY DEFINER function each show all rows to anybody."""
    superuser = await database.superuser()
    for statement in (
        "CREATE VIEW identity.leak AS SELECT organization_id FROM identity.members",
        "CREATE MATERIALIZED VIEW identity.stale AS SELECT organization_id FROM identity.members",
        "CREATE FUNCTION identity.tell() RETURNS SETOF uuid LANGUAGE sql SECURITY DEFINER"
        " AS 'SELECT organization_id FROM identity.members'",
        "GRANT SELECT ON identity.leak, identity.stale TO identity_api",
    ):
        await superuser.execute(statement)
    for source in ("identity.leak", "identity.stale", "identity.tell() AS t(organization_id)"):
        rows = await api.fetch(f"SELECT organization_id FROM {source}")
        assert {row["organization_id"] for row in rows} == {ACME, GLOBEX}, source
    await superuser.execute("ALTER VIEW identity.leak SET (security_invoker)")
    assert await api.fetch("SELECT organization_id FROM identity.leak") == []
    await superuser.close()


async def test_a_foreign_key_tells_nothing_about_another_organization(
    database: TestDatabase, api: asyncpg.Connection
) -> None:
    """With the organization in it, a key of another's row is as unknown as one of nobody's."""
    await database.run_as_owner(
        "identity",
        [
            "CREATE TABLE identity.notes (organization_id uuid NOT NULL, member_id uuid NOT NULL,"
            " FOREIGN KEY (organization_id, member_id) REFERENCES identity.members (organization_id, member_id))",
            "GRANT INSERT ON identity.notes TO identity_api",
        ],
    )
    superuser = await database.superuser()
    theirs = await superuser.fetchval("SELECT member_id FROM identity.members WHERE organization_id = $1", GLOBEX)
    await superuser.close()
    said = set()
    for member in (theirs, ADA):
        with pytest.raises(asyncpg.ForeignKeyViolationError) as raised:
            async with api.transaction():
                await api.execute(NAMED, str(ACME))
                await api.execute("INSERT INTO identity.notes VALUES ($1, $2)", ACME, member)
        said.add(raised.value.args[0])
    assert len(said) == 1
