"""That the heads of a bundle are one log: each shard continues the one before, or a recovery says what was lost. Pure.

The rules are the verifier's (verifier/FORMAT.md), read anew, so that what it would disprove is found before the seal.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import orjson

from services.audit.model.evidence.gathered import Beginning, ShardHead
from services.audit.model.manifest import LOG, Manifest
from services.audit.model.note_check import read_stored_note
from services.audit.model.notes import Note, NoteInvalid, TreeHead, VerifierKey
from services.audit.model.openings import RECOVERY, check_opening
from services.audit.model.shards import origin_of, shard_of
from services.audit.model.signing import Inconsistent, Opening, SignedHead

# A shard, and an index in it.
Place = tuple[int, int]


def find_tails(beginning: Beginning) -> list[tuple[Place, Place]]:
    """Where leaves may stand that no signed head is left of: from a place to before another, for each recovery.

    Raises Inconsistent unless the heads are signed and each continues the one before.
    """
    manifest = _manifest(beginning.key_manifest)
    if manifest is not None:
        for each in beginning.shards:
            _check_signed(beginning.log, each, manifest)
    root, shards = manifest.root if manifest else None, beginning.shards
    found = [_tail(beginning.log, None, shards[0], root)] if shards[0].opening else []
    return [tail for tail in (*found, *(_tail(beginning.log, *pair, root) for pair in pairwise(shards))) if tail]


def _manifest(note: str) -> Manifest | None:
    """The key manifest; None for a first version's, which lists neither a root nor the log's keys."""
    try:
        return Manifest.parse(Note.parse(note).text)
    except NoteInvalid:
        return None


def _check_signed(name: str, head: ShardHead, manifest: Manifest) -> None:
    try:
        signed = read_stored_note(head.note, manifest.of(LOG), head.shard)
    except NoteInvalid as error:
        raise Inconsistent(f"the head of shard {head.shard}: {error}") from error
    if signed != TreeHead(origin_of(name, head.shard), head.size, head.root):
        raise Inconsistent(f"the head of shard {head.shard} isn't what was signed")


def _tail(
    name: str, earlier: ShardHead | None, later: ShardHead, root: VerifierKey | None
) -> tuple[Place, Place] | None:
    said = later.opening
    if said is None:
        raise Inconsistent(f"the bundle doesn't show what opened shard {later.shard}")
    opening = Opening(said.leaf, said.payload, said.salt, said.hashes)
    metadata = orjson.loads(said.payload).get("metadata", {})
    if metadata.get("kind") != RECOVERY:
        if earlier is None or earlier.shard + 1 != later.shard:
            raise Inconsistent(f"shard {later.shard} doesn't follow the one before it in the bundle")
        previous = SignedHead(earlier.size, earlier.root, earlier.note)
        check_opening(name, later.shard, previous, later.size, later.root, opening, root)
        return None
    check_opening(name, later.shard, _lost(name, later.shard, metadata), later.size, later.root, opening, root)
    old = shard_of(name, str(metadata.get("restored_origin", origin_of(name, later.shard - 1))))
    start, end = (earlier.shard, earlier.size) if earlier else (0, 0), (old or 0, int(metadata["restored_size"]))
    if start > (end[0], int(metadata.get("common_size", end[1]))):
        raise Inconsistent(f"shard {later.shard} was opened after less than was signed of shard {start[0]}")
    return start, end


def _lost(name: str, shard: int, metadata: Any) -> SignedHead:
    """The head that was signed last before a recovery, and that the log hasn't any more."""
    try:
        size, root = int(metadata["previous_size"]), bytes.fromhex(metadata["previous_root"])
    except (KeyError, TypeError, ValueError):
        raise Inconsistent(f"the recovery that opened shard {shard} doesn't say what was signed last") from None
    # The note itself is lost with it; its text follows from what is known.
    return SignedHead(size, root, TreeHead(origin_of(name, shard - 1), size, root).text().removesuffix("\n"))
