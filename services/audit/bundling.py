"""What the worker of an export asks the API for, all of it under its grant: what goes into the bundle, and its seal."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from services._mesh.context import current
from services._mesh.errors import Denied, NotFound, Reason, Unavailable, WrongState, invalid_field
from services._mesh.ids import PLATFORM
from services._mesh.uow import Store, UnitOfWork
from services.audit import proving, store
from services.audit.checkpointer import Checkpointer
from services.audit.evidence_key import EvidenceKey
from services.audit.exports import get_evidence_export
from services.audit.model.events import Checkpoint, PayloadState, Proven, Recorded
from services.audit.model.evidence.documents import Contents, Counts, Head, Scope, digest, statement
from services.audit.model.evidence.export import EXPORT_EVIDENCE, MAX_EVENTS, OPEN_STATES, EvidenceState, Export
from services.audit.model.heads import PublishedHead
from services.audit.model.merkle import consistency_ranges, hash_ranges, inclusion_ranges, leaf_hash
from services.audit.model.shards import place_of, split
from services.audit.opener import Opener
from services.audit.proving import get_organization_head, prove_events, require_payloads
from services.audit.store import chain, exports

# What a page of events has at most, so that its answer stays below what a channel takes.
PAGE_EVENTS, PAGE_BYTES = 200, 3 * 1024 * 1024


async def granted(reader: Store) -> Export:
    """The export that the caller's grant is for. Raises Denied (GRANT_INVALID), NotFound."""
    grant = current().grant
    if grant is None or grant.kind != EXPORT_EVIDENCE:
        raise Denied(Reason.ERROR_REASON_GRANT_INVALID, "The grant isn't for an export of evidence.")
    return await get_evidence_export(reader, UUID(grant.subject))


@dataclass(frozen=True, slots=True)
class ShardPart:
    """A shard in a bundle: its head, and what opened it, where the bundle has to show that."""

    checkpoint: Checkpoint
    opening: Proven | None


@dataclass(frozen=True, slots=True)
class Beginning:
    """What a bundle goes up to: its shards, and the number of the organization's last event in its chain.

    `head` is the organization's newest published head with the event that published it; None while there is none.
    """

    shards: Sequence[ShardPart]
    chain_seq: int
    head: tuple[PublishedHead, Proven] | None


async def begin_evidence(reader: Store, opener: Opener, checkpointer: Checkpointer) -> Beginning:
    """Fix the heads of a bundle. Raises Unavailable (CHECKPOINT_PENDING), WrongState, Denied."""
    await granted(reader)
    # What the log has by now belongs in it. While nothing is signed, it goes as far as was signed last.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(proving.CHECKPOINT_WAIT_SECONDS):
            await checkpointer.catch_up()
    # Looked for first: the heads of the bundle then cover what is found.
    try:
        published, publication, _ = await get_organization_head(reader, opener, checkpointer)
    except NotFound:
        published, publication = None, None
    async with reader.read() as connection:
        newest = await store.find_checkpoint(connection)
        kept = await chain.list_kept(connection)
        first = await chain.find_chain_begin(connection, kept)
        end = None
        if newest is not None and first is not None:
            end = await chain.find_chain_end(connection, kept, place_of(newest.shard, newest.size))
        if newest is None or first is None or end is None:
            raise _pending("The organization has no event under a signed checkpoint yet.")
        if first[0] != 1:
            raise await _taken_out(connection, first[0])
        begins = split(first[1])[0]
        heads = await _heads(connection, begins, newest)
    # What a recovery found behind the last head that the log still has is vouched for by what follows it.
    if not any(place_of(each.shard, 0) <= end[1] < place_of(each.shard, each.size) for each in heads):
        raise _pending("No event of the organization is signed since the log was recovered.")
    if end[0] > MAX_EVENTS:
        raise WrongState(
            Reason.ERROR_REASON_STATE_WRONG,
            f"The organization has {end[0]:,} events; a bundle holds {MAX_EVENTS:,}, whatever its period."
            " Each event and each receipt is still proved by itself.",
            {"state": str(end[0]), "allowed": str(MAX_EVENTS)},
        )
    # The first event of a shard is the installation's own, and commits to the shard before.
    openings = [
        await _platform_event(reader, opener, place_of(head.shard, 0), head) if head.shard > begins else None
        for head in heads
    ]
    head = None
    if published is not None and publication is not None:
        under = [each for each in heads if each.shard == publication.event.shard]
        if under and published.organization_seq <= end[0]:
            head = published, await _platform_event(reader, opener, publication.event.place, under[0])
    return Beginning([ShardPart(*each) for each in zip(heads, openings, strict=True)], end[0], head)


