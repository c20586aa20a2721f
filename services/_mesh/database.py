"""Engines, one for each database role that a process holds, and transactions that are scoped to one organization.

No transaction, no tenant rows: the organization is set in the same round trip that begins each transaction, and is
forgotten at its end. Nothing here knows a table.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import asyncpg
from sqlalchemy import event, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from services._mesh.config import ConfigError
from services._mesh.errors import DeadlinePassed, Problem, Reason, dependency_down
from services._mesh.resource_limits import ResourceLimits
from services._mesh.settings import DatabaseSettings
from services._mesh.telemetry import instrument_engine, sql_span

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

T = TypeVar("T")
_SCOPE = text("SELECT set_config('app.organization_id', :organization, true)")
CONNECT_SECONDS = 10.0
POOL_WAIT_SECONDS = 10.0
# Class 08: connection exceptions; 57P0x: the server goes down or comes up; 53300: too many connections. 40001 and
# 40P01: the transaction lost to another one. After each of them nothing was done, and the same call may succeed.
_AWAY = ("08", "57P", "53300", "40001", "40P01")
_STATEMENT_TIMEOUT = "57014"
# What a connection that has died fails with, at the first thing that it is asked. The driver calls it an internal error
# where the server's farewell is being read just as the connection is asked: the question was never sent then.
_DEAD = (
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InternalClientError,
    ConnectionError,
)


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
    """One database role of this process, with its own bounded pool."""

    def __init__(
        self, settings: DatabaseSettings, user: str, password_file: Path, pool_size: int | None = None
    ) -> None:
        size = pool_size or settings.pool_size
        self._engine = _engine(settings, user, password_file, size)
        # All of the pool's connections may have died at once; the one after them is new.
        self._attempts = size + 1

    def scoped(
        self, organization_id: UUID, *, read_only: bool = False, limits: ResourceLimits | None = None
    ) -> _Transaction:
        """A transaction that sees and writes one organization's rows; committed at the end, rolled back on error.

        Of tables that hold a cloud's resources (`limited` in schema.py) it has only what is within `limits`.
        """
        # str() of a UUID is hex digits and hyphens, so that it needs no quoting; anything else isn't let in.
        assert isinstance(organization_id, UUID)
        mode = "BEGIN READ ONLY" if read_only else "BEGIN"
        begin = f"{mode}; SET LOCAL app.organization_id = '{organization_id}'"
        if limits is not None:
            for name, value in zip(("connection_ids", "resource_tags"), limits.settings(), strict=True):
                # Within quotes a quote is doubled, and nothing else means anything (standard_conforming_strings).
                begin += f"; SET LOCAL app.{name} = '{value.replace(chr(39), chr(39) * 2)}'"
        return self._transaction(begin)

    def unscoped(self) -> _Transaction:
        """A transaction without an organization: reference tables, and what a dispatch role sees."""
        return self._transaction("BEGIN")

    async def ask(self, statement: str, *values: Any) -> list[asyncpg.Record]:
        """Read once, with $1, $2… for the values, where neither a transaction nor an organization is needed.

        For what is asked again and again, most often in vain: one round trip, past SQLAlchemy, and no span.
        """
        connection, _, found = await self._first(lambda driver: driver.fetch(statement, *values))
        await connection.close()
        return found

    @asynccontextmanager
    async def _transaction(self, begin: str) -> AsyncIterator[AsyncConnection]:
        connection, driver, _ = await self._first(lambda driver: driver.execute(begin))
        try:
            yield connection
            await driver.execute("COMMIT")
        except BaseException:
            try:
                await _roll_back(connection, driver)
                raise
            finally:
                # Shielded, as SQLAlchemy's own `async with` is: a call that is cancelled must not leak its connection.
                await asyncio.shield(asyncio.create_task(connection.close()))
        # Outside of a transaction the pool takes it back without waiting for anything, so nothing can cancel it.
        await connection.close()

    async def _first(
        self, act: Callable[[asyncpg.Connection[Any]], Coroutine[Any, Any, T]]
    ) -> tuple[AsyncConnection, asyncpg.Connection[Any], T]:
        """A connection, and what its first statement gave; those that died in the pool before it are replaced."""
        for left in range(self._attempts - 1, -1, -1):
            connection = await self._connected()
            try:
                driver = await _driver(connection)
                return connection, driver, await act(driver)
            except _DEAD as error:
                await connection.invalidate()
                await connection.close()
                if not left:
                    raise ConnectionError("PostgreSQL ends every connection") from error
            except BaseException:
                await connection.invalidate()
                await connection.close()
                raise
        raise AssertionError("the last failure is raised")

    async def _connected(self) -> AsyncConnection:
        try:
            return await self._engine.connect()
        except (OSError, TimeoutError) as error:  # No socket, no host, no answer: all of them "not there".
            raise ConnectionError(f"PostgreSQL can't be reached: {type(error).__name__}") from error

    async def close(self) -> None:
        """Close the pool."""
        await self._engine.dispose()


if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    _Transaction = AbstractAsyncContextManager[AsyncConnection]


async def scope(connection: AsyncConnection, organization_id: UUID) -> None:
    """Set the organization for the rest of the transaction: for roles that go from one to the next."""
    await connection.execute(_SCOPE, {"organization": str(organization_id)})


async def execute_raw(connection: AsyncConnection, statement: str, *values: Any) -> list[asyncpg.Record]:
    """Run a statement on the driver itself, with $1, $2… for its values: for those that every transaction has.

    It takes a third of the time that SQLAlchemy takes, whose own errors aren't raised then: asyncpg's are.
    """
    driver = await _driver(connection)
    with sql_span(statement):
        return await driver.fetch(statement, *values)


async def _driver(connection: AsyncConnection) -> asyncpg.Connection[Any]:
    driver: asyncpg.Connection[Any] | None = (await connection.get_raw_connection()).driver_connection
    assert driver is not None
    return driver


def sqlstate_of(error: BaseException) -> str:
    """PostgreSQL's code for what went wrong; empty where it said none."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return str(getattr(cause, "sqlstate", None) or "")


