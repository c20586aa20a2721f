"""The part of the mesh that somebody signs in through: the edge, identity, its log, and one service behind them."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bench.measuring import TRACE_RATIO
from recoup_local.supervisor import LocalMesh

PROCESSES = ("audit-signer", "audit", "identity", "gateway")


@contextmanager
def running_identity() -> Iterator[LocalMesh]:
    """These processes and what they stand on; everything is taken down at the end."""
    state = Path(tempfile.mkdtemp(prefix="recoup-identity-"))
    mesh = LocalMesh(state, cloud=False, only=PROCESSES, fsync=True, trace_ratio=TRACE_RATIO)
    try:
        asyncio.run(mesh.start())
        yield mesh
    finally:
        mesh.stop()
        shutil.rmtree(state, ignore_errors=True)


def limit_strangers(mesh: LocalMesh, a_second: float, burst: int) -> None:
    """Have the edge slow down whoever isn't let in like this, and begin anew."""
    _configure(mesh, {"strangers_a_second": a_second, "stranger_burst": burst})


def unlimited(mesh: LocalMesh) -> None:
    """Have the edge count every request and refuse none for its number, and wait for who is slow to ask."""
    names = [f"{whose}{what}" for whose in ("", "organization_") for what in ("read", "write")]
    rates = {f"{each}s_a_second": 100_000.0 for each in names} | {f"{each}_burst": 100_000 for each in names}
    # Somebody who waits a while before they ask, asks for many streams, and is everybody, is what some benchmarks are.
    _configure(mesh, rates | {"head_seconds": 120.0, "organization_streams": 1000, "address_connections": 5000})


def _configure(mesh: LocalMesh, values: Mapping[str, float]) -> None:
    path = mesh.installation.config_file("gateway")
    lines = [line for line in path.read_text().splitlines() if line.partition(" = ")[0].strip('"') not in values]
    at = lines.index("[gateway]") + 1
    lines[at:at] = [f"{name} = {value}" for name, value in values.items()]
    path.write_text("\n".join(lines) + "\n")
    mesh.kill("gateway")
    asyncio.run(mesh.restart("gateway"))