async def _taken_out(connection: store.Connection, first: int) -> WrongState:
    """A chain without its beginning proves nothing: says where that is, and how to have it back."""
    gone = await chain.list_gone(connection)
    tables = ", ".join(f"audit.{name}_s{shard}" for shard, _ in gone for name in ("entries", "payloads"))
    return WrongState(
        Reason.ERROR_REASON_STATE_WRONG,
        f"The organization's events before its number {first} stand in {', '.join(origin for _, origin in gone)}, which"
        f" the operator took out of the log's database. Evidence needs them: have {tables} restored from the dump.",
        {"state": "detached", "allowed": "attached"},
    )


async def _heads(connection: store.Connection, first: int, newest: Checkpoint) -> list[Checkpoint]:
    """The last heads of the shards from `first` on; without those that a recovery gave up and left no head of."""
    heads = [newest]
    for shard in range(newest.shard - 1, first - 1, -1):
        closed = await store.find_checkpoint(connection, shard)
        if closed is not None:
            heads.append(closed)
        elif not await store.was_given_up(connection, shard):
            raise _pending(f"The last head of shard {shard} isn't signed.")
    return heads[::-1]


async def _platform_event(reader: Store, opener: Opener, place: int, head: Checkpoint) -> Proven:
    """An event of the installation itself, proven under one of a bundle's heads."""
    async with reader.read(PLATFORM) as connection:
        found = await chain.read_kept(connection, await chain.list_kept(connection), [place])
        ranges = inclusion_ranges(split(place)[1], head.size)
        hashes = await store.read_ranges(connection, head.shard, ranges)
    (event,) = await opener.open(found)
    return Proven(event, hash_ranges(ranges, hashes))


@dataclass(frozen=True, slots=True)
class ChainEvent:
    """A leaf of the organization; with its event where that is disclosed, marked where it was erased."""

    shard: int
    index: int
    leaf: bytes
    event: Recorded | None
    erased: bool


async def read_evidence_events(reader: Store, opener: Opener, after: int, through: int) -> list[ChainEvent]:
    """A page of the organization's chain, with the events that the export discloses. Raises NotFound, Denied."""
    export = await granted(reader)
    async with reader.read() as connection:
        kept = await chain.list_kept(connection)
        rows = await chain.read_chain(connection, kept, after, through, PAGE_EVENTS)
        wanted = [row.idx for row in rows if export.is_within(row.occurred_at, row.appended_at)]
        found = await chain.read_kept(connection, kept, wanted)
    if not rows:
        raise NotFound("event")
    disclosed = await opener.open(found)
    # Lost or changed isn't erased: a bundle that said so would cover it up.
    require_payloads([event for event in disclosed if event.state is not PayloadState.ERASED])
    return _page(export, rows, {event.place: event for event in disclosed})


def _page(export: Export, rows: Sequence[Any], found: Mapping[int, Recorded]) -> list[ChainEvent]:
    """As many leaves as fit into an answer, one at least."""
    page: list[ChainEvent] = []
    size = 0
    for row in rows:
        event = found.get(row.idx)
        erased = event is not None and event.state is PayloadState.ERASED
        if event is not None and not _covers(export.scope, event):
            event, erased = None, False
        size += len(row.leaf) + (len(event.payload) if event else 0) + 200
        if page and size > PAGE_BYTES:
            break
        page.append(ChainEvent(*split(row.idx), bytes(row.leaf), None if erased else event, erased))
    return page


def _covers(scope: Scope, event: Recorded) -> bool:
    """Whether a scope covers an event; of an erased one only the target is known."""
    if event.state is PayloadState.ERASED:
        return not (scope.actions or scope.targets) or scope.covers({"target": event.target})
    return scope.covers_payload(event.payload)


