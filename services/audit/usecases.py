"""What the log does, one function a decision: append, read, prove, sign."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Protocol
from uuid import UUID

from services._mesh.clock import monotonic
from services._mesh.context import current
from services._mesh.errors import Denied, Invalid, NotFound, Reason, Unavailable, WrongState, invalid_field
from services._mesh.failpoints import reach
from services._mesh.uow import PLATFORM, Store
from services.audit import store
from services.audit.checkpointer import Checkpointer
from services.audit.cosigners import Cosigners
from services.audit.model.actors import ActorHash
from services.audit.model.alarms import Alarm, AlarmKind, Note, only_log
from services.audit.model.batch import Submission
from services.audit.model.canonical import MAX_INTEGER
from services.audit.model.cosigning import WitnessKey
from services.audit.model.events import Checkpoint, EventFilter, PayloadState, Position, Produced, Proven, Recorded
from services.audit.model.heads import PublishedHead
from services.audit.model.leaf import PayloadInvalid, parse_payload
from services.audit.model.manifest import find_policy
from services.audit.model.merkle import (
    ProofInvalid,
    consistency_ranges,
    hash_ranges,
    inclusion_ranges,
    leaf_hash,
    verify_inclusion,
)
from services.audit.model.notes import TreeHead
from services.audit.model.signing import Inconsistent, SignedHead, check_continues
from services.audit.model.tiles import ENTRIES, TileInvalid, parse_tile
from services.audit.model.visibility import is_visible, narrowed
from services.audit.opener import Opener
from services.audit.sequencer import Sequencer
from services.audit.signer_state import SignerState

# Which processes may append, each under its own prefix "<process>." and no other.
PRODUCERS = frozenset({"identity", "scanner", "pricing", "actions", "audit"})
MAX_SUMMARY = 10_000
CHECKPOINT_WAIT_SECONDS = 5.0
COSIGNED_WAIT_SECONDS = 3.0


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


@dataclass(frozen=True, slots=True)
class Quorum:
    """How many of which witnesses must have cosigned a checkpoint, and who asks them."""

    witnesses: Sequence[WitnessKey]
    count: int
    cosigners: Cosigners

    @classmethod
    def of(cls, manifest: str, cosigners: Cosigners) -> Quorum:
        """What the key manifest says."""
        return cls(*find_policy(manifest), cosigners)


async def prove_events(
    reader: Store,
    opener: Opener,
    checkpointer: Checkpointer,
    event_ids: Sequence[UUID],
    organization_id: UUID | None = None,
    quorum: Quorum | None = None,
) -> tuple[list[Proven], Checkpoint]:
    """Events of the caller's organization, or of one, with proofs under the newest checkpoint, which covers them all.

    With a quorum it is the newest that so many witnesses cosigned. Waits a moment for the next one. Raises NotFound,
    Unavailable (CHECKPOINT_PENDING, which says how many have cosigned).
    """
    async with reader.read(organization_id) as connection:
        found = await store.get_events(connection, event_ids)
    events = await opener.open(found)
    newest = max(events, key=lambda event: event.place)
    try:
        async with asyncio.timeout(CHECKPOINT_WAIT_SECONDS):
            await checkpointer.wait_for(newest.place)
    except TimeoutError:
        raise Unavailable(
            Reason.ERROR_REASON_CHECKPOINT_PENDING,
            "The event isn't under a signed checkpoint yet. Try again in a moment.",
            {"index": str(newest.index)},
        ) from None
    # An event of an earlier shard is proven under the newest head of that one.
    last = {event.shard: event for event in sorted(events, key=lambda event: event.place)}
    heads = dict[int, Checkpoint]()
    if quorum and quorum.count:
        heads = {shard: await _cosigned(reader, event, quorum) for shard, event in last.items()}
    async with reader.read(organization_id) as connection:
        for shard, event in last.items():
            head = heads.get(shard) or await store.find_checkpoint(connection, shard, covering=event.index)
            if head is None:
                raise NotFound("checkpoint")
            heads[shard] = head
        checkpoint = heads[newest.shard]
        return [await _prove(connection, event, heads[event.shard]) for event in events], checkpoint


async def _prove(connection: store.Connection, event: Recorded, head: Checkpoint) -> Proven:
    ranges = inclusion_ranges(event.index, head.size)
    try:
        proof = hash_ranges(ranges, await store.read_ranges(connection, head.shard, ranges))
        verify_inclusion(leaf_hash(event.leaf), event.index, head.size, proof, head.root)
    except (ProofInvalid, KeyError):
        raise WrongState(
            Reason.ERROR_REASON_LOG_INCONSISTENT,
            "The event isn't the one that was signed: it can't be proven.",
            {"size": str(head.size)},
        ) from None
    return Proven(event, proof, head)


def require_payloads(events: Sequence[Recorded]) -> None:
    """Raises WrongState (PAYLOAD_ERASED) where one of the events can't be disclosed any more."""
    for event in events:
        if event.state is not PayloadState.PRESENT:
            raise WrongState(
                Reason.ERROR_REASON_PAYLOAD_ERASED,
                "An event's payload was erased, or can't be read: only what was issued before still proves it.",
                {"event_id": str(event.event_id), "payload_state": event.state},
            )


