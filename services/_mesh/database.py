"""Engines, one for each database role that a process holds, and transactions that are scoped to one organization.

No transaction, no tenant rows: the organization is set inside of each, and forgotten at its end.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from services._mesh.config import ConfigError
from services._mesh.settings import DatabaseSettings
from services._mesh.telemetry import instrument_engine

_SCOPE = text("SELECT set_config('app.organization_id', :organization, true)")
CONNECT_SECONDS = 10.0
POOL_WAIT_SECONDS = 10.0


def address(settings: DatabaseSettings, user: str) -> str:
    """The SQLAlchemy URL without a password. A host with a slash is the folder of a Unix socket."""
    if settings.host.startswith("/"):
        query = {"host": settings.host, "port": str(settings.port)}
        url = URL.create("postgresql+asyncpg", username=user, database=settings.dbname, query=query)
    else:
        url = URL.create(
            "postgresql+asyncpg", username=user, host=settings.host, port=settings.port, database=settings.dbname
        )
    return url.render_as_string(hide_password=False)


class Database:
    """One database role of this process, with its own pool."""

    def __init__(
        self, settings: DatabaseSettings, user: str, password_file: Path, pool_size: int | None = None
    ) -> None:
        self._engine = _engine(settings, user, password_file, pool_size or settings.pool_size)

    @asynccontextmanager
    async def scoped(self, organization_id: UUID) -> AsyncIterator[AsyncConnection]:
        """A transaction that sees and writes one organization's rows; committed at the end, rolled back on error."""
        async with self._engine.begin() as connection:
            await connection.execute(_SCOPE, {"organization": str(organization_id)})
            yield connection

    @asynccontextmanager
    async def unscoped(self) -> AsyncIterator[AsyncConnection]:
        """A transaction without an organization: reference tables, and what a dispatch role sees."""
        async with self._engine.begin() as connection:
            yield connection

    async def close(self) -> None:
        """Close the pool."""
        await self._engine.dispose()


async def scope(connection: AsyncConnection, organization_id: UUID) -> None:
    """Set the organization for the rest of the transaction: for roles that go from one to the next."""
    await connection.execute(_SCOPE, {"organization": str(organization_id)})


def _engine(settings: DatabaseSettings, user: str, password_file: Path, pool_size: int) -> AsyncEngine:
    arguments: dict[str, object] = {
        "timeout": CONNECT_SECONDS,
        "command_timeout": settings.statement_seconds + 5,
        "password": lambda: password_file.read_text("utf-8").strip(),  # Read at each connect: it can be rotated.
        "server_settings": {
            "application_name": user,
            "timezone": "UTC",
            "statement_timeout": str(int(settings.statement_seconds * 1000)),
            "idle_in_transaction_session_timeout": "60000",
        },
    }
    if not settings.host.startswith("/"):
        arguments["ssl"] = _tls(settings)
    engine = create_async_engine(
        address(settings, user),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=POOL_WAIT_SECONDS,
        pool_pre_ping=False,
        pool_recycle=1800,
        connect_args=arguments,
    )
    instrument_engine(engine)
    return engine


def _tls(settings: DatabaseSettings) -> ssl.SSLContext:
    if settings.ca is None:
        raise ConfigError(
            Path("(database)"),
            "database.ca",
            "is missing",
            "A remote PostgreSQL must offer TLS; name its CA.",
        )
    return ssl.create_default_context(cafile=str(settings.ca))
