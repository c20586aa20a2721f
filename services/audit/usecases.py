"""What the log does, one function a decision: append, read, prove, sign."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import replace
from uuid import UUID

from services._mesh.context import current
from services._mesh.errors import Denied, Invalid, NotFound, Reason, invalid_field
from services._mesh.uow import Store
from services.audit import store
from services.audit.model.actors import ActorHash
from services.audit.model.alarms import Alarm, AlarmKind, Note, only_log
from services.audit.model.batch import Submission
from services.audit.model.canonical import MAX_INTEGER
from services.audit.model.events import Checkpoint, EventFilter, Position, Produced, Recorded
from services.audit.model.leaf import PayloadInvalid, parse_payload
from services.audit.model.merkle import (
    consistency_ranges,
    hash_ranges,
)
from services.audit.model.tiles import ENTRIES, TileInvalid, parse_tile
from services.audit.model.visibility import is_visible, narrowed
from services.audit.opener import Opener
from services.audit.sequencer import Sequencer

# Which processes may append, each under its own prefix "<process>." and no other.
PRODUCERS = frozenset({"identity", "scanner", "pricing", "actions", "audit"})
MAX_SUMMARY = 10_000


async def append_events(
    sequencer: Sequencer, producer: str, events: Sequence[Produced], note: Note = only_log
) -> list[int]:
    """Append a producer's events, all or none; their places once they are durable. What isn't its own is alarmed.

    Raises Denied (EVENT_PREFIX_NOT_OWNED), Invalid (FIELD_INVALID), or what the sequencer raises.
    """
    return await sequencer.append([_submission(sequencer, producer, event, note) for event in events])


def _submission(sequencer: Sequencer, producer: str, event: Produced, note: Note) -> Submission:
    if event.producer_counter > MAX_INTEGER:
        raise invalid_field("events.producer_counter", f"must be at most {MAX_INTEGER}.")
    try:
        payload = parse_payload(event.payload, event.event_id, event.organization_id, sequencer.digest)
    except PayloadInvalid as error:
        raise invalid_field("events.payload", f"{error}.") from error
    if producer not in PRODUCERS or not payload.action.startswith(f"{producer}."):
        metadata = {"producer": producer, "action": payload.action, "event_id": str(event.event_id)}
        # One alarm for each action that a producer tries its hand at, however often it does.
        once = f"{producer} {payload.action}"
        note(Alarm(AlarmKind.PREFIX_NOT_OWNED, event.organization_id, metadata, once))
        raise _not_owned(producer, payload.action)
    return Submission(event.event_id, event.organization_id, producer, event.producer_counter, payload)


def _not_owned(producer: str, action: str) -> Denied:
    return Denied(
        Reason.ERROR_REASON_EVENT_PREFIX_NOT_OWNED,
        f"{producer} may not append events of {action}.",
        {"producer": producer, "action": action},
    )


async def used_counters(
    reader: Store, organization_id: UUID, counters: Sequence[tuple[str, int]]
) -> set[tuple[str, int]]:
    """Which (producer, counter) of an organization fill no gap of the log. Raises Problem."""
    async with reader.read(organization_id) as connection:
        return await store.find_used_counters(connection, counters)


async def summarize_producer(
    reader: Store, organization_id: UUID, producer: str, first: int, last: int
) -> tuple[list[UUID], bytes, int]:
    """The ids of a producer's events between two counters, their digest (SHA-256 over the sorted ids), and the place
    before which events were detached with their shards.
    """
    if not first <= last <= first + MAX_SUMMARY:
        raise Invalid(
            Reason.ERROR_REASON_FIELD_INVALID, f"to_counter must be at most {MAX_SUMMARY} more than from_counter."
        )
    async with reader.read(organization_id) as connection:
        before = await store.read_detached_before(connection)
        ids = await store.summarize(connection, producer, first, last)
    return ids, hashlib.sha256(b"".join(sorted(event_id.bytes for event_id in ids))).digest(), before


async def get_event(reader: Store, opener: Opener, event_id: UUID, view: Collection[str]) -> Recorded:
    """One event of the caller's organization that is within its view. Raises NotFound."""
    async with reader.read() as connection:
        found = await store.get_event(connection, event_id)
        if not is_visible(found.action, view):
            raise await store.no_event(connection)
    return (await opener.open([found]))[0]


