"""Holds what stands beside the log against what its own events say: published heads, erased keys, the archive. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import orjson

from services.audit.model.faults import Fault
from services.audit.model.merkle import leaf_hash, node_hash
from services.audit.model.openings import RECOVERY
from services.audit.model.progress import Extent
from services.audit.model.shards import place_of
from services.audit.model.tiles import WIDTH

Metadata = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class HeadEntryRow:
    """A row of audit.head_entries."""

    organization_id: UUID
    publish_event_id: UUID
    position: int
    entry: bytes
    path: Sequence[bytes]
    organization_seq: int


@dataclass(frozen=True, slots=True)
class ArchiveRow:
    """A row of audit.archive."""

    shard: int
    location: str
    size: int
    complete: bool
    verified_size: int | None
    verified_root: bytes | None
    verified_at: datetime | None
    verified_event_id: UUID | None
    problem: str
    detached_at: datetime | None


@dataclass(frozen=True, slots=True)
class ErasedBy:
    """The erasure that an event says destroyed a key, and the event's place."""

    erasure_id: UUID
    place: int


def entry_fields(entry: bytes) -> Mapping[str, object]:
    """What an entry of the heads' tree says; nothing where it is none."""
    try:
        fields = orjson.loads(entry)
    except orjson.JSONDecodeError:
        return {}
    return fields if isinstance(fields, dict) else {}


def head_entry_faults(
    row: HeadEntryRow, organization_id: UUID, published: Metadata, leaf: bytes | None, place: int
) -> Iterator[Fault]:
    """The faults of an organization's published head. `leaf` is the one that the entry is about, None where it isn't
    there; `place` where the publication stands.
    """
    fields = entry_fields(row.entry)
    if str(row.organization_id) != fields.get("organization_id") or row.organization_id != organization_id:
        yield Fault(place, "head_entries.organization_id", "the entry says otherwise")
    if leaf is not None and fields.get("leaf") != leaf_hash(leaf).hex():
        yield Fault(place, "head_entries.entry", "the organization's chain has another leaf there")
    elif row.organization_seq != fields.get("org_seq"):
        yield Fault(place, "head_entries.organization_seq", "the entry says otherwise")
    if published.get("size") != str(1 << len(row.path)) or row.position >> len(row.path):
        yield Fault(place, "head_entries.position", f"the tree that was published has {published.get('size')} entries")
        return
    digest = leaf_hash(row.entry)
    for height, sibling in enumerate(row.path):
        left = row.position >> height & 1 == 0
        digest = node_hash(digest, sibling) if left else node_hash(sibling, digest)
    if digest.hex() != published.get("root"):
        yield Fault(place, "head_entries", "entry, position and path don't give the root that was published")


def erased_keys(said: Sequence[tuple[int, str, Metadata]]) -> dict[UUID, ErasedBy]:
    """The keys that events say were destroyed, given as (place, target, metadata) in the order of their places.

    What can't be read was changed, which is found at the event itself.
    """
    found: dict[UUID, ErasedBy] = {}
    for place, target, metadata in said:
        try:
            erasure_id = UUID(target.removeprefix("erasures/"))
            key_ids = [UUID(each) for each in metadata.get("key_ids", "").split(",") if each]
        except (ValueError, AttributeError):
            continue
        for key_id in key_ids:
            found.setdefault(key_id, ErasedBy(erasure_id, place))
    return found


def erased_key_faults(
    rows: Mapping[UUID, UUID], rows_later: Mapping[UUID, UUID], said: Mapping[UUID, ErasedBy], last: int, *, whole: bool
) -> Iterator[Fault]:
    """Where the list of erased keys isn't what events say. `whole` is false where some of those can't be read.

    `rows` were read before the events, and `rows_later` after them: what is erased meanwhile is no fault.
    """
    for key_id, by in said.items():
        if key_id not in rows_later:
            yield Fault(by.place, "erased_keys", f"the row of key {key_id} is missing")
        elif rows_later[key_id] != by.erasure_id:
            yield Fault(by.place, "erased_keys.erasure_id", f"an event says that {by.erasure_id} destroyed {key_id}")
    for key_id in rows if whole else ():
        if key_id not in said:
            yield Fault(last, "erased_keys.key_id", f"no event says that {key_id} was destroyed")


def archive_faults(row: ArchiveRow, closed: int | None, size: int, place: int) -> Iterator[Fault]:
    """Where a row of the archive contradicts its shard, of which `size` leaves are there, or itself."""
    if row.size > size or (closed is None and row.size % WIDTH):
        yield Fault(place, "archive.size", f"it says {row.size} of {size} leaves")
    if row.complete and row.size != closed:
        yield Fault(place, "archive.size", f"it says {row.size}, and that this is the whole shard")
    verified = {
        "verified_size": row.verified_size,
        "verified_root": row.verified_root,
        "verified_at": row.verified_at,
        "verified_event_id": row.verified_event_id,
    }
    bare = [name for name, value in verified.items() if value is None]
    if 0 < len(bare) < len(verified):
        odd = bare if len(bare) == 1 else [name for name in verified if name not in bare]
        yield Fault(place, f"archive.{odd[0]}", "it says otherwise than the others of verified_…")
    if not bare and row.verified_size != closed:
        yield Fault(place, "archive.verified_size", f"it says {row.verified_size}, the shard was closed at {closed}")
    if not bare and not row.complete:
        yield Fault(place, "archive.complete", "what isn't complete can't have been read back")
    if not bare and row.problem:
        yield Fault(place, "archive.problem", "what was read back without one has a problem")


def verified_faults(row: ArchiveRow, root: bytes, said: Metadata, place: int) -> Iterator[Fault]:
    """Where it isn't what the event of the verification says, and the tree. Older events don't say when it was."""
    expected = {
        "verified_size": (str(row.verified_size), said.get("size")),
        "location": (row.location, said.get("location")),
        "verified_at": (row.verified_at and row.verified_at.isoformat(), said.get("verified_at")),
    }
    if row.verified_root != root:
        yield Fault(place, "archive.verified_root", "it isn't the shard's root")
    for column, (has, says) in expected.items():
        if says is not None and has != says:
            yield Fault(place, f"archive.{column}", f"the event of the verification says {says}")


def common_size(said: Metadata, shard: Extent) -> int:
    """Up to which size a shard is as it was signed: what a recovery gave up of it isn't held against what was."""
    common = str(said.get("common_size", ""))
    if said.get("kind") != RECOVERY or said.get("restored_origin") != shard.origin or not common.isdecimal():
        return shard.size
    return min(int(common), shard.size)


def opening_faults(said: Metadata, shard: Extent, root: bytes, sound: int) -> Iterator[Fault]:
    """Where a closed shard isn't what the opening of the one after it says. `sound` is its newest size that agreed.

    A recovery follows what was signed, and says at what size the database was restored. An opening that is about
    another shard says nothing about this one: that of the next was lost, or detached.
    """
    recovered = said.get("kind") == RECOVERY
    if said.get("restored_origin", said.get("previous_origin")) != shard.origin:
        return
    size, place = said.get("restored_size" if recovered else "previous_size", ""), place_of(shard.shard, 0)
    if size != str(shard.size):
        at = place + min(shard.size, int(size) if size.isdecimal() else shard.size)
        yield Fault(at, "shards.closed_size", f"it says {shard.size}, but {said.get('origin')} was opened after {size}")
    elif not recovered and said.get("previous_root") != root.hex():
        what = f"leaves from here to index {shard.size - 1} aren't those that {said.get('origin')} follows"
        yield Fault(place + sound, "nodes", what)
