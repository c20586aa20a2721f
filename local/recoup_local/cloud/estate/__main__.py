"""Command line of the estate seeder; one JSON answer on stdout, progress on stderr.

`seed` moves the clock file itself through the plan's days up to --through; run it before anything else does.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from recoup_local.cloud.aws_clients import AwsClients
from recoup_local.cloud.estate.plan import build_plan
from recoup_local.cloud.estate.roles import create_base_user, install_roles
from recoup_local.cloud.estate.seeder import Estate, bill_bucket_name
from recoup_local.cloud.estate.truth import expectations
from recoup_local.cloud.simclock import SimClock


def main() -> None:
    """Commands: bucket, base-user, roles, seed, expectations."""
    parser = argparse.ArgumentParser(prog="python -m recoup_local.cloud.estate", description=__doc__)
    parser.add_argument("command", choices=("bucket", "base-user", "roles", "seed", "expectations"))
    parser.add_argument("--endpoint", required=True, help="the proxy's URL")
    parser.add_argument("--admin-file", type=Path, required=True)
    parser.add_argument("--state-file", type=Path, required=True, help="ids of what was made")
    parser.add_argument("--clock-file", type=Path, required=True)
    parser.add_argument("--day0", type=datetime.fromisoformat, help="default: today, 09:00 UTC")
    parser.add_argument("--through", type=int, default=0, help="last day to seed, 0 or negative")
    parser.add_argument("--scale", type=int, default=1)
    parser.add_argument("--base-user-arn")
    parser.add_argument("--external-id")
    options = parser.parse_args()
    clients = AwsClients.from_admin_file(options.endpoint, options.admin_file)
    estate = Estate(clients, build_plan(scale=options.scale), options.state_file)
    print(json.dumps(run(options, clients, estate)))


def run(options: argparse.Namespace, clients: AwsClients, estate: Estate) -> dict[str, Any]:
    """Does one command and returns its answer."""
    match options.command:
        case "bucket":
            return {"bucket": estate.create_bill_bucket()}
        case "base-user":
            # The one place where the secret is shown, as the provider's console does.
            return asdict(create_base_user(clients))
        case "roles":
            roles = install_roles(clients, options.base_user_arn, options.external_id, bill_bucket=bill_bucket_name())
            return {account: asdict(arns) for account, arns in roles.items()}
        case "seed":
            return {"steps": seed_through(options, estate)}
        case _:
            return expectations(estate.plan, estate.ids, options.through)


def seed_through(options: argparse.Namespace, estate: Estate) -> dict[int, int]:
    """Moves the clock to each planned day in turn and seeds it; returns the steps done by day."""
    clock = SimClock(options.clock_file)
    today = datetime.now(UTC).replace(hour=9, minute=0, second=0, microsecond=0)
    day0 = options.day0.astimezone(UTC) if options.day0 else today
    done: dict[int, int] = {}
    for day in estate.plan.days():
        if day <= options.through and day not in estate.done_days:
            clock.set_now(day0 + timedelta(days=day))
            done[day] = estate.seed_day(day)
            print(f"day {day}: {done[day]} steps", file=sys.stderr)
    return done


if __name__ == "__main__":
    main()
