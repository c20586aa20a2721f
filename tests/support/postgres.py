"""PostgreSQL for tests: one real cluster for each test process, a fresh database for whoever asks, real roles.

Under xdist each worker has its own cluster (under a second to make), so that nothing is shared between processes and
nothing has to be counted. A set of migrations is run once, and copied as a template from then on.
"""

from __future__ import annotations

import asyncio
import atexit
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import asyncpg

from recoup_local.embedded.postgres import EmbeddedPostgres, PostgresHandle, connect
from services._mesh.database import Database
from services._mesh.migrate import migrate
from services._mesh.settings import DatabaseSettings

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "for-tests-only"

_folder: Path | None = None
_handle: PostgresHandle | None = None
_templates: dict[tuple[str, ...], str] = {}


def cluster() -> PostgresHandle:
    """The cluster of this test process, started on first use and ended with the process."""
    global _folder, _handle
    if _handle is None:
        _folder = Path(tempfile.mkdtemp(prefix="recoup-test-"))
        running = EmbeddedPostgres(_folder, fsync=False)
        atexit.register(shutil.rmtree, _folder, ignore_errors=True)
        atexit.register(running.stop)
        _handle = running.start()
    return _handle


def _password_file() -> Path:
    assert _folder is not None
    path = _folder / "password"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(PASSWORD)
    return path


KEYS_MIGRATIONS = ROOT / "services" / "audit" / "keys_migrations"
_KEYS = ("(keys)",)


@dataclass(frozen=True)
class TestDatabase:
    """A database with the roles of deploy/bootstrap.sql, or bootstrap_keys.sql; every password is `PASSWORD`."""

    __test__ = False

    handle: PostgresHandle
    name: str

    def settings(self, user: str, pool_size: int = 5) -> DatabaseSettings:
        """Settings of one role, as a process has them."""
        return DatabaseSettings(
            host=str(self.handle.socket_dir),
            port=self.handle.port,
            dbname=self.name,
            user=user,
            password_file=_password_file(),
            pool_size=pool_size,
        )

    def role(self, user: str, pool_size: int = 5) -> Database:
        """A pool under one role; the caller closes it."""
        settings = self.settings(user, pool_size)
        return Database(settings, user, settings.password_file)

    async def superuser(self) -> asyncpg.Connection:
        """A superuser's connection; the caller closes it."""
        return await connect(self.handle, self.name)

    async def login(self, user: str) -> asyncpg.Connection:
        """A bare connection under one role; the caller closes it."""
        return await asyncpg.connect(
            host=str(self.handle.socket_dir), port=self.handle.port, user=user, password=PASSWORD, database=self.name
        )

    async def migrate(self, service: str, folder: Path | None = None, version: str = "head") -> None:
        """Bring a service's schema up to date, or to one version, as its migration role."""
        host, port = self.handle.socket_dir, self.handle.port
        dsn = f"postgresql+asyncpg://{service}_migrate@/{self.name}?host={host}&port={port}"
        await migrate(service, dsn, PASSWORD, folder, version)

    async def run_as_owner(self, service: str, statements: Sequence[str]) -> None:
        """Run DDL as a service's owner, as its migrations do: for tables that only a test has."""
        connection = await self.login(f"{service}_migrate")
        try:
            async with connection.transaction():
                await connection.execute(f"SET LOCAL ROLE {service}_owner")
                for statement in statements:
                    await connection.execute(statement)
        finally:
            await connection.close()


async def new_database(services: Sequence[str] = ()) -> TestDatabase:
    """A fresh database, bootstrapped, with the given services' migrations."""
    return await _create(cluster(), await _template(tuple(services)))


async def _template(services: tuple[str, ...]) -> str:
    """The database that is copied for these services: the one of all but the last, with the last one's migrations."""
    if services not in _templates:
        if services:
            made = await _create(cluster(), await _template(services[:-1]))
            await made.migrate(services[-1])
        else:
            made = await _create(cluster())
            await _bootstrap(made)
        _templates[services] = made.name
    return _templates[services]


async def new_keys_database() -> TestDatabase:
    """A fresh database of subjects' keys, as deploy/bootstrap_keys.sql and its migrations make it."""
    handle = cluster()
    if _KEYS not in _templates:
        template = await _create(handle)
        await _bootstrap(template, "bootstrap_keys.sql")
        await template.migrate("subjects", KEYS_MIGRATIONS)
        _templates[_KEYS] = template.name
    return await copied(TestDatabase(handle, _templates[_KEYS]), only="subjects")


async def copied(database: TestDatabase, only: str = "") -> TestDatabase:
    """A copy of a database that nobody is connected to, as a restored backup is one; for logins of schema `only`."""
    return await _create(database.handle, database.name, only)


async def drop(database: TestDatabase) -> None:
    """Drop a database, whoever is connected."""
    await _as_admin(database.handle, f'DROP DATABASE IF EXISTS "{database.name}" WITH (FORCE)')


async def _create(handle: PostgresHandle, template: str = "template1", only: str = "") -> TestDatabase:
    name = f"t{uuid4().hex[:12]}"
    admin = await connect(handle, "postgres")
    try:
        # File by file: by way of the write-ahead log it takes twice the processor's time.
        await admin.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY file_copy')
        if template != "template1":  # Privileges on a database itself aren't copied with it.
            await admin.execute(f'REVOKE ALL ON DATABASE "{name}" FROM PUBLIC')
            await admin.execute(_CONNECT.format(name=name, only=only))
    finally:
        await admin.close()
    return TestDatabase(handle, name)


_CONNECT = """DO $body$ BEGIN
  EXECUTE (SELECT format('GRANT CONNECT ON DATABASE "{name}" TO %s', string_agg(quote_ident(rolname), ', '))
    FROM pg_roles WHERE rolcanlogin AND NOT rolsuper
      AND (starts_with(rolname, '{only}') OR rolname = 'backup_reader'));
  END $body$"""


async def _bootstrap(database: TestDatabase, script: str = "bootstrap.sql") -> None:
    superuser = await database.superuser()
    try:
        await superuser.execute((ROOT / "deploy" / script).read_text())
        logins = await superuser.fetch(
            "SELECT rolname FROM pg_roles WHERE rolcanlogin AND NOT rolsuper ORDER BY rolname"
        )
        for row in logins:
            await superuser.execute(f"ALTER ROLE {row['rolname']} PASSWORD '{PASSWORD}'")
    finally:
        await superuser.close()


async def _as_admin(handle: PostgresHandle, statement: str) -> None:
    admin = await connect(handle, "postgres")
    try:
        await admin.execute(statement)
    finally:
        await admin.close()


def run(coroutine: object) -> object:
    """Run a coroutine from synchronous set-up."""
    return asyncio.run(coroutine)  # type: ignore[arg-type]