async def get_organization_head(
    reader: Store, opener: Opener, checkpointer: Checkpointer
) -> tuple[PublishedHead, Proven, Checkpoint]:
    """The caller's organization's newest published head, and the event that published its root, proven.

    Raises NotFound while none was published, Unavailable (CHECKPOINT_PENDING).
    """
    async with reader.read() as connection:
        head = await store.find_head_entry(connection)
    if head is None:
        raise NotFound("head", "No head of this organization was published yet. Try again in a minute.")
    (publication,), checkpoint = await prove_events(reader, opener, checkpointer, [head.publish_event_id], PLATFORM)
    return head, publication, checkpoint


async def _cosigned(reader: Store, event: Recorded, quorum: Quorum) -> Checkpoint:
    """The newest checkpoint over an event that the quorum cosigned. Raises Unavailable (CHECKPOINT_PENDING)."""
    witnesses = [witness.text() for witness in quorum.witnesses]
    deadline = monotonic() + COSIGNED_WAIT_SECONDS
    while True:
        # Whoever is to wake us is listened to before we look, so that nothing is missed in between.
        woken = asyncio.ensure_future(quorum.cosigners.wait())
        try:
            async with reader.read() as connection:
                found = await store.find_cosigned(connection, event.shard, event.index, witnesses, quorum.count)
                if found is not None:
                    return found
                count = await store.count_cosigned(connection, event.shard, event.index, witnesses)
            await asyncio.wait_for(woken, deadline - monotonic())
        except TimeoutError:
            raise Unavailable(
                Reason.ERROR_REASON_CHECKPOINT_PENDING,
                f"{count} of {quorum.count} witnesses have cosigned the event's checkpoint. Try again in a moment.",
                {"index": str(event.index), "cosigned": str(count), "quorum": str(quorum.count)},
            ) from None
        finally:
            woken.cancel()


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


class NoteSigner(Protocol):
    """Whatever signs a checkpoint's text: one key, or the log's keys as a manifest lists them."""

    def sign(self, body: str, /) -> str:
        """The signed note."""


def sign_checkpoint(
    signer: NoteSigner, state: SignerState, origin: str, size: int, root: bytes, from_size: int, proof: Sequence[bytes]
) -> str:
    """Sign a head that continues the last one signed; remembered before the signature is given out.

    Raises WrongState (LOG_INCONSISTENT), which says exactly where.
    """
    try:
        check_continues(state.head, size, root, from_size, proof)
    except Inconsistent as error:
        raise WrongState(
            Reason.ERROR_REASON_LOG_INCONSISTENT,
            f"Not signed: {error}.",
            {"signed_size": str(state.head.size), "size": str(size)},
        ) from error
    if size == state.head.size and state.head.note:
        return state.head.note
    note = signer.sign(TreeHead(origin, size, root).text())
    reach("sign.signed")
    state.remember(SignedHead(size, root, note))
    reach("sign.remembered")
    return note
