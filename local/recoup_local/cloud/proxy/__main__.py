"""Composition root of the proxy process: options, admin keys, clock, listening socket, shutdown."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
from pathlib import Path
from urllib.parse import urlsplit

from recoup_local.cloud.lifeline import exit_with_parent
from recoup_local.cloud.proxy.control import parse_denied
from recoup_local.cloud.proxy.ec2_rules import Delays
from recoup_local.cloud.proxy.identities import Identities, Principal
from recoup_local.cloud.proxy.recorder import Recorder
from recoup_local.cloud.proxy.server import Proxy, Upstream, listen
from recoup_local.cloud.simclock import SimClock


def read_admin_file(path: Path) -> tuple[dict[str, Principal], str]:
    """The admin principals by access key id, and the control token, from admin.json (see the README)."""
    document = json.loads(path.read_text("utf-8"))
    admins: dict[str, Principal] = {}
    for key in document["keys"]:
        account, key_id = key["account"], key["access_key_id"]
        arn = f"arn:aws:iam::{account}:user/admin"
        admins[key_id] = Principal("admin", account, arn, "admin", key_id, key["secret_access_key"])
    return admins, document["control_token"]


def parse_options() -> argparse.Namespace:
    """The command line; see the README of recoup_local.cloud."""
    parser = argparse.ArgumentParser(prog="python -m recoup_local.cloud.proxy", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free port (printed when ready)")
    parser.add_argument("--upstream", required=True, help="moto's address, http://127.0.0.1:PORT")
    parser.add_argument("--clock-file", type=Path, required=True)
    parser.add_argument("--log", type=Path, required=True, help="the recording, one JSON line per request")
    parser.add_argument("--admin-file", type=Path, required=True, help="admin keys and control token")
    parser.add_argument("--deny", action="append", default=[], metavar="ACCOUNT:REGION")
    parser.add_argument("--snapshot-polls", type=int, default=2)
    parser.add_argument("--snapshot-seconds", type=float, default=0.0, help="of simulated time")
    parser.add_argument("--exit-with-parent", action="store_true", help="end when stdin reaches its end")
    return parser.parse_args()


async def run(options: argparse.Namespace) -> None:
    """Serves until SIGTERM or SIGINT."""
    admins, token = read_admin_file(options.admin_file)
    upstream = urlsplit(options.upstream)
    if upstream.hostname is None or upstream.port is None:
        raise SystemExit("--upstream must be http://HOST:PORT")
    clock = SimClock(options.clock_file)
    recorder = Recorder(options.log, clock.now)
    proxy = Proxy(
        upstream=Upstream(upstream.hostname, upstream.port),
        identities=Identities(admins),
        recorder=recorder,
        simulated_now=clock.now,
        delays=Delays(options.snapshot_polls, options.snapshot_seconds),
        denied_regions=parse_denied(options.deny),
        control_token=token,
    )
    server = await listen(proxy, options.port)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    port = server.sockets[0].getsockname()[1]
    print(json.dumps({"ready": True, "port": port, "pid": os.getpid()}), flush=True)
    await stop.wait()
    server.close()
    recorder.close()
    # Connections may be held by a fault rule for ever; nothing in them is worth waiting for.
    os._exit(0)


def main() -> None:
    """Command line."""
    options = parse_options()
    if options.exit_with_parent:
        exit_with_parent()
    asyncio.run(run(options))


if __name__ == "__main__":
    main()
