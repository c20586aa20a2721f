"""Keeps signed checkpoints outside of the log's database, and holds the log against the newest of them at the start.

Where the storage locks what it holds, nobody can take them back: a database and a signer that were both put back to an
older day don't continue what lies there, and nothing is signed. The signer reaches nobody, so the audit process looks
for it: it offers the signer no head before it has looked.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import NoReturn

from services._mesh.clock import monotonic
from services._mesh.database import Database
from services._mesh.errors import Problem, Reason, WrongState, dependency_down
from services._mesh.metrics import Metrics
from services._mesh.storage import Missing, Occupied, Storage, StorageFailed
from services._mesh.uow import PLATFORM
from services.audit import store
from services.audit.checkpointer import Checkpointer
from services.audit.model.alarms import Alarm, AlarmKind, Note
from services.audit.model.archive import head_object, heads_of
from services.audit.model.merkle import EMPTY_ROOT, peaks, root_of
from services.audit.model.note_check import Held, read_stored_note
from services.audit.model.notes import Note as LogNote
from services.audit.model.notes import NoteInvalid, TreeHead
from services.audit.model.shards import origin_of, place_of

log = logging.getLogger(__name__)

# After it was looked in vain, and after a checkpoint couldn't be written.
AGAIN_SECONDS = 5.0
# Of so many of the newest objects one must be a checkpoint that this log signed.
_LOOKED_AT = 8
# What the signer says: the keys of the log, and what it signed last of a shard.
Signer = Callable[[int], Awaitable[Held]]


class Outside:
    """The checkpoints held outside. `database` is under the sequencer's role; `seconds` lie between two of them."""

    def __init__(
        self, database: Database, storage: Storage, name: str, checkpointer: Checkpointer, signer: Signer,
        metrics: Metrics, note: Note, seconds: float,
    ) -> None:  # fmt: skip
        self._database, self._storage, self._name, self._checkpointer = database, storage, name, checkpointer
        self._signer, self._note, self._seconds = signer, note, seconds
        self._matched = False
        self._one = asyncio.Lock()
        self._problem: Problem | None = None
        self._again_at = 0.0
        text = "1 when the log was found to continue the newest checkpoint held outside."
        self._match_gauge = metrics.gauge("recoup_log_outside_matched", text)
        text = "For how long checkpoints couldn't be written outside."
        self._failing = metrics.gauge("recoup_log_outside_failing_seconds", text)

    async def require(self) -> None:
        """See once that the log continues the newest checkpoint held outside.

        Raises WrongState (LOG_INCONSISTENT) where it doesn't, Unavailable where it can't be told now.
        """
        async with self._one:
            if self._matched:
                return
            if self._problem is None or monotonic() >= self._again_at:
                await self._look()
            if self._problem is not None:
                raise self._problem

    async def run(self) -> None:
        """Write the newest checkpoint outside, at most one every so many seconds, until cancelled."""
        place, failing_since = 0, 0.0
        while True:
            await self._checkpointer.wait_for(place)
            try:
                place = await self._keep()
                failing_since = 0.0
            except Exception as error:
                failing_since = failing_since or monotonic()
                log.error("a checkpoint can't be written to %s: %s", self._storage.where, error)
            self._failing.set(monotonic() - failing_since if failing_since else 0)
            await asyncio.sleep(min(AGAIN_SECONDS, self._seconds) if failing_since else self._seconds)

    async def _keep(self) -> int:
        async with self._database.unscoped() as connection:
            newest = await store.find_checkpoint(connection)
        assert newest is not None
        name = head_object(origin_of(self._name, newest.shard), newest.size)
        try:
            await self._storage.put(name, newest.note.encode())
        except Occupied:
            if _text(await self._storage.get(name)) != _text(newest.note.encode()):
                self._differs(newest.shard, TreeHead("", newest.size, newest.root), {"object": name})
        return place_of(newest.shard, newest.size)

    async def _look(self) -> None:
        self._again_at = monotonic() + AGAIN_SECONDS
        try:
            found = await self._newest()
            if found is not None:
                await self._compare(*found)
        except StorageFailed as error:
            log.warning("the newest checkpoint held outside can't be read: %s", error)
            self._problem = dependency_down("checkpoints held outside")
        except Problem as problem:
            self._problem = problem
        else:
            self._matched, self._problem = True, None
            self._match_gauge.set(1)
            log.info("the log continues what is held in %s: %s", self._storage.where, found[1] if found else "nothing")

    async def _newest(self) -> tuple[int, TreeHead] | None:
        """The newest checkpoint held outside, of the newest shard that has any: also one that the log doesn't have."""
        async with self._database.unscoped() as connection:
            shard, _ = await store.read_head(connection)
        found = None
        while (above := await self._newest_of(shard + 1)) is not None:
            found, shard = above, shard + 1
        while found is None and shard >= 0:
            found, shard = await self._newest_of(shard), shard - 1
        return found

    async def _newest_of(self, shard: int) -> tuple[int, TreeHead] | None:
        origin = origin_of(self._name, shard)
        names = await self._storage.first(heads_of(origin), _LOOKED_AT)
        keys = (await self._signer(shard)).keys if names else ()
        for name in names:
            try:
                head = read_stored_note((await self._storage.get(name)).decode(), keys, shard)
                if name != head_object(head.origin, head.size) or head.origin != origin:
                    raise NoteInvalid("it is another checkpoint than its name says")
            except (NoteInvalid, UnicodeDecodeError, Missing) as error:
                log.error("security: %s in %s is no checkpoint of this log: %s", name, self._storage.where, error)
                continue
            return shard, head
        if names:
            self._differs(shard, None, {"object": names[0]})
        return None

    async def _compare(self, shard: int, held: TreeHead) -> None:
        note = (await self._signer(shard)).note
        signed = TreeHead.parse(LogNote.parse(note).text) if note else TreeHead(held.origin, 0, EMPTY_ROOT)
        async with self._database.unscoped() as connection:
            current, size = await store.read_head(connection)
            hashes = await store.read_nodes(connection, shard, peaks(held.size)) if shard <= current else {}
            # A recovery stated, under the root's signature, what is lost; the signer checks that it knew of it.
            recovered = await store.was_given_up(connection, shard)
        whole = len(hashes) == len(peaks(held.size))
        root = root_of([hashes[node] for node in peaks(held.size)]) if whole else b""
        knows = signed.size > held.size or (signed.size, signed.root) == (held.size, held.root)
        told = {"signed_size": str(signed.size), "log_shard": str(current), "log_size": str(size)}
        if root != held.root and not (recovered and knows):
            self._differs(shard, held, {**told, "log_root": root.hex()})
        if not knows:
            # It is brought forward again by the next head, which continues what it signed and what is held outside.
            self._alarm(shard, held, told)

    def _differs(self, shard: int, held: TreeHead | None, told: dict[str, str]) -> NoReturn:
        metadata = self._alarm(shard, held, told)
        said = ", ".join(f"{name} {value or 'none'}" for name, value in metadata.items())
        raise WrongState(
            Reason.ERROR_REASON_LOG_INCONSISTENT, f"The log doesn't continue the checkpoint held outside: {said}."
        )

    def _alarm(self, shard: int, held: TreeHead | None, told: dict[str, str]) -> dict[str, str]:
        metadata = {"location": self._storage.where, "shard": str(shard), **told}
        if held is not None:
            metadata |= {"size": str(held.size), "root": held.root.hex()}
        self._note(Alarm(AlarmKind.OUTSIDE_DIFFERS, PLATFORM, metadata, f"{shard} {metadata.get('size')}"))
        return metadata


def _text(note: bytes) -> bytes:
    return note.partition(b"\n\n")[0]
