"""What befalls the mesh: processes killed at any moment or at a named place, held, doubled; stores crashed and lost."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random

from recoup_local.embedded import child
from recoup_local.embedded.nats import free_port
from recoup_local.supervisor import LocalMesh
from services.audit.store.appending import LOCK_MILLISECONDS

# Where processes can be killed, as process and place.
PLACES = (
    "audit.flush.written",
    "audit.flush.committed",
    "audit.checkpoint.signed",
    "audit-signer.sign.signed",
    "audit-signer.sign.written",
    "audit-signer.sign.remembered",
    "pricing.relay.claimed",
    "pricing.relay.appended",
)
KILLED = ("audit", "audit-signer", "audit-witness", "identity", "pricing")
# Longer than the signer, the log and the relay wait for each other: than any lease that they have.
HELD_SECONDS = {"audit": 2 * LOCK_MILLISECONDS / 1000, "audit-signer": 6.0, "pricing": 3.0}
REACHED_SECONDS = 20.0
# Between two faults: long enough that something is under way when the next one comes.
PAUSE_SECONDS = (0.05, 0.4)


class Nemesis:
    """Harms a mesh, one fault after the other; what it did stands in `did`, with how many seconds each took."""

    def __init__(self, mesh: LocalMesh, random: Random, twin_port: int) -> None:
        self._mesh, self._random, self.twin_port = mesh, random, twin_port
        self.did: list[tuple[str, float]] = []
        self.faults: Mapping[str, Callable[[], Awaitable[None]]] = {
            **{f"kill {name}": self._killing(name) for name in KILLED},
            **{f"kill at {place}": self._killing_at(place) for place in PLACES},
            **{f"hold {name}": self._holding(name) for name in HELD_SECONDS},
            "crash PostgreSQL": self._crash_postgres,
            "crash NATS": self._crash_nats,
            "lose JetStream": self._lose_jetstream,
            "two sequencers": self._two_sequencers,
        }

    async def run(self, seconds: float) -> None:
        """Every fault once, in any order, however long that takes; then deck after deck, while there is time."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + seconds
        for count, name in enumerate(deal(self._random, list(self.faults))):
            if count >= len(self.faults) and loop.time() >= ends:
                break
            began = loop.time()
            await self.faults[name]()
            self.did.append((name, loop.time() - began))
            await asyncio.sleep(self._random.uniform(*PAUSE_SECONDS))

    def _killing(self, name: str) -> Callable[[], Awaitable[None]]:
        async def kill() -> None:
            self._mesh.kill(name)
            await self._mesh.restart(name)

        return kill

    def _killing_at(self, place: str) -> Callable[[], Awaitable[None]]:
        name = place.partition(".")[0]

        async def kill() -> None:
            folder = self._mesh.installation.failpoints
            assert folder is not None
            armed = folder / place
            armed.write_text("kill")
            async with asyncio.timeout(REACHED_SECONDS):
                while self._mesh.exit_code(name) is None:
                    await asyncio.sleep(0.02)
            assert not armed.exists()
            await self._mesh.restart(name)

        return kill

    def _holding(self, name: str) -> Callable[[], Awaitable[None]]:
        async def hold() -> None:
            os.kill(self._mesh.pid(name), signal.SIGSTOP)
            await asyncio.sleep(HELD_SECONDS[name])
            os.kill(self._mesh.pid(name), signal.SIGCONT)
            await self._mesh.await_ready(name)

        return hold

    async def _crash_postgres(self) -> None:
        self._mesh.crash_postgres()
        self._mesh.start_postgres()

    async def _crash_nats(self) -> None:
        self._mesh.crash_nats()
        self._mesh.start_nats()

    async def _lose_jetstream(self) -> None:
        self._mesh.lose_jetstream()

    async def _two_sequencers(self) -> None:
        """A second audit process takes over; the first is held meanwhile, and goes on when it is no more in force."""
        os.kill(self._mesh.pid("audit"), signal.SIGSTOP)
        twin = self._start_twin()
        try:
            await self._twin_serves(twin)
            os.kill(self._mesh.pid("audit"), signal.SIGCONT)
            await asyncio.sleep(self._random.uniform(0.5, 2.0))  # Both append, and fence each other.
        finally:
            twin.kill()
            twin.wait()
        await self._mesh.await_ready("audit")

    def _start_twin(self) -> subprocess.Popen[bytes]:
        own = self._mesh.installation.config_file("audit")
        config = own.with_name("twin.toml")
        installation = self._mesh.installation
        port, metrics = (f'"127.0.0.1:{ports["audit"]}"' for ports in (installation.ports, installation.metrics_ports))
        config.touch(mode=0o600)
        lines = [line for line in own.read_text().splitlines() if metrics not in line]
        config.write_text("\n".join(lines).replace(port, f'"127.0.0.1:{self.twin_port}"') + "\n")
        with (self._mesh.logs / "audit-twin.log").open("ab") as log:
            return child.start([sys.executable, "-m", "services.audit", "--config", config], log)

    async def _twin_serves(self, twin: subprocess.Popen[bytes]) -> None:
        async with asyncio.timeout(60.0):
            while not _listens(self.twin_port):
                assert twin.poll() is None, Path(self._mesh.logs / "audit-twin.log").read_text()[-2000:]
                await asyncio.sleep(0.05)


def deal(random: Random, kinds: Sequence[str]) -> Iterator[str]:
    """Without end: all kinds in any order, then all of them in another."""
    while True:
        deck = list(kinds)
        random.shuffle(deck)
        yield from deck


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=0.5):
            return True
    except OSError:
        return False


def twin_port() -> int:
    """Where the second sequencer will listen."""
    return free_port()
