"""Creates organizations with their first members, once: `python -m services.identity.bootstrap --config F --file G`.

For the operator of an installation. Each organization and member is created with its events; running it again
changes nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tomllib
from pathlib import Path
from typing import Any
from uuid import UUID

from services._mesh.clock import open_clock
from services._mesh.config import ConfigError, load_settings
from services._mesh.database import Database
from services._mesh.uow import Store
from services.identity.config import IdentitySettings
from services.identity.model.membership import Role
from services.identity.usecases.organizations import NewOrganization, create_organization


def read(content: dict[str, Any]) -> list[NewOrganization]:
    """The organizations that a file describes. Raises KeyError or ValueError that names what is missing."""
    return [
        NewOrganization(
            UUID(each["organization_id"]),
            each["slug"],
            each["display_name"],
            each.get("time_zone", "UTC"),
            each.get("reporting_currency", "USD"),
            tuple((UUID(m["user_id"]), m["email"], Role(m["role"])) for m in each["members"]),
        )
        for each in content["organization"]
    ]


async def bootstrap(settings: IdentitySettings, organizations: list[NewOrganization]) -> list[str]:
    """Create what isn't there yet; returns the slugs that were created."""
    assert settings.database is not None
    database = Database(settings.database, settings.database.user, settings.database.password_file, 1)
    clock = open_clock(settings.process.profile, settings.clock.file if settings.clock else None)
    store = Store(database, "identity", clock)
    try:
        return [each.slug for each in organizations if await create_organization(store, each)]
    finally:
        await database.close()


def main() -> int:
    """The command. 0 done, 2 the file or the configuration can't be used."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="identity's configuration file")
    parser.add_argument("--file", type=Path, required=True, help="the organizations, as TOML")
    given = parser.parse_args()
    try:
        settings = load_settings(IdentitySettings, given.config)
        organizations = read(tomllib.loads(given.file.read_text("utf-8")))
    except (ConfigError, OSError, KeyError, ValueError) as error:
        print(f"bootstrap: {given.file}: {error}", file=sys.stderr)
        return 2
    try:
        created = asyncio.run(bootstrap(settings, organizations))
    except ValueError as error:
        print(f"bootstrap: {given.file}: {error}", file=sys.stderr)
        return 2
    print(f"created: {', '.join(created) or 'nothing new'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
