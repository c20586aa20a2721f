"""Writes a restored database: an empty one that was bootstrapped, migrated to the backup's own revisions, then COPY.

Triggers, foreign keys and event triggers of the session are off while rows come in (session_replication_role): what
they would say was said when the rows were first written. What has come in is compared before it is committed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from services._mesh.database import Database
from services._mesh.migrate import SERVICES, upgrade
from services._mesh.settings import DatabaseSettings
from services.backup.model.manifest import KEYS, MAIN, DatabaseCopy, Table
from services.backup.store.catalog import SCHEMAS, Shape, list_partitions, list_shapes, read_revisions
from services.backup.store.connecting import STATEMENT_SECONDS, Connection, connected

SCRIPTS = {MAIN: "bootstrap.sql", KEYS: "bootstrap_keys.sql"}
_FOLDERS = {"subjects": SERVICES / "audit" / "keys_migrations"}
_ADD_SHARDS = SERVICES.parent / "deploy" / "add_shards.sql"
_SHARD = re.compile(r"(entries|payloads)_s([0-9]{1,5})")
Rows = Callable[[Table], AsyncIterator[bytes]]


class TargetUnusable(Exception):
    """Nothing can be restored there; says why, and what to do. Nothing was changed, unless it says so."""


class Differs(Exception):
    """What was restored isn't what was backed up: names the table. It isn't committed."""


async def read_system(settings: DatabaseSettings) -> str:
    """What tells a server from every other one."""
    async with connected(settings) as connection:
        return str(await connection.fetchval("SELECT system_identifier FROM pg_control_system()"))


async def require_empty(settings: DatabaseSettings, database: str) -> None:
    """Raises TargetUnusable unless nothing can be overwritten, and the login may restore."""
    async with connected(settings) as connection:
        name = await connection.fetchval("SELECT current_database()")
        for schema in SCHEMAS[database]:
            if not await connection.fetchval("SELECT count(*) FROM pg_namespace WHERE nspname = $1", schema):
                raise TargetUnusable(f"{name} has no schema {schema}. Run deploy/{SCRIPTS[database]} there first.")
        found = await connection.fetch(_OCCUPIED, list(SCHEMAS[database]))
        if found:
            named = ", ".join(row["name"] for row in found)
            raise TargetUnusable(
                f"{name} isn't empty: it has {named}. Nothing is restored over anything, not even over what an earlier"
                f" restore left: create a new database, run deploy/{SCRIPTS[database]} there, and restore into that."
            )
        if not await connection.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user"):
            raise TargetUnusable(f"{settings.user} is no superuser, which a restore needs. Name one.")


_OCCUPIED = """
SELECT n.nspname || '.' || c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = ANY($1) AND c.relkind IN ('r', 'p', 'v', 'm', 'S') ORDER BY 1 LIMIT 3
"""


async def migrate_to(settings: DatabaseSettings, revisions: Mapping[str, str]) -> None:
    """Make the tables of an empty database as they were at these revisions. Raises TargetUnusable."""
    for schema, revision in revisions.items():
        folder = _FOLDERS.get(schema, SERVICES / schema / "migrations")
        if not any(path.name.startswith(f"{revision}_") for path in (folder / "versions").glob("*.py")):
            raise TargetUnusable(
                f"the backup's {schema} is of revision {revision}, which this version doesn't have. Restore with the"
                " version that made the backup, or a newer one, and upgrade afterwards."
            )
    database = Database(settings, settings.user, settings.password_file, 1)
    try:
        for schema, revision in revisions.items():
            async with database.unscoped() as connection:
                await connection.run_sync(upgrade, schema, _FOLDERS.get(schema), revision)
    finally:
        await database.close()


async def copy_in(settings: DatabaseSettings, database: str, copy: DatabaseCopy, rows: Rows) -> None:
    """All tables in one transaction, compared before it is committed. Raises TargetUnusable, Differs."""
    async with connected(settings) as connection:
        await _match_partitions(connection, copy)
        shapes = await _shapes_of(connection, database, copy)
        async with connection.transaction():
            await connection.execute("SET LOCAL session_replication_role = replica")
            for table in copy.tables:
                await _fill(connection, table, rows(table))
            for table in copy.tables:
                await _compare(connection, table, shapes[table.name])
        await connection.execute("ANALYZE")


async def _shapes_of(connection: Connection, database: str, copy: DatabaseCopy) -> dict[str, Shape]:
    """The tables as they are here, which have to be those of the backup."""
    shapes = {shape.name: shape for shape in await list_shapes(connection, database)}
    revisions = await read_revisions(connection, database)
    if dict(revisions) != dict(copy.revisions):
        raise TargetUnusable(f"the schemas are of {dict(revisions)}, the backup's of {dict(copy.revisions)}.")
    kept = {table.name: list(table.columns) for table in copy.tables}
    if kept != {name: list(shape.columns) for name, shape in shapes.items()}:
        names = ", ".join(sorted(set(kept) ^ set(shapes))) or "some columns"
        raise TargetUnusable(f"the tables here aren't the backup's: {names} differ. Nothing was copied.")
    return shapes


async def _fill(connection: Connection, table: Table, rows: AsyncIterator[bytes]) -> None:
    # What a migration puts into a new table (a first head, a generation) gives way to what it became.
    if await connection.fetchval(f"SELECT EXISTS (SELECT FROM {table.name})"):
        await connection.execute(f"DELETE FROM {table.name}")
    schema, _, name = table.name.partition(".")
    await connection.copy_to_table(
        name, schema_name=schema, source=rows, columns=list(table.columns), timeout=STATEMENT_SECONDS
    )


async def _compare(connection: Connection, table: Table, shape: Shape) -> None:
    digest = hashlib.sha256()

    async def sink(data: bytes) -> None:
        digest.update(data)

    answer = await connection.copy_from_query(shape.query(), output=sink)
    if (int(answer.rpartition(" ")[2]), digest.hexdigest()) != (table.rows, table.sha256):
        raise Differs(f"{table.name} came back with other rows than were backed up")


async def _match_partitions(connection: Connection, copy: DatabaseCopy) -> None:
    """Add the partitions of shards that were added, and take off those that were detached."""
    here = await list_partitions(connection, MAIN)
    more = [name for parent, names in copy.partitions.items() for name in set(names) - set(here.get(parent, ()))]
    if more:
        await _add_shards(connection, max(_shard(name) for name in more) - _last(here))
    kept = {table.name for table in copy.tables}
    async with connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        for parent, names in (await list_partitions(connection, MAIN)).items():
            for name in sorted(set(names) - set(copy.partitions.get(parent, ()))):
                await connection.execute(f"ALTER TABLE audit.{parent} DETACH PARTITION audit.{name}")
                if f"audit.{name}" in kept:
                    await connection.execute(f"GRANT SELECT ON audit.{name} TO audit_api")  # As detach_shard.sql does.
                else:
                    await connection.execute(f"DROP TABLE audit.{name}")


async def _add_shards(connection: Connection, count: int) -> None:
    body = _ADD_SHARDS.read_text("utf-8")
    async with connection.transaction():
        await connection.execute("SELECT set_config('recoup.more', $1, true)", str(count))
        await connection.execute(body[body.index("DO $body$") :])


def _shard(name: str) -> int:
    found = _SHARD.fullmatch(name)
    if found is None:
        raise TargetUnusable(f"audit.{name} is no partition of a shard. Restore with the version that made the backup.")
    return int(found[2])


def _last(here: Mapping[str, Sequence[str]]) -> int:
    return max(_shard(name) for names in here.values() for name in names)


async def create_database(settings: DatabaseSettings, name: str, bootstrap: str) -> None:
    """Make a database on a server that is for nothing else, and run a bootstrap script there."""
    async with connected(settings, "postgres") as admin:
        await admin.execute(f'CREATE DATABASE "{name}" TEMPLATE template0')
    async with connected(settings, name) as connection:
        await connection.execute(bootstrap)


async def set_passwords(settings: DatabaseSettings, logins: Sequence[str], password: str) -> None:
    """Let logins in, on a server that is for nothing else. `password` is ours, without quotes."""
    async with connected(settings) as connection:
        for login in logins:
            await connection.execute(f"ALTER ROLE {login} PASSWORD '{password}'")


async def drop_database(settings: DatabaseSettings, name: str) -> None:
    """Throw a database away."""
    async with connected(settings, "postgres") as admin:
        await admin.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
