"""Reads the two databases that are backed up, each in one snapshot, as a role that may read and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from services._mesh.settings import DatabaseSettings
from services.backup.model.manifest import KEYS, MAIN, DatabaseCopy, KekUse, LogHead, Table
from services.backup.store.catalog import SCHEMAS, Shape, list_partitions, list_shapes, read_revisions
from services.backup.store.connecting import Connection, connected

_ATTEMPTS = 5
_LOCK = "recoup backup"
# Decided erasures only become more. Keys are destroyed after the decision is committed.
_DECIDED = "SELECT count(*) FROM audit.erasures WHERE state IN ('APPROVED', 'DONE')"


class SourceUnusable(Exception):
    """The databases can't be backed up as they are; says why, and what to do."""


class Snapshots:
    """Both databases, each in one read-only snapshot that lasts until the block ends."""

    def __init__(self, connections: dict[str, Connection], system: str) -> None:
        self._connections, self.system = connections, system

    async def shapes(self, database: str) -> list[Shape]:
        """The tables of one of them."""
        return await list_shapes(self._connections[database], database)

    async def copy_out(self, database: str, shape: Shape, sink: Callable[[bytes], Coroutine[Any, Any, None]]) -> int:
        """Give a table's rows to `sink` as COPY's text, as fast as it takes them; returns how many there were."""
        answer = await self._connections[database].copy_from_query(shape.query(), output=sink)
        return int(answer.rpartition(" ")[2])

    async def describe(self, database: str, tables: list[Table]) -> DatabaseCopy:
        """What the manifest says of one of them."""
        connection = self._connections[database]
        row = await connection.fetchrow(_DESCRIBED)
        assert row is not None
        return DatabaseCopy(
            tables=tables,
            revisions=await read_revisions(connection, database),
            partitions=await list_partitions(connection, database),
            **dict(row),
        )

    async def keks(self) -> list[KekUse]:
        """Under which KEKs organizations' secrets are, as each envelope says itself."""
        connection, found = self._connections[MAIN], list[KekUse]()
        for name in await connection.fetch(_ENVELOPES, list(SCHEMAS[MAIN])):
            for row in await connection.fetch(_KEKS.format(table=name["table"], column=name["column"])):
                found.append(KekUse(str(row["organization_id"]), row["service"], row["kek"], row["secrets"]))
        return found

    async def log_head(self) -> LogHead:
        """How far the log is."""
        connection = self._connections[MAIN]
        place = await connection.fetchval("SELECT size FROM audit.head")
        newest = await connection.fetchrow("SELECT size, note FROM audit.checkpoints ORDER BY size DESC LIMIT 1")
        return LogHead(int(place or 0), *((int(newest["size"]), str(newest["note"])) if newest else (0, "")))


_DESCRIBED = """
SELECT current_database()::text AS name, system_identifier::text AS system_identifier,
  current_setting('server_version') AS server_version, to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.USZ')
    AS taken_at,
  (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END)::text AS lsn
FROM pg_control_system()
"""
# Sealed secrets stand in columns of that name, whichever service's, beside the KEK that the database reads from them.
_ENVELOPES = """
SELECT format('%I.%I', n.nspname, c.relname) AS table, format('%I', a.attname) AS column
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = ANY($1) AND c.relkind IN ('r', 'p')
  AND NOT c.relispartition AND a.atttypid = 'bytea'::regtype AND a.attname = 'envelope' AND EXISTS (
    SELECT FROM pg_attribute k WHERE k.attrelid = c.oid AND k.attname = 'kek' AND k.attgenerated <> '')
ORDER BY 1, 2
"""
# The header of services/_mesh/envelope.py: version, key service, the length of the KEK's reference in two bytes (in one
# byte of version 1).
_KEKS = """
SELECT organization_id, get_byte({column}, 1) AS service, convert_from(CASE get_byte({column}, 0)
    WHEN 1 THEN substring({column} FROM 4 FOR get_byte({column}, 2))
    ELSE substring({column} FROM 5 FOR get_byte({column}, 2) * 256 + get_byte({column}, 3)) END, 'UTF8') AS kek,
  count(*)::integer AS secrets
FROM {table} WHERE length({column}) > 4 GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""


@dataclass(frozen=True, slots=True)
class Source:
    """Where the two databases are."""

    main: DatabaseSettings
    keys: DatabaseSettings

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[Connection]:
        """A connection, while no backup is made or pruned but by us. Raises SourceUnusable."""
        async with connected(self.main) as beside:
            await _require_reader(beside)
            if not await beside.fetchval("SELECT pg_try_advisory_lock(hashtextextended($1, 0))", _LOCK):
                raise SourceUnusable("another backup is being made or pruned. Wait for it, or end it.")
            yield beside

    @asynccontextmanager
    async def snapshots(self) -> AsyncIterator[Snapshots]:
        """The log's database first, then the keys', with no erasure decided in between.

        So each payload in it has its key, unless it is erased, and no key is in it of what the log's snapshot calls
        erased, but for an erasure that is under way there, which a restored audit process finishes. Raises
        SourceUnusable.
        """
        async with self.alone() as beside:
            for _ in range(_ATTEMPTS):
                async with AsyncExitStack() as stack:
                    main = await stack.enter_async_context(connected(self.main))
                    await _begin(main, MAIN)
                    decided = await main.fetchval(_DECIDED)
                    keys = await stack.enter_async_context(connected(self.keys))
                    await _require_reader(keys)
                    await _begin(keys, KEYS)
                    if await beside.fetchval(_DECIDED) == decided:
                        yield Snapshots({MAIN: main, KEYS: keys}, await self.name(main))
                        return
            raise SourceUnusable("erasures are being executed at this very moment. Try again in a minute.")

    async def name(self, main: Connection) -> str:
        """What attempts call these databases."""
        system = await main.fetchval("SELECT system_identifier FROM pg_control_system()")
        return f"{system}/{self.main.dbname}"


async def _begin(connection: Connection, database: str) -> None:
    names = [shape.name for shape in await list_shapes(connection, database)]
    if not names:
        raise SourceUnusable("there are no tables. Is it the right database, and is it migrated?")
    await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    # Before the snapshot: a table that a migration writes anew would look empty to it. Reading and writing goes on.
    await connection.execute(f"LOCK TABLE {', '.join(names)} IN ACCESS SHARE MODE")
    await connection.fetchval("SELECT 1")  # The first query takes the snapshot.


async def _require_reader(connection: Connection) -> None:
    """A role that row-level security holds would dump no rows at all, one that writes has no business here."""
    row = await connection.fetchrow(
        "SELECT rolname::text AS name, rolbypassrls OR rolsuper AS sees, rolsuper AS mighty FROM pg_roles"
        " WHERE rolname = current_user"
    )
    assert row is not None
    if not row["sees"]:
        raise SourceUnusable(f"{row['name']} has no BYPASSRLS: it would see no row. Use backup_reader (bootstrap.sql).")
    if row["mighty"]:
        raise SourceUnusable(f"{row['name']} is a superuser: a backup needs to read only. Use backup_reader.")


async def list_organizations(main: DatabaseSettings, backup_id: UUID) -> list[UUID]:
    """In which organizations a backup is on record."""
    async with connected(main) as connection:
        rows = await connection.fetch(
            "SELECT DISTINCT organization_id FROM scanner.backups WHERE backup_id = $1 ORDER BY 1", backup_id
        )
        return [UUID(str(row["organization_id"])) for row in rows]
