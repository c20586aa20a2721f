"""How a shard is opened: its first leaf commits to the last signed head of the shard before it. Pure.

A yearly turn continues from the shard's last head. A recovery does so from the last head that was signed, although the
database has an older one, maybe of an older shard, or another one: it states what was lost and what is given up, and
the offline root key authorises it.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson

from services.audit.model.leaf import commitment
from services.audit.model.merkle import ProofInvalid, leaf_hash, verify_inclusion
from services.audit.model.notes import NoteInvalid, TreeHead, VerifierKey, verify
from services.audit.model.shards import origin_of, shard_of
from services.audit.model.signing import Inconsistent, Opening, SignedHead

ACTION = "audit.shard.open"
YEARLY, RECOVERY = "YEARLY", "RECOVERY"
PRODUCER = "audit"
PLATFORM = UUID(int=0)
# A shard of which the database has nothing: a recovery gave it up.
LOST = "LOST"
_RECOVERY_FORMAT, _RECOVERY_OF_SHARDS = "recoup-recovery/v1", "recoup-recovery/v2"
_RECOVERY_OF_TAIL = "recoup-recovery/v3"


@dataclass(frozen=True, slots=True)
class Restored:
    """Where the database ends: its shard, that one's size, and how much of it is as it was signed.

    `root` is the tree's at `size`; only where `common` is less, so that the opening commits to what is given up.
    """

    shard: int
    size: int
    common: int
    root: bytes = b""

    def metadata(self, name: str) -> dict[str, str]:
        """What the event that opens the recovery's shard says of it."""
        said = {"restored_origin": origin_of(name, self.shard), "restored_size": str(self.size)}
        if self.common == self.size:
            return said
        return {**said, "restored_root": self.root.hex(), "common_size": str(self.common)}


def checkpoint_sha256(note: str) -> str:
    """The digest of a checkpoint's text, which is the same whoever signed it."""
    return hashlib.sha256(note.partition("\n\n")[0].encode() + b"\n").hexdigest()


def opening_metadata(name: str, shard: int, kind: str, previous: SignedHead) -> dict[str, str]:
    """What the event that opens `shard` says of the last signed head of the shard before."""
    return {
        "shard": str(shard),
        "origin": origin_of(name, shard),
        "kind": kind,
        "previous_origin": origin_of(name, shard - 1),
        "previous_size": str(previous.size),
        "previous_root": previous.root.hex(),
        "previous_checkpoint_sha256": checkpoint_sha256(previous.note),
    }


def recovery_text(name: str, shard: int, previous: SignedHead, restored: Restored) -> str:
    """What the offline root key signs to authorise a recovery: which shard is opened, and what is lost.

    Where the shard in which the database ends isn't the one that was signed last, what is lost goes from one shard to
    another. Leaves that the database has instead of signed ones, or beyond them, are given up.
    """
    head, old = TreeHead(origin_of(name, shard - 1), previous.size, previous.root), origin_of(name, restored.shard)
    root = base64.b64encode(head.root).decode()
    if restored.common < restored.size:
        how, lost = _RECOVERY_OF_TAIL, f"{old} {restored.common} {head.origin} {head.size}"
    elif restored.shard == shard - 1:
        how, lost = _RECOVERY_FORMAT, f"{restored.size} {head.size}"
    else:
        how, lost = _RECOVERY_OF_SHARDS, f"{old} {restored.size} {head.origin} {head.size}"
    text = f"{name}/recovery\n{how}\nopens {origin_of(name, shard)}\n"
    text += f"signed {head.origin} {head.size} {root}\nlost {lost}\n"
    if how == _RECOVERY_OF_TAIL:
        text += f"given-up {old} {restored.common} {restored.size} {base64.b64encode(restored.root).decode()}\n"
    return text


def check_opening(
    name: str, shard: int, previous: SignedHead, size: int, root: bytes, opening: Opening, root_key: VerifierKey | None
) -> tuple[str, int]:
    """Why, and in which year, the head's first leaf says that it opens `shard`.

    Raises Inconsistent unless it does, and commits to what was signed last. Whether the year is over isn't told here.
    """
    try:
        verify_inclusion(leaf_hash(opening.leaf), 0, size, opening.proof, root)
        leaf, payload = orjson.loads(opening.leaf), orjson.loads(opening.payload)
    except (ProofInvalid, orjson.JSONDecodeError) as error:
        raise Inconsistent(f"the first leaf of shard {shard} isn't proven: {error}") from error
    metadata = _metadata(leaf, payload)
    if leaf.get("payload_commitment") != commitment(opening.payload, opening.salt):
        raise Inconsistent(f"the first leaf of shard {shard} commits to another payload")
    kind = metadata.get("kind")
    if kind not in (YEARLY, RECOVERY):
        raise Inconsistent(f"the first leaf of shard {shard} doesn't say why it was opened")
    for key, value in opening_metadata(name, shard, kind, previous).items():
        if metadata.get(key) != value:
            raise Inconsistent(f"the first leaf of shard {shard} says {key} {metadata.get(key)!r}, but it is {value!r}")
    if kind == RECOVERY:
        _check_authorised(name, shard, previous, metadata, root_key)
    year = str(payload.get("occurred_at", ""))[:4]
    if not (year.isascii() and year.isdecimal()):
        raise Inconsistent(f"the first leaf of shard {shard} doesn't say when it was opened")
    return str(kind), int(year)


def _metadata(leaf: Any, payload: Any) -> Mapping[str, Any]:
    if not isinstance(leaf, dict) or not isinstance(payload, dict) or not isinstance(payload.get("metadata"), dict):
        raise Inconsistent("the first leaf isn't an event")
    said = (leaf.get("producer"), leaf.get("organization_id"), payload.get("action"), payload.get("event_id"))
    if said != (PRODUCER, str(PLATFORM), ACTION, leaf.get("event_id")):
        raise Inconsistent(f"the first leaf isn't the event {ACTION}")
    metadata: Mapping[str, Any] = payload["metadata"]
    return metadata


def _check_authorised(
    name: str, shard: int, previous: SignedHead, metadata: Mapping[str, Any], root_key: VerifierKey | None
) -> None:
    restored, statement = _restored(name, shard, metadata), metadata.get("statement")
    if root_key is None:
        raise Inconsistent("a recovery needs the offline root's key, which this signer doesn't know")
    if restored is None or (restored.shard == shard - 1 and restored.common > previous.size):
        raise Inconsistent("the recovery doesn't state the range that was lost")
    try:
        authorised = verify(str(statement), root_key)
    except NoteInvalid as error:
        raise Inconsistent(f"the recovery isn't authorised by {root_key.name}: {error}") from error
    if authorised != recovery_text(name, shard, previous, restored):
        raise Inconsistent("the root authorised another recovery than this one")


def _restored(name: str, shard: int, metadata: Mapping[str, Any]) -> Restored | None:
    """Where the database ended, as an opening says; None where it doesn't."""
    size = metadata.get("restored_size")
    common, root = metadata.get("common_size", size), metadata.get("restored_root", "")
    # Before a database could be older than the shard, it didn't say which one it was in.
    old = shard_of(name, str(metadata.get("restored_origin", origin_of(name, shard - 1))))
    if old is None or old >= shard or not all(isinstance(each, str) and each.isdecimal() for each in (size, common)):
        return None
    try:
        restored = Restored(old, int(str(size)), int(str(common)), bytes.fromhex(str(root)))
    except ValueError:
        return None
    return restored if restored.common <= restored.size else None
