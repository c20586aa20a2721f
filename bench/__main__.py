"""`python -m bench [--only NAME]`: prints each benchmark and writes out/bench/results.json."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from bench import audit_append, authorized_read, scan_listing
from bench.measuring import Result
from tests.support.mesh import TestMesh, running_mesh

BENCHMARKS: dict[str, Callable[[TestMesh], Coroutine[Any, Any, Result]]] = {
    "rpc.authorized_read": authorized_read.run,
    "audit.append": audit_append.run,
    "scan.listing": scan_listing.run,
}
OUTPUT = Path("out/bench/results.json")


def main() -> int:
    """Run all benchmarks, or one. 2 for a name that there isn't."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--only", metavar="NAME", help=f"one of {', '.join(BENCHMARKS)}")
    only = parser.parse_args().only
    if only and only not in BENCHMARKS:
        print(f"bench: no benchmark {only!r}; there are {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    results = []
    with running_mesh(fsync=True) as made:
        for name, run in BENCHMARKS.items():
            if only in (None, name):
                result = asyncio.run(run(made))
                print(result.line(), flush=True)
                results.append(result.document())
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps(results, indent=1) + "\n")
    print(f"written to {OUTPUT}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
