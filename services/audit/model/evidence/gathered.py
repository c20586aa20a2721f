"""What the worker gets for a bundle, as its writer takes it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.audit.model.evidence.documents import Head, ProvenLeaf

# The grant of the lease as it is now: it is renewed while the work goes on.
Grant = Callable[[], str]


@dataclass(frozen=True, slots=True)
class ShardHead:
    """A shard's head in a bundle, as a signed note; and the event that opened the shard, where the bundle shows it."""

    shard: int
    size: int
    root: bytes
    note: str
    opening: ProvenLeaf | None = None


@dataclass(frozen=True, slots=True)
class Beginning:
    """What a bundle goes up to. `head` is the organization's newest published head: entry, path, position, event."""

    log: str
    shards: Sequence[ShardHead]
    chain_seq: int
    head: Mapping[str, Any] | None
    key_manifest: str

    @property
    def heads(self) -> list[Head]:
        """The heads as the statement has them."""
        return [Head(each.shard, each.size) for each in self.shards]


@dataclass(frozen=True, slots=True)
class ChainLeaf:
    """A leaf of the organization's chain; payload and salt where it is disclosed."""

    shard: int
    index: int
    leaf: bytes
    disclosed: tuple[bytes, bytes] | None
    erased: bool


@dataclass(frozen=True, slots=True)
class ReceiptLine:
    """A receipt as the summary shows it, and the events that prove it."""

    summary: dict[str, Any]
    event_ids: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Where the chain ends in a bundle, and how much it holds."""

    chain_seq: int
    chain_leaf: bytes
    disclosed: int
    erased: int
    receipts: int


@dataclass(frozen=True, slots=True)
class Seal:
    """A bundle's seal: its event under a later head, and the proof that this head continues the bundle's."""

    event: ProvenLeaf
    consistency: Sequence[bytes]
    key_manifest: str
