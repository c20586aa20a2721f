"""A connection of this command's own, in the settings under which COPY's text is the same on every server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import asyncpg

from services._mesh.database import CONNECT_SECONDS, tls_context
from services._mesh.settings import DatabaseSettings

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection

# No statement of ours takes longer, the COPY of a whole table included.
STATEMENT_SECONDS = 12 * 3600.0
_SAME_EVERYWHERE = {
    "timezone": "UTC",
    "datestyle": "ISO, MDY",
    "intervalstyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "3",
    "client_encoding": "UTF8",
    "search_path": "pg_catalog",
    # A row that row-level security would hide is an error, and not a row less.
    "row_security": "off",
    "idle_in_transaction_session_timeout": "0",
    "lock_timeout": "30s",
    "statement_timeout": str(int(STATEMENT_SECONDS * 1000)),
}


@asynccontextmanager
async def connected(settings: DatabaseSettings, dbname: str = "") -> AsyncIterator[Connection]:
    """A connection, closed at the end. Raises OSError, asyncpg.PostgresError, ConfigError."""
    connection: Connection = await asyncpg.connect(
        host=settings.host,
        port=settings.port,
        user=settings.user,
        password=settings.password_file.read_text("utf-8").strip(),
        database=dbname or settings.dbname,
        ssl=tls_context(settings),
        timeout=CONNECT_SECONDS,
        command_timeout=STATEMENT_SECONDS,
        server_settings={**_SAME_EVERYWHERE, "application_name": "recoup-backup"},
    )
    try:
        yield connection
    finally:
        if connection.is_in_transaction():
            connection.terminate()
        else:
            await connection.close(timeout=CONNECT_SECONDS)
