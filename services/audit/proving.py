"""Proves events: that they stand in the log, under a head that was signed, or cosigned by as many as is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from services._mesh.clock import monotonic
from services._mesh.errors import NotFound, Reason, Unavailable, WrongState
from services._mesh.uow import PLATFORM, Store
from services.audit import store
from services.audit.checkpointer import Checkpointer
from services.audit.cosigners import Cosigners
from services.audit.model.cosigning import WitnessKey
from services.audit.model.events import Checkpoint, PayloadState, Proven, Recorded
from services.audit.model.heads import PublishedHead
from services.audit.model.manifest import find_policy
from services.audit.model.merkle import ProofInvalid, hash_ranges, inclusion_ranges, leaf_hash, verify_inclusion
from services.audit.model.visibility import EVERYTHING, is_visible
from services.audit.opener import Opener

CHECKPOINT_WAIT_SECONDS = 5.0
COSIGNED_WAIT_SECONDS = 3.0


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
    view: Collection[str] = EVERYTHING,
) -> tuple[list[Proven], Checkpoint]:
    """Events of the caller's organization, or of one, with proofs under the newest checkpoint, which covers them all.

    With a quorum it is the newest that so many witnesses cosigned. Waits a moment for the next one. Raises NotFound,
    also for what isn't within the view; Unavailable (CHECKPOINT_PENDING, which says how many have cosigned).
    """
    proofs, under = list[list[bytes]](), dict[int, Checkpoint]()
    async with reader.read(organization_id) as connection:
        events = await store.get_events(connection, event_ids)
        if not all(is_visible(event.action, view) for event in events):
            raise await store.no_event(connection)
        newest = max(events, key=lambda event: event.place)
        if not quorum and checkpointer.signed_place > newest.place:
            proofs, under = await _proofs(connection, events, {})
    if not under:
        await _signed(checkpointer, newest)
        heads = dict[int, Checkpoint]()
        if quorum and quorum.count:
            heads = {shard: await _cosigned(reader, event, quorum) for shard, event in _last(events).items()}
        async with reader.read(organization_id) as connection:
            proofs, under = await _proofs(connection, events, heads)
    opened = await opener.open(events)
    return [Proven(event, proof, under[event.shard]) for event, proof in zip(opened, proofs, strict=True)], under[
        newest.shard
    ]


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


async def _signed(checkpointer: Checkpointer, event: Recorded) -> None:
    """Wait until an event is under a checkpoint. Raises Unavailable (CHECKPOINT_PENDING)."""
    try:
        async with asyncio.timeout(CHECKPOINT_WAIT_SECONDS):
            await checkpointer.wait_for(event.place)
    except TimeoutError:
        raise Unavailable(
            Reason.ERROR_REASON_CHECKPOINT_PENDING,
            "The event isn't under a signed checkpoint yet. Try again in a moment.",
            {"index": str(event.index)},
        ) from None


def _last(events: Sequence[Recorded]) -> dict[int, Recorded]:
    """The last of the events in each shard: those of an earlier one are proven under the newest head of that one."""
    return {event.shard: event for event in sorted(events, key=lambda event: event.place)}


async def _proofs(
    connection: store.Connection, events: Sequence[Recorded], heads: Mapping[int, Checkpoint]
) -> tuple[list[list[bytes]], dict[int, Checkpoint]]:
    """The proof of each event, and the head of each shard that they are under: one that is given, or else the newest.

    Raises NotFound.
    """
    under = dict[int, Checkpoint]()
    for shard, event in _last(events).items():
        head = heads.get(shard) or await store.find_checkpoint(connection, shard, covering=event.index)
        if head is None:
            raise NotFound("checkpoint")
        under[shard] = head
    return [await _proof(connection, event, under[event.shard]) for event in events], under


async def _proof(connection: store.Connection, event: Recorded, head: Checkpoint) -> list[bytes]:
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
    return proof


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
