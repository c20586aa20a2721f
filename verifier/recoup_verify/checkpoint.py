"""Checks checkpoints: whose a tree head is, and whether the log of one continues that of another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from recoup_verify.documents import CannotTell, Disproved, Reader, decode, fields, read_json
from recoup_verify.log import Head, Key, Trust, countersigned, verified_head
from recoup_verify.tree import MAX_HASHES, check_consistency

MAX_BYTES = 64 << 10
_LEADS = "ask the gateway at …/log/consistency?from_size={}&to_size={}, and give its answer with --proof"


class Continued(NamedTuple):
    """Two tree heads of one log, of which the second continues the first."""

    old: Head
    new: Head


def check_checkpoint(raw: bytes, key: Key | Trust, what: str = "the checkpoint") -> Head:
    """The tree head in a signed note. Raises Disproved, CannotTell."""
    try:
        note = raw.decode("utf-8")
    except UnicodeDecodeError:
        note = ""
    if len(raw) > MAX_BYTES or "\n\n" not in note:
        raise CannotTell(f"{what} isn't a signed note")
    return verified_head(note, key, what)


def check_continued(old: bytes, new: bytes, proof: bytes | None, key: Key | Trust) -> Continued:
    """Whether the tree head NEW continues OLD; `proof` isn't needed where both have one size."""
    heads = Continued(check_checkpoint(old, key, "OLD"), check_checkpoint(new, key, "NEW"))
    before, after = heads
    if before.origin != after.origin:
        raise CannotTell(
            f"{before.origin} and {after.origin} are two trees, and no proof leads from one to the other: a later"
            " shard's first leaf commits to the last checkpoint of the one before, which evidence bundles hold"
        )
    if before.size > after.size:
        raise CannotTell(f"OLD has {before.size} leaves and NEW has {after.size}: give the smaller one first")
    if proof is None and before.size < after.size:
        raise CannotTell("a proof is needed: " + _LEADS.format(before.size, after.size))
    check_consistency((before.size, before.root), (after.size, after.root), read_hashes(proof) if proof else [])
    return heads


def read_hashes(raw: bytes) -> list[bytes]:
    """A consistency proof: the gateway's JSON answer, or base64, one a line. Raises Disproved, CannotTell."""
    if raw.lstrip()[:1] == b"{":
        document = read_json(raw)
        found = fields(document, "the proof", ("proof",))["proof"] if document else []
    else:
        found = raw.decode("ascii", "replace").splitlines()
    if not isinstance(found, list) or len(found) > MAX_HASHES:
        raise CannotTell(f"the proof must be a list of at most {MAX_HASHES} hashes")
    hashes = [decode(item, "a hash of the proof") for item in found]
    if any(len(item) != 32 for item in hashes):
        raise Disproved("a hash of the proof hasn't 32 bytes")
    return hashes


def head_facts(head: Head) -> dict[str, Any]:
    """A tree head for programs."""
    return {"origin": head.origin, "size": head.size, "root": head.root.hex(), "cosigned": list(head.cosigned)}


def told(files: Sequence[str], read: Reader, trust: Trust) -> tuple[list[str], dict[str, Any]]:
    """What is proved of a checkpoint, in words and as facts. Raises Disproved, CannotTell."""
    head = check_checkpoint(read(files[0], MAX_BYTES), trust)
    lines = [
        f"PROVED: the log {head.origin} signed this head of its tree.",
        f"  size       {head.size} leaves",
        f"  root       {head.root.hex()}",
        f"Not proved: that everybody is shown the same head: {countersigned(head)}; nor that it is the newest one.",
    ]
    return lines, head_facts(head)


def continued_told(files: Sequence[str], read: Reader, trust: Trust) -> tuple[list[str], dict[str, Any]]:
    """What is proved of two checkpoints (and their proof), in words and as facts. Raises Disproved, CannotTell."""
    raw = [read(file, MAX_BYTES) for file in files]
    old, new = check_continued(raw[0], raw[1], raw[2] if raw[2:] else None, trust)
    same = old.size == new.size
    lines = [
        f"PROVED: NEW {'is the same tree as' if same else 'continues'} OLD in the log {new.origin}.",
        f"  old        {old.size} leaves, root {old.root.hex()}",
        f"  new        {new.size} leaves, root {new.root.hex()}",
        f"  kept       all {old.size} leaves of OLD stand in NEW, unchanged and at their places",
        "Not proved: what the leaves say, nor that everybody is shown these heads.",
    ]
    return lines, {"old": head_facts(old), "new": head_facts(new)}
