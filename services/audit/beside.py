"""The part of the self-check about what stands beside the log: each is held against the log's own events.

What can't be told, because the event was detached with its shard or can't be opened, is no fault.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

import orjson

from services._mesh.database import Database
from services._mesh.ids import PLATFORM
from services.audit.model.archive import DETACH, VERIFY
from services.audit.model.beside import (
    ArchiveRow,
    Metadata,
    archive_faults,
    common_size,
    entry_fields,
    erased_key_faults,
    erased_keys,
    head_entry_faults,
    opening_faults,
    verified_faults,
)
from services.audit.model.entry_check import Content, Opened, PayloadRow
from services.audit.model.faults import Fault
from services.audit.model.heads import PUBLISH
from services.audit.model.leaf import commitment
from services.audit.model.openings import ACTION as OPEN
from services.audit.model.progress import Extent
from services.audit.model.shards import place_of, split
from services.audit.store import beside as store
from services.audit.store.checking import read_shards

ERASE = "audit.payload.erase"
_PAGE = 500

OpenPayloads = Callable[[UUID, Sequence[tuple[PayloadRow, UUID]]], Awaitable[Sequence[Content]]]
# The root of a shard's tree at a size, from its nodes.
RootAt = Callable[[int, int], Awaitable[bytes]]


class Beside:
    """`database` is the checker's role. Before the place `attached_from` entries were detached."""

    def __init__(self, database: Database, open_payloads: OpenPayloads, attached_from: int) -> None:
        self._database, self._open, self._attached_from = database, open_payloads, attached_from
        # All organizations' entries are of one publication, or of two while the next is kept.
        self._published: dict[UUID, tuple[int, Metadata] | None] = {}

    async def organization(self, organization_id: UUID, last: int) -> list[Fault]:
        """The faults of what is kept of an organization beside its events; `last` is the place of its last one."""
        return [*await self._head_entry(organization_id, last), *await self._erased_keys(organization_id, last)]

    async def _head_entry(self, organization_id: UUID, last: int) -> list[Fault]:
        async with self._database.scoped(organization_id, read_only=True) as connection:
            row = await store.find_head_entry(connection, organization_id)
            if row is None:
                return []
            seq = entry_fields(row.entry).get("org_seq")
            leaf = await store.find_leaf(connection, seq) if isinstance(seq, int) else None
        published = await self._publication(row.publish_event_id)
        if published is None:
            if await self._may_be_detached(row.publish_event_id):
                return []
            return [Fault(last, "head_entries.publish_event_id", "the log has no such publication")]
        if not published[1]:
            return []
        return list(head_entry_faults(row, organization_id, published[1], leaf, published[0]))

    async def _publication(self, event_id: UUID) -> tuple[int, Metadata] | None:
        if event_id not in self._published:
            if len(self._published) > 8:
                self._published.clear()
            self._published[event_id] = await self._said(event_id, PUBLISH)
        return self._published[event_id]

    async def _said(self, event_id: UUID, action: str, target: str = "") -> tuple[int, Metadata] | None:
        """The place and metadata of one of the installation's own events; None where there is no such event."""
        async with self._database.scoped(PLATFORM, read_only=True) as connection:
            found = await store.find_said(connection, event_id)
        if found is None or (found.producer, found.action, found.result) != ("audit", action, "OK"):
            return None
        if target and found.target != target:
            return None
        return found.place, (await self._metadata(PLATFORM, [found]))[0]

    async def _metadata(self, organization_id: UUID, said: Sequence[store.Said]) -> list[Metadata]:
        contents = await self._open(organization_id, [(each.payload, each.event_id) for each in said])
        return [_metadata_of(content, each.leaf) for content, each in zip(contents, said, strict=True)]

    async def _may_be_detached(self, event_id: UUID) -> bool:
        """Whether the log knows the event, in a shard whose entries were detached."""
        async with self._database.unscoped() as connection:
            place = await store.find_known_place(connection, event_id)
        return place is not None and place < self._attached_from

    async def _erased_keys(self, organization_id: UUID, last: int) -> list[Fault]:
        said: list[tuple[int, str, Metadata]] = []
        # The order matters: what is erased meanwhile is in what is read later.
        async with self._database.scoped(organization_id, read_only=True) as connection:
            rows = await store.list_erased_keys(connection)
            pending = await store.is_pending(connection, ERASE)
            found = await store.list_said(connection, ERASE, -1, _PAGE)
        if not rows and not found:
            return []
        while found:
            metadata = await self._metadata(organization_id, found)
            said += [(each.place, each.target, about) for each, about in zip(found, metadata, strict=True)]
            async with self._database.scoped(organization_id, read_only=True) as connection:
                found = await store.list_said(connection, ERASE, found[-1].place, _PAGE)
        async with self._database.scoped(organization_id, read_only=True) as connection:
            later = await store.list_erased_keys(connection)
        whole = not pending and not self._attached_from
        return list(erased_key_faults(rows, later, erased_keys(said), last, whole=whole))

    async def archive(self, root_at: RootAt) -> list[Fault]:
        """The faults of what is kept of the archive."""
        async with self._database.scoped(PLATFORM, read_only=True) as connection:
            rows = await store.list_archive(connection)
            pending = {action: await store.is_pending(connection, action) for action in (VERIFY, DETACH)}
            detached = {each.target: each for each in await store.list_said(connection, DETACH, -1, _PAGE)}
            shards = await read_shards(connection)
        known = {shard.shard: shard for shard in shards}
        end = shards[-1].head if shards else 0
        faults: list[Fault] = []
        for row in rows:
            shard = known.get(row.shard)
            if shard is None:
                faults.append(Fault(end, "archive.shard", f"there is no shard {row.shard}"))
                continue
            size = split(end)[1] if shard.closed_size is None else shard.closed_size
            place = place_of(row.shard, max(size - 1, 0))
            faults += archive_faults(row, shard.closed_size, size, place)
            if row.verified_event_id is not None and not pending[VERIFY]:
                faults += await self._verified(row, await root_at(row.shard, size), place)
            said = detached.pop(f"shards/{row.shard}", None)
            faults += await self._detached(row, said, place, pending=pending[DETACH])
        return faults + [
            Fault(end, "archive", f"the row of {target}, which was detached, is missing") for target in detached
        ]

    async def _verified(self, row: ArchiveRow, root: bytes, place: int) -> list[Fault]:
        assert row.verified_event_id is not None
        said = await self._said(row.verified_event_id, VERIFY, f"shards/{row.shard}")
        if said is not None:
            return list(verified_faults(row, root, said[1], place))
        if await self._may_be_detached(row.verified_event_id):
            return []
        return [Fault(place, "archive.verified_event_id", "the log has no such verification")]

    async def _detached(self, row: ArchiveRow, said: store.Said | None, place: int, *, pending: bool) -> list[Fault]:
        if (row.detached_at is None and said is None) or pending:
            return []
        if said is not None and row.detached_at is not None:
            at = (await self._metadata(PLATFORM, [said]))[0].get("detached_at")
            if at is None or at == row.detached_at.isoformat(timespec="microseconds"):
                return []
            return [Fault(place, "archive.detached_at", f"the event of it says {at}")]
        if said is not None:
            return [Fault(place, "archive.detached_at", "an event says that the shard was detached")]
        if self._attached_from > place_of(row.shard + 1, 0):
            return []  # The event may stand in a shard that was detached after it.
        return [Fault(place, "archive.detached_at", "no event says that the shard was detached")]

    async def opening(self, shard: Extent, root: bytes, sound: int) -> list[Fault]:
        """Where a closed shard isn't what the one after it was opened on; `sound` is its newest good size."""
        metadata = await self._opened_after(shard)
        return list(opening_faults(metadata, shard, root, sound)) if metadata else []

    async def common(self, shard: Extent) -> int:
        """Up to which size a shard is as it was signed, as the opening of a recovery says."""
        return common_size(await self._opened_after(shard), shard)

    async def _opened_after(self, shard: Extent) -> Metadata:
        """What the opening of the shard after a closed one says; nothing where that can't be told."""
        async with self._database.scoped(PLATFORM, read_only=True) as connection:
            first = await store.find_first_said(connection, place_of(shard.shard + 1, 0))
        if not shard.size or first is None or first.action != OPEN or split(first.place)[1]:
            return {}  # A shard that was lost has nothing, and the next one may wait for its opening.
        return (await self._metadata(PLATFORM, [first]))[0]


def _metadata_of(content: Content, leaf: bytes) -> Metadata:
    """What an event says; nothing where it isn't what its leaf commits to, which is found at the event itself."""
    if not isinstance(content, Opened):
        return {}
    try:
        metadata = orjson.loads(content.raw)["metadata"]
        if orjson.loads(leaf)["payload_commitment"] != commitment(content.raw, content.salt):
            return {}
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return {}
    return metadata if isinstance(metadata, dict) else {}
