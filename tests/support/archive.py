"""A log with a closed shard, and its archiver, for tests of the archive."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services._mesh.clock import Clock
from services._mesh.database import Database
from services._mesh.metrics import Metrics
from services._mesh.storage import Storage
from services._mesh.storage.folder import FolderStorage
from services._mesh.threads import BoundedThreads
from services._mesh.uow import Store
from services.audit import store, usecases
from services.audit.archiver import Archiver, Cadence
from services.audit.model.alarms import Alarm
from services.audit.model.events import Checkpoint, Produced
from services.audit.model.notes import Signer, TreeHead
from services.audit.model.shards import place_of
from services.audit.sequencer import Sequencer
from tests.support.log import ACME, GLOBEX, LOG, event
from tests.support.postgres import TestDatabase

LEAVES = 600


def folder(path: Path) -> FolderStorage:
    """An archive in a folder."""
    return FolderStorage(BoundedThreads(4, "archive"), path)


@dataclass
class ArchivedLog:
    """A database with a log, and what a test does to it."""

    database: TestDatabase
    metrics: Metrics = field(default_factory=Metrics)
    noted: list[Alarm] = field(default_factory=list)
    signer: Signer = field(default_factory=lambda: Signer(LOG, Ed25519PrivateKey.generate()))
    _pools: list[Database] = field(default_factory=list)

    async def grow(self, log: Sequencer, count: int = LEAVES) -> None:
        """Append events of two organizations, one after the other."""
        at = log.head[0]
        events = [event((at + n) // 2 + 1, ACME if (at + n) % 2 else GLOBEX) for n in range(count)]
        await usecases.append_events(log, "identity", events)

    async def sign(self, log: Sequencer) -> None:
        """Have the head signed, as the checkpointer does."""
        size, root = log.head
        note = self.signer.sign(TreeHead(LOG, size, root).text())
        role = self.database.role("audit_sequencer")
        async with role.unscoped() as connection:
            await store.insert_checkpoint(connection, Checkpoint(0, size, root, note, Clock().wall_now()))
        await role.close()

    async def close_shard(self, size: int) -> None:
        """Close the first shard, and open the second with a leaf that only its hash is there of."""
        await self.superuser(
            f"UPDATE audit.shards SET closed_size = {size} WHERE shard = 0",
            f"INSERT INTO audit.shards (shard, origin, kind, opened_at) VALUES (1, '{LOG}/1', 'YEARLY', now())",
            f"INSERT INTO audit.nodes (height, position, hash) VALUES (0, {place_of(1, 0)}, '\\x{'11' * 32}')",
            f"UPDATE audit.head SET size = {place_of(1, 1)}",
        )

    async def superuser(self, *statements: str) -> list[dict[str, object]]:
        """What the last statement gives, as a superuser."""
        connection = await self.database.superuser()
        try:
            for statement in statements[:-1]:
                await connection.execute(statement)
            return [dict(row) for row in await connection.fetch(statements[-1])]
        finally:
            await connection.close()

    def archiver(self, storage: Storage, verify_days: float = 30.0) -> Archiver:
        """The archiver under its own role, as a fresh process has it."""
        pools = self.database.role("audit_api"), self.database.role("audit_archiver", pool_size=1)
        self._pools += pools
        writer, reader = Store(pools[0], "audit", Clock()), pools[1]
        cadence = Cadence(0.01, verify_days)
        return Archiver(reader, writer, storage, Clock(), self.metrics, self.noted.append, cadence)

    async def close(self) -> None:
        """Close all archivers' pools."""
        for pool in self._pools:
            await pool.close()

    async def emitted(self) -> list[Produced]:
        """The events of the log's own outbox, in their order."""
        rows = await self.superuser(
            "SELECT event_id, organization_id, counter, payload FROM audit.outbox ORDER BY organization_id, counter"
        )
        return [
            Produced(_uuid(row["event_id"]), _uuid(row["organization_id"]), int(str(row["counter"])), _bytes(row))
            for row in rows
        ]

    async def state(self) -> dict[str, object]:
        """The first shard's row of audit.archive."""
        (row,) = await self.superuser("SELECT * FROM audit.archive WHERE shard = 0")
        return row


def _uuid(value: object) -> UUID:
    return UUID(str(value))


def _bytes(row: dict[str, object]) -> bytes:
    payload = row["payload"]
    assert isinstance(payload, bytes)
    return payload


def root_in(note: str) -> bytes:
    """The root that a note names."""
    return base64.b64decode(note.split("\n")[2])
