"""Runs moto's threaded server on loopback with EC2/IAM/S3 times that follow the movable clock.

It changes nothing else about moto: what moto does not enforce is the proxy's work (see proxy/).
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from recoup_local.cloud.lifeline import exit_with_parent
from recoup_local.cloud.simclock import SimClock

# moto's STS stamps the expiry of sessions, and its core the Date header that SDKs correct their clock skew
# by: both belong to the wall clock, since SigV4 signs with it and botocore refreshes by it.
WALL_CLOCK_MODULES = frozenset({"moto.sts.models", "moto.core.responses"})


def follow_clock(clock: SimClock) -> None:
    """Makes every moto module that stamps times through `moto.core.utils.utcnow` use simulated time.

    moto imports its services on first use; those take the replacement, the ones already loaded are patched.
    """
    import moto.core.responses
    import moto.core.utils
    import moto.sts.models

    original: Callable[[], datetime] = moto.core.utils.utcnow

    def simulated_utcnow() -> datetime:
        return clock.now().replace(tzinfo=None)

    for name, module in list(sys.modules.items()):
        follows = name.startswith("moto.") and name not in WALL_CLOCK_MODULES
        if follows and getattr(module, "utcnow", None) is original:
            _patch(module, "utcnow", simulated_utcnow)
    _follow_in_s3(clock)


def _follow_in_s3(clock: SimClock) -> None:
    """S3 buckets take their creation date from `datetime.now` directly: correct it after construction."""
    import moto.s3.models as s3_models

    bucket = s3_models.FakeBucket
    original_init = bucket.__init__

    def init(self: Any, *arguments: Any, **named: Any) -> None:
        original_init(self, *arguments, **named)
        self.creation_date = clock.now()

    setattr(bucket, "__init__", init)  # noqa: B010 - a plain assignment is a mypy error on a class


def _patch(target: object, name: str, value: object) -> None:
    setattr(target, name, value)


def serve(port: int, clock: SimClock) -> None:
    """Serves on 127.0.0.1 until SIGTERM or SIGINT; port 0 takes a free one. Prints one JSON ready line."""
    from moto.moto_server.werkzeug_app import (
        DomainDispatcherApplication,
        MotoRequestHandler,
        create_backend_app,
    )
    from werkzeug.serving import make_server

    follow_clock(clock)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    application = DomainDispatcherApplication(create_backend_app)
    # For each request moto lists its own folder and tries each service's patterns: a fifth of all its work.
    _patch(application, "get_backend_for_host", lru_cache(maxsize=1024)(application.get_backend_for_host))
    server = make_server("127.0.0.1", port, application, threaded=True, request_handler=MotoRequestHandler)
    os.environ["MOTO_PORT"] = str(server.server_port)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
    print(json.dumps({"ready": True, "port": server.server_port, "pid": os.getpid()}), flush=True)
    server.serve_forever()


def main() -> None:
    """Command line: see the README beside this file."""
    parser = argparse.ArgumentParser(prog="python -m recoup_local.cloud.moto_server", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free port (printed when ready)")
    parser.add_argument("--clock-file", type=Path, required=True)
    parser.add_argument("--exit-with-parent", action="store_true", help="end when stdin reaches its end")
    options = parser.parse_args()
    if options.exit_with_parent:
        exit_with_parent()
    # Before moto is imported: it reads these once. No AMI catalogue (start-up), no real credentials.
    os.environ["MOTO_EC2_LOAD_DEFAULT_AMIS"] = "false"
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    os.environ.pop("AWS_PROFILE", None)
    serve(options.port, SimClock(options.clock_file))


if __name__ == "__main__":
    main()
