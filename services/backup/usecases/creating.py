"""Makes a backup: both databases in their snapshots, table by table, in parts that are sealed as they come."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from services._mesh.failpoints import reach
from services._mesh.storage import MAX_OBJECT_BYTES
from services.backup.model.manifest import KEYS, MAIN, Header, Manifest, Table, seal_manifest
from services.backup.model.parts import PART_BYTES, Place, seal_part
from services.backup.store.catalog import Shape
from services.backup.store.source import Snapshots, Source, SourceUnusable
from services.backup.usecases.keeping import Attempt, Keep

# Parts that are on their way at once: with those that are being filled and sealed, 100 MiB at most.
_AT_ONCE = 4
Tell = Callable[[str], None]
Record = Callable[[Manifest], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Made:
    """A whole backup, and how many of its parts an earlier attempt had stored."""

    header: Header
    manifest: Manifest
    parts: int
    found: int
    resumed: bool


class Maker:
    """Makes backups of one installation."""

    def __init__(self, source: Source, keep: Keep, signer: Ed25519PrivateKey, resume_hours: float, tell: Tell) -> None:
        self._source, self._keep, self._signer, self._tell = source, keep, signer, tell
        self._resume_hours = resume_hours
        self._parts = self._found = 0

    async def create(self, now: datetime, record: Record) -> Made:
        """Go on with the newest attempt, or begin one. What it holds is recorded before it is whole.

        Raises SourceUnusable, Problem, StorageFailed, OSError, and what `record` raises.
        """
        async with self._source.snapshots() as snapshots:
            attempt = await self._keep.find_unfinished(snapshots.system, now, self._resume_hours)
            resumed = attempt is not None
            attempt = attempt or await self._keep.begin(snapshots.system, now, self._signer)
            self._tell(f"{'going on with' if resumed else 'making'} backup {attempt.header.backup_id}")
            manifest = await self._copy(snapshots, attempt)
        sealed = await asyncio.to_thread(seal_manifest, manifest, attempt.header, attempt.keys[MAIN], self._signer)
        if len(sealed) > MAX_OBJECT_BYTES:
            raise SourceUnusable(
                f"the manifest has {len(sealed)} bytes, and {MAX_OBJECT_BYTES} can be kept: the databases are too large"
                " for this format (several TB). Use the provider's snapshots."
            )
        reach("backup.copied")
        await record(manifest)
        await self._keep.put_manifest(attempt.header, sealed)
        return Made(attempt.header, manifest, self._parts, self._found, resumed)

    async def _copy(self, snapshots: Snapshots, attempt: Attempt) -> Manifest:
        databases = {}
        for database in (MAIN, KEYS):
            tables = []
            for shape in await snapshots.shapes(database):
                tables.append(await self._table(snapshots, attempt, database, shape))
                self._tell(f"  {shape.name}: {tables[-1].rows} rows")
            databases[database] = await snapshots.describe(database, tables)
        return Manifest(
            backup_id=str(attempt.header.backup_id),
            databases=databases,
            keks=await snapshots.keks(),
            log=await snapshots.log_head(),
            taken_at=databases[MAIN].taken_at,
        )

    async def _table(self, snapshots: Snapshots, attempt: Attempt, database: str, shape: Shape) -> Table:
        parts = _Parts(self._keep, attempt, database, shape.name)
        try:
            rows = await snapshots.copy_out(database, shape, parts.write)
            digests = await parts.finish()
        finally:
            await parts.give_up()
        self._parts, self._found = self._parts + len(digests), self._found + parts.found
        return Table(shape.name, shape.columns, shape.order, rows, parts.size_bytes, parts.sha256, digests)


class _Parts:
    """Cuts a stream into parts, and keeps each while the next ones come."""

    def __init__(self, keep: Keep, attempt: Attempt, database: str, table: str) -> None:
        self._keep, self._attempt, self._database, self._table = keep, attempt, database, table
        self._filled, self._whole = bytearray(), hashlib.sha256()
        self._tasks: list[asyncio.Task[str]] = []
        self._digests: list[str] = []
        self.size_bytes = self.found = 0

    @property
    def sha256(self) -> str:
        """The digest of all that was written."""
        return self._whole.hexdigest()

    async def write(self, data: bytes) -> None:
        """Take what comes; waits while too much is on its way."""
        self._whole.update(data)
        self.size_bytes += len(data)
        self._filled += data
        while len(self._filled) >= PART_BYTES:
            part = bytes(self._filled[:PART_BYTES])
            del self._filled[:PART_BYTES]
            await self._send(part)

    async def finish(self) -> list[str]:
        """Keep what is left; returns the digests of all parts."""
        if self._filled:
            await self._send(bytes(self._filled))
        while self._tasks:
            self._digests.append(await self._tasks.pop(0))
        return self._digests

    async def give_up(self) -> None:
        """End what is on its way, after a failure."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _send(self, part: bytes) -> None:
        if len(self._tasks) == _AT_ONCE:
            self._digests.append(await self._tasks.pop(0))
        number = len(self._digests) + len(self._tasks)
        place = Place(self._attempt.header.backup_id, self._database, self._table, number)
        self._tasks.append(asyncio.create_task(self._keep_part(part, place)))

    async def _keep_part(self, part: bytes, place: Place) -> str:
        digest, sealed = await asyncio.to_thread(seal_part, part, place, self._attempt.keys[self._database])
        if not await self._keep.put_part(place, digest, sealed):
            self.found += 1
        reach("backup.part")
        return digest


def signer_of(key: bytes) -> Ed25519PrivateKey:
    """The key that signs manifests, from its PEM. Raises ValueError."""
    try:
        loaded = load_pem_private_key(key, None)
    except (TypeError, UnsupportedAlgorithm) as error:
        raise ValueError("isn't an Ed25519 key without a password") from error
    if not isinstance(loaded, Ed25519PrivateKey):
        raise ValueError("isn't an Ed25519 key")
    return loaded
