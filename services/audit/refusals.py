"""Says where the log differs from what the signer signed, when the signer refuses: an alarm SIGNER_REFUSED.

Checkpoints that were kept are held against the tree's nodes: between the last that still fits and the first that
doesn't lies the first index that differs. Where leaves were rewritten, the self-check then names the row. It mends
nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from services._mesh.database import Database
from services._mesh.uow import PLATFORM
from services.audit import store
from services.audit.model.alarms import Alarm, AlarmKind, Note
from services.audit.model.check_result import CheckResult
from services.audit.model.merkle import peaks, root_of
from services.audit.model.shards import split
from services.audit.model.signing import SignedHead

log = logging.getLogger(__name__)

EXACT_SECONDS = 600.0
# Checks the whole log.
Check = Callable[[], Awaitable[CheckResult]]


class Refusals:
    """`database` is under the sequencer's role; `check` may be None where nobody can look at the rows."""

    def __init__(self, database: Database, note: Note, check: Check | None = None) -> None:
        self._database, self._note, self._check = database, note, check
        self._told: set[str] = set()

    async def tell(self, shard: int, size: int, signed: SignedHead) -> None:
        """Raise the alarm about a refused head of `size`, once for each place."""
        first, before = await self.locate(shard, size, signed)
        once = f"{shard} {signed.size} {first} {before}"
        if once in self._told:
            return
        metadata = {
            "shard": str(shard),
            "size": str(size),
            "signed_size": str(signed.size),
            "first_index": str(first),
            "before_index": str(before),
        }
        if first < size and before - first > 1:
            metadata |= await self._exactly(shard, first, before)
        self._note(Alarm(AlarmKind.SIGNER_REFUSED, PLATFORM, metadata, once))
        self._told.add(once)

    def behind(self, shard: int, signed: SignedHead, known: int) -> None:
        """Raise the alarm about a signer that knows less of a shard than it signed: its memory was put back."""
        metadata = {"shard": str(shard), "size": str(known), "signed_size": str(signed.size), "memory": "put back"}
        self._note(Alarm(AlarmKind.SIGNER_REFUSED, PLATFORM, metadata, f"memory {shard} {signed.size} {known}"))

    async def locate(self, shard: int, size: int, signed: SignedHead) -> tuple[int, int]:
        """The first index that differs from what was signed is at least the first number, and below the second.

        Where the log merely ends too early, the first that is missing is known exactly.
        """
        async with self._database.unscoped() as connection:
            good, bad = 0, min(size, signed.size)
            newest = await store.find_checkpoint_between(connection, shard, good, bad, newest=True)
            # Of the size that was signed last, the signer knows better than a row that may be rewritten, too.
            expected = signed.root if newest and newest.size == signed.size else newest.root if newest else b""
            if newest is None or await root_at(connection, shard, newest.size) == expected:
                good = newest.size if newest else 0
                if size < signed.size:
                    return size, size + 1
            else:
                bad = newest.size
            return await _narrowed(connection, shard, good, bad)

    async def _exactly(self, shard: int, first: int, before: int) -> dict[str, str]:
        """What the self-check says about the rows in between; nothing where it can't be told."""
        if self._check is None:
            return {}
        try:
            async with asyncio.timeout(EXACT_SECONDS):
                result = await self._check()
        except Exception as error:
            log.warning("where the log differs can't be told more exactly: %s", type(error).__name__)
            return {}
        for fault in result.faults:
            where, index = split(fault.place)
            if where == shard and index < before:
                return {"first_index": str(index), "before_index": str(index + 1), "field": fault.field}
        return {}


async def find_common(connection: store.Connection, shard: int, through: int) -> int:
    """The largest size up to `through` whose kept checkpoint the nodes still bear out; 0 where there is none."""
    newest = await store.find_checkpoint_between(connection, shard, 0, through, newest=True)
    if newest is None or await root_at(connection, shard, newest.size) == newest.root:
        return newest.size if newest else 0
    return (await _narrowed(connection, shard, 0, newest.size))[0]


async def _narrowed(connection: store.Connection, shard: int, good: int, bad: int) -> tuple[int, int]:
    """Of a size that fits and one that doesn't: the last with a checkpoint that fits, and the first that doesn't."""
    while True:
        middle = (good + bad) // 2
        found = await store.find_checkpoint_between(connection, shard, good, middle, newest=True)
        found = found or await store.find_checkpoint_between(connection, shard, middle, bad - 1, newest=False)
        if found is None:
            return good, bad
        if await root_at(connection, shard, found.size) == found.root:
            good = found.size
        else:
            bad = found.size


async def root_at(connection: store.Connection, shard: int, size: int) -> bytes:
    """The root over the nodes that are stored, of the tree as it was at `size`; empty where some are missing."""
    hashes = await store.read_nodes(connection, shard, peaks(size))
    if len(hashes) != len(peaks(size)):
        return b""
    return root_of([hashes[node] for node in peaks(size)])
