"""The part of the mesh that somebody signs in through: the edge, identity, its log, and one service behind them."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recoup_local.supervisor import LocalMesh

PROCESSES = ("audit-signer", "audit", "identity", "gateway")


@contextmanager
def running_identity() -> Iterator[LocalMesh]:
    """These processes and what they stand on; everything is taken down at the end."""
    state = Path(tempfile.mkdtemp(prefix="recoup-identity-"))
    mesh = LocalMesh(state, cloud=False, only=PROCESSES, fsync=True)
    try:
        asyncio.run(mesh.start())
        yield mesh
    finally:
        mesh.stop()
        shutil.rmtree(state, ignore_errors=True)


def limit_strangers(mesh: LocalMesh, a_second: float, burst: int) -> None:
    """Have the edge slow down whoever isn't let in like this, and begin anew."""
    path = mesh.installation.config_file("gateway")
    lines = [line for line in path.read_text().splitlines() if "stranger" not in line]
    at = lines.index("[gateway]") + 1
    lines[at:at] = [f"strangers_a_second = {a_second}", f"stranger_burst = {burst}"]
    path.write_text("\n".join(lines) + "\n")
    mesh.kill("gateway")
    asyncio.run(mesh.restart("gateway"))
