"""The file KMS, which is no fake."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from services._mesh.kms.interface import Kek, KeyService, Kms
from tests.support.key_services.keeper import ALL, Keeper
from tests.support.kms import RING, Ring


@asynccontextmanager
async def file_kms(folder: Path) -> AsyncIterator[Keeper]:
    """The file KMS, which answers what its file says."""
    ring = Ring(folder)
    fifo = folder / "never-written"
    os.mkfifo(fifo)
    state = {"hangs": False}

    def set_state(name: str) -> None:
        state["hangs"] = name == "TIMEOUT"
        ring.set_states({kek.reference: name for kek in (keeper.kek, keeper.newer) if name not in ("", "TIMEOUT")})

    def opened(deadline_seconds: float) -> Kms:
        return ring.open(fifo if state["hangs"] else ring.whole_file, deadline_seconds)

    kek, newer = (Kek(KeyService.FILE, f"{RING}/acme/{number}") for number in (1, 2))
    elsewhere = Kek(KeyService.FILE, "file:another/acme/1")
    keeper = Keeper(kek, newer, elsewhere, opened, set_state, can_be=dict(ALL))
    try:
        yield keeper
    finally:
        # Whoever waits for a writer is let go.
        os.close(os.open(fifo, os.O_RDWR | os.O_NONBLOCK)) if not state["hangs"] else _release(fifo)
        ring.threads.close()


def _release(fifo: Path) -> None:
    with fifo.open("r+b", buffering=0) as end:
        end.write(b"{")
