"""`python -m bench [--only NAME] [--entries N]`: prints each benchmark and writes out/bench/results.json."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

import uvloop

from bench import (
    audit_append,
    authorized_read,
    connections,
    edges,
    exchanging,
    flooding,
    opening,
    passports,
    rewrapping,
    scan_listing,
    scim_paging,
    secrets,
    verifying,
    whole_path,
)
from bench.filled_log import FilledLog
from bench.identity_mesh import running_identity
from bench.log_mesh import running_log
from bench.measuring import TRACE_RATIO, Result
from recoup_local.supervisor import LocalMesh
from tests.support.mesh import TestMesh, running_mesh

OUTPUT = Path("out/bench/results.json")
ENTRIES = 10_000_000


class Surroundings:
    """What the benchmarks run on, each made when the first of them needs it."""

    def __init__(self, stack: ExitStack, entries: int) -> None:
        self._stack, self._entries = stack, entries

    @cached_property
    def mesh(self) -> TestMesh:
        """The whole mesh, with its emulated cloud."""
        return self._stack.enter_context(running_mesh(fsync=True, trace_ratio=TRACE_RATIO))

    @cached_property
    def log(self) -> LocalMesh:
        """The processes that an event goes through."""
        return self._stack.enter_context(running_log())

    @cached_property
    def identity(self) -> LocalMesh:
        """The processes that somebody signs in through."""
        return self._stack.enter_context(running_identity())

    @cached_property
    def edges(self) -> edges.Edges:
        """Our edge and Envoy's."""
        return self._stack.enter_context(edges.running_edges(self.identity))

    @cached_property
    def filled(self) -> FilledLog:
        """Two logs of their own, one of them to be filled."""
        large, small = (self._stack.enter_context(running_log()) for _ in range(2))
        return FilledLog(large, small, self._entries)


BENCHMARKS: dict[str, Callable[[Surroundings], Coroutine[Any, Any, Result] | Result]] = {
    "rpc.authorized_read": lambda around: authorized_read.run(around.mesh),
    "scan.listing": lambda around: scan_listing.run(around.mesh),
    "identity.verify_passport": lambda _: passports.verification(),
    "identity.permission_us": lambda _: passports.permission(),
    "identity.exchange_p99_ms": lambda around: exchanging.run(around.identity),
    "identity.flood_p99": lambda around: flooding.run(around.identity),
    "identity.scim_page_p99_ms": lambda around: scim_paging.run(around.identity),
    "gateway.connections": lambda around: connections.run(around.identity),
    "gateway.get_cpu": lambda around: edges.get_cpu(around.edges),
    "gateway.post_cpu": lambda around: edges.post_cpu(around.edges),
    "gateway.list50_cpu": lambda around: edges.list_cpu(around.edges),
    "gateway.p99": lambda around: edges.p99(around.edges),
    "secrets.seal_open": lambda _: secrets.seal_open(),
    "secrets.warm_open_us": lambda _: secrets.warm_open(),
    "secrets.rewrap_kms_calls": lambda _: rewrapping.rewrap_kms_calls(),
    "secrets.kms_per_1000_jobs": lambda _: opening.kms_per_1000_jobs(),
    "audit.append": lambda around: audit_append.run(around.log),
    "audit.whole_path": lambda around: whole_path.run(around.log),
    "audit.flat_10m": lambda around: around.filled.flat(),
    "audit.proof_p99_ms": lambda around: around.filled.proof(),
    "verify.receipt_ms": lambda _: verifying.receipt(),
    "verify.bundle_100k_s": lambda _: verifying.bundle(),
}
# The parts of the mesh that no later benchmark needs would only take time from it.
GROUPS = (
    ("rpc.authorized_read", "scan.listing"),
    ("identity.verify_passport", "identity.permission_us"),
    ("identity.exchange_p99_ms", "identity.flood_p99", "identity.scim_page_p99_ms"),
    # The first of these makes its edges by itself, before there are others.
    ("gateway.connections", "gateway.get_cpu", "gateway.post_cpu", "gateway.list50_cpu", "gateway.p99"),
    ("secrets.seal_open", "secrets.warm_open_us", "secrets.rewrap_kms_calls", "secrets.kms_per_1000_jobs"),
    ("audit.append", "audit.whole_path"),
    ("audit.flat_10m", "audit.proof_p99_ms"),
    ("verify.receipt_ms", "verify.bundle_100k_s"),
)


def main() -> int:
    """Run all benchmarks, or one. 2 for a name that there isn't."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--only", metavar="NAME", help=f"one of {', '.join(BENCHMARKS)}")
    parser.add_argument("--entries", type=int, default=ENTRIES, help="how large the filled log is")
    given = parser.parse_args()
    if given.only and given.only not in BENCHMARKS:
        print(f"bench: no benchmark {given.only!r}; there are {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    results = list(_results(given.only, given.entries))
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps([result.document() for result in results], indent=1) + "\n")
    print(f"written to {OUTPUT}")
    return 0


def _results(only: str | None, entries: int) -> Iterator[Result]:
    for group in GROUPS:
        with ExitStack() as stack:
            around = Surroundings(stack, entries)
            for name in group:
                if only in (None, name):
                    result = _run(BENCHMARKS[name](around))
                    print(result.line(), flush=True)
                    yield result


def _run(work: Coroutine[Any, Any, Result] | Result) -> Result:
    if isinstance(work, Result):
        return work
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


if __name__ == "__main__":
    sys.exit(main())
