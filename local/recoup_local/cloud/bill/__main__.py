"""Command line of the bill simulator: `observe`, `run-day` or `write --day YYYY-MM-DD`, one JSON answer."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from datetime import date
from decimal import Decimal
from pathlib import Path

from recoup_local.cloud.aws_clients import AwsClients
from recoup_local.cloud.bill.simulator import BillOptions, BillSimulator, NotYetBilledError, WrittenBill
from recoup_local.cloud.simclock import SimClock


def main() -> int:
    """Exit codes: 0 done, 2 the day can't be billed yet."""
    parser = argparse.ArgumentParser(prog="python -m recoup_local.cloud.bill", description=__doc__)
    parser.add_argument("command", choices=("observe", "run-day", "write"))
    parser.add_argument("--endpoint", required=True, help="the proxy's URL")
    parser.add_argument("--admin-file", type=Path, required=True)
    parser.add_argument("--clock-file", type=Path, required=True)
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--bucket", required=True)
    parser.add_argument("--prefix", default="billing")
    parser.add_argument("--discount", type=Decimal, default=Decimal(0), help="off the list price, 0 to 1")
    parser.add_argument("--day", type=date.fromisoformat, help="for `write`")
    options = parser.parse_args()
    clients = AwsClients.from_admin_file(options.endpoint, options.admin_file)
    bill = BillOptions(options.bucket, options.prefix, discount=options.discount)
    simulator = BillSimulator(clients, options.state_dir, SimClock(options.clock_file).now, bill)
    written: list[WrittenBill] = []
    try:
        if options.command == "observe":
            simulator.observe()
        elif options.command == "run-day":
            written = simulator.run_day()
        elif options.day is None:
            parser.error("write needs --day YYYY-MM-DD")
        else:
            written = simulator.write_bill(options.day)
    except NotYetBilledError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps({"written": [asdict(item) for item in written]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