def problem_of(error: Exception) -> Problem | None:
    """What a database's failure means for a caller, or None if it is a fault of ours.

    A database that is away is a dependency that is down: nothing was committed, or the answer of the commit is lost,
    and the same request (with its request_id) may be made again.
    """
    state = sqlstate_of(error)
    if isinstance(error, (PoolTimeout, *_DEAD)) or state.startswith(_AWAY):
        return dependency_down("database")
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return dependency_down("database")
    if state == _STATEMENT_TIMEOUT or isinstance(error, TimeoutError):
        return DeadlinePassed(Reason.ERROR_REASON_DEADLINE_TOO_SHORT, "The database took too long.")
    return None


async def _roll_back(connection: AsyncConnection, driver: asyncpg.Connection[Any]) -> None:
    """Leave the transaction; a connection that can't isn't given back to the pool."""
    try:
        await driver.execute("ROLLBACK")
    except asyncio.CancelledError:
        await connection.invalidate()
        raise
    except Exception:  # The failure that brought us here is the one that matters.
        await connection.invalidate()


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
    if tls := tls_context(settings):
        arguments["ssl"] = tls
    engine = create_async_engine(
        address(settings, user),
        # We begin and end each transaction ourselves, in fewer round trips than SQLAlchemy would; see `_refuse_open`.
        isolation_level="AUTOCOMMIT",
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=POOL_WAIT_SECONDS,
        pool_pre_ping=False,  # The statement that begins a transaction finds out by itself.
        pool_recycle=1800,
        # A failed statement's text may reach a log; what it was about may not.
        hide_parameters=True,
        connect_args=arguments,
    )
    event.listen(engine.sync_engine, "reset", _refuse_open)
    instrument_engine(engine)
    return engine


def _refuse_open(connection: Any, _record: object, _state: object) -> None:
    """Keep a connection out of the pool that is still in a transaction, and so in an organization."""
    driver = connection.driver_connection
    if not driver.is_closed() and driver.is_in_transaction():
        raise RuntimeError("a connection came back within a transaction")


def tls_context(settings: DatabaseSettings) -> ssl.SSLContext | None:
    """What a remote server is verified with, its name included; None for a socket. Raises ConfigError without a CA, or
    with a file that is none.
    """
    if settings.host.startswith("/"):
        return None
    if settings.ca is None:
        raise ConfigError(
            Path("(database)"), "database.ca", "is missing", "A remote PostgreSQL must offer TLS; name its CA."
        )
    try:
        context = ssl.create_default_context(cafile=str(settings.ca))
    except OSError as error:  # ssl.SSLError is one.
        why = error.strerror if error.filename else "holds no certificate"
        raise ConfigError(settings.ca, "database.ca", why or "can't be read", "It must be a CA's in PEM.") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