async def hash_evidence_ranges(reader: Store, shard: int, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """The hashes of leaf ranges, all of them under a signed head. Raises Invalid, NotFound, Denied."""
    await granted(reader)
    async with reader.read() as connection:
        head = await store.find_checkpoint(connection, shard)
        if head is None:
            raise NotFound("checkpoint")
        for begin, end in ranges:
            if not begin < end <= head.size:
                raise invalid_field("ends", f"must lie behind begins, and be at most {head.size}, the size of the head")
        return hash_ranges(ranges, await store.read_ranges(connection, shard, ranges))


async def seal_evidence(
    work: UnitOfWork,
    key: EvidenceKey,
    log: str,
    digests: dict[str, str],
    heads: Sequence[Head],
    ends_at: tuple[int, bytes],
    counts: Counts,
) -> bytes:
    """Sign the statement over a bundle, and leave the event that seals it. Returns manifest.json.

    What the worker says of the chain and of the heads is held against the log. Raises Denied, WrongState, Invalid.
    """
    grant = current().grant
    if grant is None or grant.kind != EXPORT_EVIDENCE:
        raise Denied(Reason.ERROR_REASON_GRANT_INVALID, "The grant isn't for an export of evidence.")
    export = await exports.get_export(work.connection, UUID(grant.subject), lock=True)
    if export.state not in OPEN_STATES:
        raise WrongState(
            Reason.ERROR_REASON_STATE_WRONG,
            f"An export that is {export.state} isn't sealed.",
            {"state": export.state, "allowed": EvidenceState.RUNNING},
        )
    seq, leaf = ends_at
    found = await chain.find_leaf(work.connection, seq)
    if found is None or leaf_hash(found[1]) != leaf:
        raise invalid_field("chain_leaf", "isn't the hash of the organization's leaf at chain_seq")
    newest = max(heads, key=lambda head: head.shard)
    if found[0] >= place_of(newest.shard, newest.size):
        raise invalid_field("heads", "don't cover the end of the chain")
    said = Contents(
        bundle_id=export.export_id,
        organization_id=export.organization_id,
        scope=export.scope,
        begins_at=export.begins_at,
        ends_at=export.ends_at,
        created_at=work.now,
        log=log,
        heads=sorted(heads, key=lambda head: head.shard),
        chain_seq=seq,
        chain_leaf=leaf,
        counts=counts,
        digests=digests,
    )
    payload = statement(said)
    metadata = {
        "statement_sha256": digest(payload),
        "events": str(counts.events),
        "disclosed": str(counts.disclosed),
        "receipts": str(counts.receipts),
        "scope": export.scope.text(),
    }
    event_id = work.emit("audit.evidence.seal", export.target, metadata)
    await exports.mark_export(work.connection, export.export_id, seal_event_id=event_id)
    return key.sign(payload)


@dataclass(frozen=True, slots=True)
class Sealed:
    """The event that sealed a bundle, proven under a head that continues the bundle's."""

    proven: Proven
    checkpoint: Checkpoint
    consistency: Sequence[bytes]


async def read_evidence_seal(
    reader: Store, opener: Opener, checkpointer: Checkpointer, shard: int, size: int
) -> Sealed:
    """The seal of the granted export. Raises Unavailable (CHECKPOINT_PENDING) until its event is under a head."""
    export = await granted(reader)
    if export.seal_event_id is None:
        raise NotFound("seal")
    try:
        (proven,), checkpoint = await prove_events(reader, opener, checkpointer, [export.seal_event_id])
    except NotFound:
        raise _pending("The event of the seal is on its way into the log.") from None
    consistency: list[bytes] = []
    if checkpoint.shard == shard and checkpoint.size > size:
        ranges = consistency_ranges(size, checkpoint.size)
        async with reader.read() as connection:
            consistency = hash_ranges(ranges, await store.read_ranges(connection, shard, ranges))
    return Sealed(proven, checkpoint, consistency)


def _pending(message: str) -> Unavailable:
    return Unavailable(Reason.ERROR_REASON_CHECKPOINT_PENDING, f"{message} Try again in a moment.", {"index": ""})