async def list_events(
    reader: Store,
    opener: Opener,
    chosen: EventFilter,
    hashed: ActorHash,
    view: Collection[str],
    after: Position | None,
    limit: int,
) -> list[Recorded]:
    """Events of the caller's organization in its view, newest first; one more than `limit` says that there are more.

    Raises Invalid for times that exclude everything.
    """
    begins, ends = chosen.occurred_after, chosen.occurred_before
    if begins is not None and ends is not None and begins >= ends:
        raise invalid_field("occurred_before", "must be later than occurred_after")
    actions = narrowed(chosen.action, view)
    actor_hash = hashed(current().organization(), chosen.actor) if chosen.actor else None
    async with reader.read() as connection:
        found = await store.list_events(connection, chosen, actions, actor_hash, after, limit + 1)
    return await opener.open(found)


async def get_checkpoint(reader: Store, shard: int | None = None) -> Checkpoint:
    """The newest signed head of a shard, or of the newest shard that has one. Raises NotFound."""
    async with reader.read() as connection:
        return await _signed_head(connection, shard)


async def get_consistency_proof(reader: Store, from_size: int, to_size: int, shard: int | None = None) -> list[bytes]:
    """The proof that a shard's tree of `to_size` continues that of `from_size`. Raises Invalid, NotFound."""
    if from_size > to_size:
        raise Invalid(Reason.ERROR_REASON_FIELD_INVALID, "from_size must not be larger than to_size.")
    async with reader.read() as connection:
        newest = await store.find_checkpoint(connection, shard)
        if newest is None or to_size > newest.size:
            raise NotFound("checkpoint", "The log isn't that large under any signed checkpoint.")
        ranges = consistency_ranges(from_size, to_size)
        return hash_ranges(ranges, await store.read_ranges(connection, newest.shard, ranges))


async def get_log_checkpoint(reader: Store, shard: int | None) -> Checkpoint:
    """The newest signed head of a shard, or of the newest shard that has one. Raises NotFound."""
    async with reader.read() as connection:
        return await store.with_lines(connection, await _signed_head(connection, shard))


async def get_log_tile(reader: Store, shard: int | None, name: str) -> bytes:
    """The hashes of a tile, all of them under a signed checkpoint. Raises Invalid, NotFound."""
    if name == ENTRIES or name.startswith(f"{ENTRIES}/"):
        raise NotFound("entry bundle", "Bundles of entries aren't served: leaves are in their organization's exports.")
    try:
        tile = parse_tile(name)
    except TileInvalid as error:
        raise invalid_field("tile", f"{error}.") from error
    async with reader.read() as connection:
        head = await _signed_head(connection, shard)
        there = tile.available(head.size)
        if there < tile.width:
            has = f"has {there} of its hashes: {replace(tile, width=there).name()}" if there else "doesn't have it"
            raise NotFound("tile", f"The tree of size {head.size}, signed last, {has}.")
        hashes = await store.read_tile(connection, head.shard, tile)
    if len(hashes) != tile.width:
        raise LookupError(f"shard {head.shard}: {len(hashes)} hashes of tile {name} are left under size {head.size}")
    return b"".join(hashes)


async def _signed_head(connection: store.Connection, shard: int | None) -> Checkpoint:
    found = await store.find_checkpoint(connection, shard)
    if found is None:
        raise NotFound(
            "checkpoint", "Nothing is signed yet." if shard is None else f"Nothing of shard {shard} is signed."
        )
    return found
