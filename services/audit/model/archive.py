"""The archive of a shard: what its objects are called, what is copied next, and what reading them back must give. Pure.

The names are those of C2SP tlog-tiles below the shard's origin, bundles of entries included: an archive is a log that
other people's tools can read. What could still grow isn't in it: tiles that aren't full come with the closed shard.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote

from services.audit.model.merkle import Frontier, leaf_hash
from services.audit.model.shards import SHARD_SIZE
from services.audit.model.tiles import LEVEL_HEIGHT, WIDTH, Tile, bundle_name, tiles_of

# The events of an archive that was read back, and of a shard that was taken out of the database after it.
VERIFY, DETACH = "audit.archive.verify", "audit.shard.detach"
# So many leaves are copied at a time. While they are hashed, and synced to a disk that the log commits to as well,
# appends wait: with 8,192 of them that was a tenth of a second, each time.
BATCH_LEAVES = 4 * WIDTH


class ArchiveDiffers(Exception):
    """An object of the archive isn't what the log says; names it."""


@dataclass(frozen=True, slots=True)
class Archived:
    """How far a shard is copied. `size` leaves are; `complete` when nothing of the closed shard is missing."""

    shard: int
    location: str
    size: int = 0
    complete: bool = False
    verified_at: datetime | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard as the archive sees it: its origin, and its size once it is closed."""

    shard: int
    origin: str
    closed_size: int | None


@dataclass(frozen=True, slots=True)
class Batch:
    """Leaves from `start` to before `end`, and whether the shard's last ones are among them."""

    start: int
    end: int
    is_last: bool

    def tiles(self) -> Iterator[Tile]:
        """The tiles to write: what became full, and after the last leaf what never will."""
        for tile in tiles_of(self.end, self.start):
            if tile.width == WIDTH:
                yield tile
        if self.is_last:
            yield from (tile for tile in tiles_of(self.end) if tile.width < WIDTH)

    def leaf_tiles(self) -> list[Tile]:
        """The tiles of level 0 whose entries are in the batch: a bundle goes with each."""
        return [Tile(0, first // WIDTH, min(WIDTH, self.end - first)) for first in range(self.start, self.end, WIDTH)]


def next_batch(shard: Shard, archived: Archived, signed_size: int) -> Batch | None:
    """What is copied next, if anything: only what is under a signed checkpoint."""
    if archived.complete:
        return None
    start, closed = archived.size, shard.closed_size
    if closed is not None and signed_size >= closed:
        end = min(start + BATCH_LEAVES, closed)
        return Batch(start, end, end == closed)
    end = min(start + BATCH_LEAVES, signed_size // WIDTH * WIDTH)
    return Batch(start, end, False) if end > start else None


def prefix_of(origin: str) -> str:
    """The origin as a path that ends in a slash; what could mean something in a path is escaped."""
    segments = [quote(segment, safe="").replace("~", "%7E") for segment in origin.split("/")]
    return "".join(f"{segment.replace('.', '%2E') if not segment.strip('.') else segment}/" for segment in segments)


def tile_object(origin: str, tile: Tile) -> str:
    """What a tile is called in the archive."""
    return f"{prefix_of(origin)}tile/{tile.name()}"


def bundle_object(origin: str, tile: Tile) -> str:
    """What the bundle of the entries of a tile of level 0 is called in the archive."""
    return f"{prefix_of(origin)}tile/{bundle_name(tile)}"


def checkpoint_object(origin: str, size: int) -> str:
    """What the checkpoint of a size is called in the archive. C2SP has one name for the newest; these stay."""
    return f"{prefix_of(origin)}checkpoints/{size}"


def heads_of(origin: str) -> str:
    """Below what the checkpoints stand that are held outside, the newest first."""
    return f"{prefix_of(origin)}heads"


def head_object(origin: str, size: int) -> str:
    """What the checkpoint of a size is called there: by what is left of the shard, so that the last is listed first.

    Buckets list names in their order and no other way.
    """
    return f"{heads_of(origin)}/{SHARD_SIZE - size:013d}"


def is_of_note(kept: bytes, note: str) -> bool:
    """Whether a kept checkpoint is this note, or what it was before more witnesses signed it."""
    text, _, signatures = note.partition("\n\n")
    kept_text, _, kept_signatures = kept.decode(errors="replace").partition("\n\n")
    lines = kept_signatures.split("\n")
    return kept_text == text and len(lines) > 1 and set(lines) <= set(signatures.split("\n"))


class Rebuilding:
    """Rebuilds a tree from its entries, and says of each tile what it must hold."""

    def __init__(self) -> None:
        self._frontier = Frontier()
        self._levels: dict[int, list[bytes]] = {}
        self._done: dict[int, int] = {}

    def add(self, entry: bytes) -> Iterator[tuple[Tile, bytes]]:
        """Add an entry; gives the tiles that it made full, with their octets."""
        for height, _, digest in self._frontier.append(leaf_hash(entry)):
            if height % LEVEL_HEIGHT == 0:
                level = height // LEVEL_HEIGHT
                held = self._levels.setdefault(level, [])
                held.append(digest)
                if len(held) == WIDTH:
                    yield self._finished(level, held)

    def rest(self) -> Iterator[tuple[Tile, bytes]]:
        """The tiles that aren't full, with their octets: after the last entry."""
        for level, held in sorted(self._levels.items()):
            if held:
                yield Tile(level, self._done.get(level, 0), len(held)), b"".join(held)

    @property
    def size(self) -> int:
        """How many entries were added."""
        return self._frontier.size

    def root(self) -> bytes:
        """The root of the tree."""
        return self._frontier.root()

    def _finished(self, level: int, held: Sequence[bytes]) -> tuple[Tile, bytes]:
        index = self._done.get(level, 0)
        self._done[level] = index + 1
        self._levels[level] = []
        return Tile(level, index), b"".join(held)


def check_leaves(entries: Sequence[bytes], hashes: Sequence[bytes], first: int) -> None:
    """Raise ArchiveDiffers unless each entry hashes to its leaf's hash; names the first that doesn't."""
    for place, (entry, expected) in enumerate(zip(entries, hashes, strict=True)):
        if leaf_hash(entry) != expected:
            raise ArchiveDiffers(f"entry {first + place} of the log isn't what its hash says")
