"""PostgreSQL for tests: one real cluster for each test process, a fresh database for whoever asks, real roles.

Under xdist each worker has its own cluster (under a second to make), so that nothing is shared between processes.
"""

from __future__ import annotations

import asyncio
import atexit
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

_running: EmbeddedPostgres | None = None
_handle: PostgresHandle | None = None


def cluster() -> PostgresHandle:
    """The cluster of this test process, started on first use and ended with the process."""
    global _running, _handle
    if _handle is None:
        _running = EmbeddedPostgres(Path(tempfile.mkdtemp(prefix="recoup-test-")), fsync=False)
        _handle = _running.start()
        atexit.register(_running.stop)
    return _handle


@dataclass(frozen=True)
class TestDatabase:
    """A database with the roles of deploy/bootstrap.sql; every role's password is `PASSWORD`."""

    __test__ = False

    handle: PostgresHandle
    name: str

    def settings(self, user: str, pool_size: int = 5) -> DatabaseSettings:
        """Settings of one role, as a process has them."""
        password_file = Path(self.handle.socket_dir).parent / f"{self.handle.socket_dir.name}-password"
        if not password_file.exists():
            password_file.write_text(PASSWORD)
            password_file.chmod(0o600)
            atexit.register(password_file.unlink, missing_ok=True)
        return DatabaseSettings(
            host=str(self.handle.socket_dir),
            port=self.handle.port,
            dbname=self.name,
            user=user,
            password_file=password_file,
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

    async def migrate(self, service: str) -> None:
        """Bring a service's schema up to date, as its migration role."""
        host, port = self.handle.socket_dir, self.handle.port
        dsn = f"postgresql+asyncpg://{service}_migrate@/{self.name}?host={host}&port={port}"
        await migrate(service, dsn, PASSWORD)


async def new_database(services: Sequence[str] = ()) -> TestDatabase:
    """A fresh database, bootstrapped, with the given services' migrations."""
    handle, name = cluster(), f"t{uuid4().hex[:12]}"
    admin = await connect(handle, "postgres")
    try:
        await admin.execute(f'CREATE DATABASE "{name}"')
    finally:
        await admin.close()
    database = TestDatabase(handle, name)
    superuser = await database.superuser()
    try:
        await superuser.execute((ROOT / "deploy" / "bootstrap.sql").read_text())
        logins = await superuser.fetch(
            "SELECT rolname FROM pg_roles WHERE rolcanlogin AND NOT rolsuper ORDER BY rolname"
        )
        for row in logins:
            await superuser.execute(f"ALTER ROLE {row['rolname']} PASSWORD '{PASSWORD}'")
    finally:
        await superuser.close()
    for service in services:
        await database.migrate(service)
    return database


async def drop(database: TestDatabase) -> None:
    """Drop a database, whoever is connected."""
    admin = await connect(database.handle, "postgres")
    try:
        await admin.execute(f'DROP DATABASE IF EXISTS "{database.name}" WITH (FORCE)')
    finally:
        await admin.close()


def run(coroutine: object) -> object:
    """Run a coroutine from synchronous set-up."""
    return asyncio.run(coroutine)  # type: ignore[arg-type]
