"""A log over two or three shards: a yearly turn, and a database that was put back and recovered into a third one."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services._mesh.clock import Clock
from services._mesh.uow import Store
from services.audit import usecases
from services.audit.checking import Checker
from services.audit.model.manifest import ListedKey
from services.audit.model.note_check import Held
from services.audit.model.notes import Signer
from services.audit.opener import Opener
from services.audit.pace import Pace
from services.audit.recover import Recovery
from services.audit.signer_memory import SignerMemory
from tests.support import log as support
from tests.support.log import ACTORS, DIGEST, GLOBEX, KEY, LOG, checkpointer, event, opener, sequencer
from tests.support.postgres import TestDatabase, copied, drop, new_database
from tests.support.things import MovableClock

ROOT = Signer(f"{LOG}/root", Ed25519PrivateKey.generate())
YEAR = timedelta(days=366)


@dataclass
class ShardedLog:
    """The database as it is now, the signer's memory, and the years that have passed."""

    database: TestDatabase
    folder: Path
    clock: MovableClock
    shards: int
    counters: int = 0

    @property
    def memory(self) -> SignerMemory:
        """What the signer remembers."""
        return SignerMemory(self.folder / "signed.json")

    async def grow(self, batches: int = 2) -> None:
        """Append batches of two events of Acme's and one of Globex's, and have each batch signed."""
        async with (
            sequencer(self.database, clock=self.clock) as log,
            checkpointer(self.database, log, self.folder, ROOT.verifier_key) as signing,
        ):
            for _ in range(batches):
                acme = [event(2 * self.counters + n) for n in (1, 2)]
                await usecases.append_events(log, "identity", acme)
                scan = event(self.counters + 1, GLOBEX, "scanner.scan.start", actor="process:scanner")
                places = await usecases.append_events(log, "scanner", [scan])
                await signing.wait_for(places[-1])
                self.counters += 1

    async def turn(self) -> None:
        """Let a year pass: the next event goes to a new shard."""
        self.clock.ahead += YEAR

    async def backup(self) -> TestDatabase:
        """The database as it is now, for later."""
        made = await copied(self.database)
        support._keys[made.name] = await support.keys_of(self.database)
        return made

    async def put_back(self, backup: TestDatabase, counters: int) -> None:
        """Go on with an older database, in which the producers had come to so many batches."""
        await drop(self.database)
        self.database, self.counters = backup, counters

    async def recover(self) -> int:
        """Open the shard that follows what the signer signed last, by the root's word."""
        role, api = self.database.role("audit_sequencer", 1), self.database.role("audit_api", 1)
        recovery = Recovery(role, Store(api, "audit", self.clock), LOG, self.clock)
        memory = self.memory
        note = memory.of(memory.newest).head.note
        try:
            return await recovery.open(note, ROOT.sign(await recovery.statement(note)), ROOT.verifier_key)
        finally:
            await role.close()
            await api.close()

    async def held(self, shard: int) -> Held:
        """What the signer says of a shard, with the log's key."""
        return Held([ListedKey("log", KEY.public_key().public_bytes_raw())], self.memory.of(shard).head.note)

    async def keys_only(self, shard: int) -> Held:
        """The log's key, and nothing that was signed."""
        return Held((await self.held(shard)).keys)

    @asynccontextmanager
    async def checker(self) -> AsyncIterator[Checker]:
        """The self-check of the database as it is now."""
        role = self.database.role("audit_checker", 1)
        async with opener(self.database) as opening:
            yield _checker(self, role, opening)
        await role.close()


# By their number of shards; nobody changes them.
_grown: dict[int, ShardedLog] = {}


def _checker(log: ShardedLog, role: object, opening: Opener) -> Checker:
    async def no_rest(seconds: float) -> None:
        assert seconds > 0

    pace = Pace(1e6, no_rest)
    return Checker(role, Clock(), LOG, ACTORS, DIGEST, opening.contents, log.held, pace, chunk=4)  # type: ignore[arg-type]


@asynccontextmanager
async def sharded_log(folder: Path, shards: int) -> AsyncIterator[ShardedLog]:
    """A log of so many shards: the second is the next year's, the third a recovery's. Without any it is empty.

    Each kind is grown once in a test process; a test has a copy of it.
    """
    if shards not in _grown:
        kept = Path(tempfile.mkdtemp(prefix="recoup-log-"))
        atexit.register(shutil.rmtree, kept, ignore_errors=True)
        _grown[shards] = await _grow(kept, shards)
    grown = _grown[shards]
    made = replace(grown, database=await grown.backup(), folder=folder, clock=MovableClock())
    made.clock.ahead = grown.clock.ahead
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(grown.folder, folder, dirs_exist_ok=True)
    support._keys[made.database.name] = await copied(await support.keys_of(grown.database), only="subjects")
    yield made
    await drop(made.database)


async def _grow(folder: Path, shards: int) -> ShardedLog:
    made = ShardedLog(await new_database(("audit",)), folder, MovableClock(), shards)
    if shards:
        await made.grow()
    if shards > 1:
        await made.turn()
        await made.grow()
    if shards > 2:
        backup, counters = await made.backup(), made.counters
        await made.grow(1)
        await made.put_back(backup, counters)
        assert await made.recover() == 2
        await made.grow()
    return made


__all__ = ["ROOT", "YEAR", "ShardedLog", "sharded_log"]
