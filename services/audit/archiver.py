"""Copies the log into its archive, shard by shard, and reads back what a closed shard left there.

A task of the audit process that holds up nothing: what fails is counted, said and tried again. It writes only what is
under a signed checkpoint, and only entries that hash to the tree's own leaves.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from services._mesh.clock import Clock
from services._mesh.database import Database, problem_of
from services._mesh.ids import PLATFORM
from services._mesh.metrics import Metrics
from services._mesh.storage import Occupied, Storage, StorageFailed
from services._mesh.uow import Store
from services.audit import store
from services.audit.model.alarms import Alarm, AlarmKind, Note
from services.audit.model.archive import (
    VERIFY,
    Archived,
    ArchiveDiffers,
    Batch,
    Shard,
    bundle_object,
    check_leaves,
    checkpoint_object,
    is_of_note,
    next_batch,
    tile_object,
)
from services.audit.model.events import Checkpoint
from services.audit.model.tiles import Tile, write_bundle
from services.audit.pace import Pace
from services.audit.reading_back import read_back

log = logging.getLogger(__name__)

# More than the log takes in, so that what is behind is caught up with, and few enough that appends hardly notice.
LEAVES_A_SECOND = 10_000
# So many objects are written at once.
_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Cadence:
    """How often it is looked for something to copy, and after how long a verified archive is read back again."""

    seconds: float = 60.0
    verify_days: float = 30.0


@dataclass(frozen=True, slots=True)
class _Standing:
    """A shard, how far it is copied, and its newest checkpoint."""

    shard: Shard
    archived: Archived
    head: Checkpoint


class Archiver:
    """The archive's task. `database` is the archiver's role, which reads leaves; `writer` keeps progress and events."""

    def __init__(
        self, database: Database, writer: Store, storage: Storage, clock: Clock, metrics: Metrics, note: Note,
        cadence: Cadence,
    ) -> None:  # fmt: skip
        self._database, self._writer, self._storage = database, writer, storage
        self._clock, self._metrics, self._note, self._cadence = clock, metrics, note, cadence
        self._checkpoints: dict[int, int] = {}
        self._pace = Pace(LEAVES_A_SECOND)
        self.failures = metrics.counter("recoup_audit_archive_failures", "Attempts to copy or read back that failed.")

    async def run(self) -> None:
        """Copy and read back until cancelled."""
        while True:
            if not await self.step():
                await asyncio.sleep(self._cadence.seconds)

    async def step(self) -> bool:
        """Do one bounded piece of work for each shard that has any; False when nothing more could be done now."""
        try:
            standing = await self._standing()
        except Exception as error:
            self._failed("what is to be archived can't be read", error)
            return False
        return any([await self._worked(each) for each in standing])

    async def _worked(self, at: _Standing) -> bool:
        try:
            await self._keep_checkpoint(at.shard, at.head)
            batch = next_batch(at.shard, at.archived, at.head.size)
            if batch is not None:
                await self._copy(at, batch)
            elif self._is_due(at.archived):
                await self._verify(at)
            else:
                return False
        except Exception as error:
            self._failed(f"shard {at.shard.shard} can't be archived", error)
            if isinstance(error, ArchiveDiffers | Occupied):
                where = {"where": "archive", "shard": str(at.shard.shard), "difference": str(error)}
                self._note(Alarm(AlarmKind.SELF_CHECK_FAILED, PLATFORM, where))
            return False
        return True

    def _failed(self, what: str, error: Exception) -> None:
        self.failures.add()
        foreseen = isinstance(error, ArchiveDiffers | Occupied | StorageFailed) or problem_of(error) is not None
        log.error("%s: %s: %s", what, type(error).__name__, error, exc_info=None if foreseen else error)

    async def _standing(self) -> list[_Standing]:
        async with self._database.unscoped() as connection:
            archived = await store.list_archived(connection)
            found = []
            for shard in await store.list_shards(connection):
                head = await store.find_checkpoint(connection, shard.shard)
                at = archived.get(shard.shard)
                if at is None or at.location != self._storage.where:
                    at = Archived(shard.shard, self._storage.where)
                if head is not None:
                    found.append(_Standing(shard, at, head))
        for each in found:
            self._measure(each)
        return found

    def _measure(self, at: _Standing) -> None:
        labels = {"shard": str(at.shard.shard)}
        self._metrics.gauge("recoup_audit_archived_size", "Leaves in the archive.", **labels).set(at.archived.size)
        text = "Leaves under a signed checkpoint that aren't in the archive; up to 255 wait for their tile to be full."
        self._metrics.gauge("recoup_audit_archive_lag", text, **labels).set(at.head.size - at.archived.size)
        text = "Whether the archive of a closed shard was read back and is what the log says."
        is_verified = at.archived.verified_at is not None
        self._metrics.gauge("recoup_audit_archive_verified", text, **labels).set(float(is_verified))

    def _is_due(self, archived: Archived) -> bool:
        """Whether a whole archive is to be read back: never yet, or long ago. One that differs isn't looked at again
        before that, either: `verified_at` is empty, and the problem stands until somebody looked at it.
        """
        if not archived.complete:
            return False
        if archived.verified_at is None:
            return not archived.problem
        return self._clock.wall_now() - archived.verified_at >= timedelta(days=self._cadence.verify_days)

    async def _keep_checkpoint(self, shard: Shard, head: Checkpoint) -> None:
        """Write the newest checkpoint. Witnesses sign it later on: whichever text came first stays."""
        if self._checkpoints.get(shard.shard) == head.size:
            return
        name = checkpoint_object(shard.origin, head.size)
        try:
            await self._storage.put(name, head.note.encode())
        except Occupied:
            if not is_of_note(await self._storage.get(name), head.note):
                raise
        self._checkpoints[shard.shard] = head.size

    async def _copy(self, at: _Standing, batch: Batch) -> None:
        shard = at.shard
        if batch.is_last and at.head.size != batch.end:
            raise ArchiveDiffers(f"the shard was closed at {batch.end}, and {at.head.size} is signed")
        async with self._database.unscoped() as connection:
            tiles = {tile: await store.read_tile(connection, shard.shard, tile) for tile in batch.tiles()}
            leaves = await store.read_leaves(connection, shard.shard, batch.start, batch.end)
        await self._put_all(await asyncio.to_thread(_objects, shard, batch, tiles, leaves))
        await self._pace.spend(batch.end - batch.start)
        done = replace(at.archived, size=batch.end, complete=batch.is_last)
        async with self._writer.begin(PLATFORM) as work:
            await store.mark_archived(work.connection, done, work.wall_now)

    async def _put_all(self, objects: Sequence[tuple[str, bytes]]) -> None:
        for first in range(0, len(objects), _AT_ONCE):
            some = objects[first : first + _AT_ONCE]
            await asyncio.gather(*(self._storage.put(name, content) for name, content in some))

    async def _verify(self, at: _Standing) -> None:
        shard, size = at.shard.shard, at.archived.size
        try:
            objects = await read_back(self._storage, at.shard.origin, at.head)
        except ArchiveDiffers as error:
            metadata = {"origin": at.shard.origin, "size": str(size), "difference": str(error)}
            async with self._writer.begin(PLATFORM) as work:
                await store.mark_differing(work.connection, shard, str(error))
                work.emit(VERIFY, f"shards/{shard}", {**metadata, "location": self._storage.where}, "FAILED")
            raise
        metadata = {"origin": at.shard.origin, "size": str(size), "root": at.head.root.hex(), "objects": str(objects)}
        async with self._writer.begin(PLATFORM) as work:
            where = {"location": self._storage.where, "verified_at": work.wall_now.isoformat()}
            event_id = work.emit(VERIFY, f"shards/{shard}", metadata | where)
            await store.mark_verified(work.connection, shard, size, at.head.root, event_id, work.wall_now)
        log.info("the archive of shard %d was read back: %d objects, %d leaves", shard, objects, size)


def _objects(
    shard: Shard, batch: Batch, tiles: dict[Tile, list[bytes]], leaves: dict[int, bytes]
) -> list[tuple[str, bytes]]:
    """What a batch writes. Raises ArchiveDiffers where entries and hashes don't go together."""
    objects = []
    for tile, hashes in tiles.items():
        if len(hashes) != tile.width:
            raise ArchiveDiffers(f"tile {tile.name()} has {len(hashes)} of its hashes")
        objects.append((tile_object(shard.origin, tile), b"".join(hashes)))
    for tile in batch.leaf_tiles():
        indexes = range(tile.first, tile.first + tile.width)
        missing = next((index for index in indexes if index not in leaves), None)
        if missing is not None:
            raise ArchiveDiffers(f"entry {missing} isn't in the log any more")
        entries = [leaves[index] for index in indexes]
        check_leaves(entries, tiles[tile], tile.first)
        objects.append((bundle_object(shard.origin, tile), write_bundle(entries)))
    return objects
