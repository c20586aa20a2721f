"""Hands a new installation to its first Admin: `python -m services.identity.initialize --config FILE`.

For the operator, on identity's host, once. It prints a token that holds for 15 minutes and for one person, who signs in
with a second factor and runs `recoup init`. Once there is an Admin it refuses, for ever.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

from services._mesh.clock import open_clock
from services._mesh.config import ConfigError, load_settings
from services._mesh.database import Database
from services._mesh.errors import Problem
from services._mesh.uow import Store
from services.identity.config import IdentitySettings
from services.identity.usecases.installation import begin_installation


async def initialize(settings: IdentitySettings) -> str:
    """The token. Raises Problem."""
    assert settings.database is not None
    database = Database(settings.database, settings.database.user, settings.database.password_file, 1)
    clock = open_clock(settings.process.profile, settings.clock.file if settings.clock else None)
    try:
        return await begin_installation(Store(database, "identity", clock))
    finally:
        await database.close()


def main() -> int:
    """The command. 0 done, 1 refused, 2 the configuration can't be used, 3 the database can't be reached."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="identity's configuration file")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args()
    try:
        settings = load_settings(IdentitySettings, given.config)
        token = asyncio.run(initialize(settings))
    except (ConfigError, OSError) as error:
        print(f"initialize: {given.config}: {error}", file=sys.stderr)
        return 2
    except Problem as problem:
        print(f"initialize: {problem.message}", file=sys.stderr)
        return 3 if problem.reason_name == "DEPENDENCY_UNAVAILABLE" else 1
    print(json.dumps({"token": token}) if given.json else token)
    print("It holds for 15 minutes and is shown once. The first Admin signs in and runs: recoup init", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
