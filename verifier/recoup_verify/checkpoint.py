"""Checks checkpoints: whose a tree head is, and whether the log of one continues that of another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from recoup_verify.documents import CannotTell, read_file, read_json, shape, shaped
from recoup_verify.log import Head, Key, Trust, verified_head
from recoup_verify.tree import MAX_HASHES, check_consistency, read_hashes

MAX_BYTES = 64 << 10
_ANSWER = shape(lists="proof")


def check_checkpoint(raw: bytes, key: Key | Trust, what: str = "the checkpoint") -> Head:
    """The tree head in a signed note. Raises Disproved, CannotTell."""
    note = raw.decode("utf-8", "replace")
    if len(raw) > MAX_BYTES or "\n\n" not in note or note.encode() != raw:
        raise CannotTell(f"{what} isn't a signed note")
    return verified_head(note, key, what)


def check_continued(old: bytes, new: bytes, proof: bytes | None, key: Key | Trust) -> tuple[Head, Head]:
    """Two heads of one log, of which NEW continues OLD; no `proof` is needed where both have one size."""
    before, after = check_checkpoint(old, key, "OLD"), check_checkpoint(new, key, "NEW")
    if before.origin != after.origin:
        raise CannotTell(
            f"{before.origin} and {after.origin} are two trees, and no proof leads from one to the other: a later"
            " shard's first leaf commits to the last checkpoint of the one before, which evidence bundles hold"
        )
    if before.size > after.size:
        raise CannotTell(f"OLD has {before.size} leaves and NEW has {after.size}: give the smaller one first")
    if proof is None and before.size < after.size:
        where = f"…/log/consistency?from_size={before.size}&to_size={after.size}"
        raise CannotTell(f"a proof is needed: ask the gateway at {where}, and give its answer with --proof")
    check_consistency((before.size, before.root), (after.size, after.root), _hashes(proof) if proof else [])
    return before, after


def _hashes(raw: bytes) -> list[bytes]:
    """A consistency proof: the gateway's JSON answer, or base64, one a line. Raises Disproved, CannotTell."""
    found: Sequence[Any] = raw.decode("ascii", "replace").splitlines()
    if raw.lstrip()[:1] == b"{":
        answer = read_json(raw)
        found = shaped(answer, "the proof", _ANSWER)["proof"] if answer else []
    if len(found) > MAX_HASHES:
        raise CannotTell(f"the proof must be a list of at most {MAX_HASHES} hashes")
    return read_hashes(found)


def told(files: Sequence[str], trust: Trust) -> tuple[list[str], dict[str, Any]]:
    """What is proved of a checkpoint, in words and as facts. Raises Disproved, CannotTell."""
    head = check_checkpoint(read_file(files[0], MAX_BYTES), trust)
    lines = [
        f"PROVED: the log {head.origin} signed this head of its tree.",
        f"  size       {head.size} leaves",
        f"  root       {head.root.hex()}",
        f"Not proved: that everybody is shown the same head: {head.countersigned}; nor that it is the newest one.",
    ]
    return lines, head.facts


def continued_told(files: Sequence[str], trust: Trust) -> tuple[list[str], dict[str, Any]]:
    """What is proved of two checkpoints (and their proof), in words and as facts. Raises Disproved, CannotTell."""
    raw = [read_file(file, MAX_BYTES) for file in files]
    old, new = check_continued(raw[0], raw[1], raw[2] if raw[2:] else None, trust)
    lines = [
        f"PROVED: NEW {'is the same tree as' if old.size == new.size else 'continues'} OLD in the log {new.origin}.",
        f"  old        {old.size} leaves, root {old.root.hex()}",
        f"  new        {new.size} leaves, root {new.root.hex()}",
        f"  kept       all {old.size} leaves of OLD stand in NEW, unchanged and at their places",
        "Not proved: what the leaves say, nor that everybody is shown these heads.",
    ]
    return lines, {"old": old.facts, "new": new.facts}
