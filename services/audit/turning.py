"""What a turn of shards needs besides the sequencer: the old one's last signed head, and the event that opens the new.

The event stands in the log's own outbox like every other of its events, but the sequencer appends it before all that
waits: it is the new shard's first leaf. A turn that was cut short finds it there again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from services._mesh.uow import PLATFORM, Store
from services.audit import store as sql
from services.audit.model.events import Produced
from services.audit.model.openings import ACTION, RECOVERY, YEARLY, opening_metadata
from services.audit.model.signing import Opening, SignedHead
from services.audit.opener import Opener

# Has the last head of a closed shard signed.
SignLast = Callable[[int], Awaitable[SignedHead]]


class Turning:
    """Opens shards of the log `name`. `store` writes audit's outbox."""

    def __init__(self, store: Store, name: str, sign_last: SignLast) -> None:
        self._store, self._name, self._sign_last = store, name, sign_last

    async def opening(self, shard: int, kind: str) -> Produced:
        """The event that opens `shard`. Raises Problem while the shard before it can't be signed."""
        found = await self._find(shard)
        if found is not None:
            return found
        if kind == RECOVERY:
            raise RuntimeError(f"shard {shard} is a recovery whose event is missing: finish services.audit.recover")
        previous = await self._sign_last(shard - 1)
        metadata = opening_metadata(self._name, shard, YEARLY, previous)
        async with self._store.begin(PLATFORM) as work:
            work.emit(ACTION, f"log/{metadata['origin']}", metadata)
        made = await self._find(shard)
        if made is None:
            raise RuntimeError(f"the event that opens shard {shard} isn't in the outbox")
        return made

    async def _find(self, shard: int) -> Produced | None:
        async with self._store.read(PLATFORM) as connection:
            return await sql.find_opening(connection, shard)


async def shown(store: Store, opener: Opener, shard: int, proof: Sequence[bytes]) -> Opening:
    """The first leaf of a shard, for the signer. Raises Problem while payloads can't be opened."""
    async with store.read(PLATFORM) as connection:
        found = await sql.get_first(connection, shard)
    (first,) = await opener.open([found])
    return Opening(first.leaf, first.payload, first.salt, proof)
