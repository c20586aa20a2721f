"""Runs the migrations of one service, forward only, as its migration role; the history stands in its own schema.

    python -m services._mesh.migrate --config FILE SERVICE [--folder FOLDER] [--check]

Tables belong to the service's owner role, which nobody can log in as. A service with a second database keeps that one's
migrations in a folder of their own; the schema there takes the place of the service's name.
"""

from __future__ import annotations

import argparse
import asyncio
import ssl
import sys
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, text

SERVICES = Path(__file__).resolve().parents[1]


def upgrade(connection: Connection, service: str, folder: Path | None = None, version: str = "head") -> None:
    """Bring `service`'s schema to its newest version, or to `version`, in one transaction that the caller commits.

    `folder` holds the migrations where they aren't in the service's own "migrations".
    """
    from alembic import command
    from alembic.config import Config

    connection.execute(text(f"SET ROLE {service}_owner"))
    # Two installers at once: the second finds everything done.
    connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": f"migrate {service}"})
    config = Config()
    config.set_main_option("script_location", str(folder or SERVICES / service / "migrations"))
    config.attributes["connection"] = connection
    config.attributes["schema"] = service
    command.upgrade(config, version)


def run_env() -> None:
    """The body of every service's `migrations/env.py`."""
    from alembic import context

    attributes: dict[str, Any] = context.config.attributes
    context.configure(
        connection=attributes["connection"],
        version_table="schema_versions",
        version_table_schema=attributes["schema"],
        transaction_per_migration=False,
    )
    with context.begin_transaction():
        context.run_migrations()
    attributes["connection"].execute(
        text(f"COMMENT ON TABLE {attributes['schema']}.schema_versions IS 'kind=reference'")
    )


async def migrate(
    service: str,
    dsn: str,
    password: str,
    folder: Path | None = None,
    version: str = "head",
    tls: ssl.SSLContext | None = None,
) -> None:
    """Connect as `<service>_migrate` and upgrade. `dsn` is an SQLAlchemy URL without the password; `tls` is what the
    server is verified with, where it isn't behind a socket.
    """
    from sqlalchemy.engine import make_url
    from sqlalchemy.ext.asyncio import create_async_engine

    more = {"ssl": tls} if tls else {}
    engine = create_async_engine(make_url(dsn).set(password=password), connect_args=more)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(upgrade, service, folder, version)
    finally:
        await engine.dispose()


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    from services._mesh.config import ConfigError, load_settings
    from services._mesh.database import address, tls_context
    from services._mesh.settings import MeshSettings

    parser = argparse.ArgumentParser(prog="python -m services._mesh.migrate", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the service's configuration file")
    parser.add_argument("service", help="the service whose schema is brought up to date")
    parser.add_argument("--folder", type=Path, help="its migrations, if not services/<service>/migrations")
    parser.add_argument("--check", action="store_true", help="check the configuration and all files of it, and end")
    given = parser.parse_args(arguments)
    try:
        settings = load_settings(MeshSettings, given.config, is_whole=False)
        role = settings.database.migrate if settings.database else None
        if settings.database is None or role is None:
            raise ConfigError(given.config, "database.migrate", "is missing", "Name the migration role and its file.")
        tls = tls_context(settings.database)
        folder = given.folder or SERVICES / given.service / "migrations"
        if not (folder / "env.py").is_file():
            raise ConfigError(given.config, "SERVICE", f"{folder} holds no migrations", "Name a service that has some.")
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    if given.check:
        print(f"{given.config}: ok")
        return 0
    password = role.password_file.read_text().strip()
    try:
        asyncio.run(migrate(given.service, address(settings.database, role.user), password, given.folder, tls=tls))
    except ssl.SSLCertVerificationError as error:
        print(
            f"{given.config}: the database isn't who database.ca vouches for: {error.verify_message}", file=sys.stderr
        )
        return 1
    except OSError as error:
        print(f"{given.config}: the database can't be reached: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
