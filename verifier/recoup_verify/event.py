"""Checks the proof of one event, as the gateway's `…/events/{event_id}/proof` gives it: every byte of it.

What is proved: the event, exactly as disclosed, stood in the log when its head was signed. What isn't: that what the
event says is true, nor that no other event was left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

from recoup_verify.documents import (
    CannotTell,
    Disproved,
    UnknownVersion,
    canonical,
    decode,
    read_canonical,
    read_file,
    read_json,
    shape,
    shaped,
)
from recoup_verify.log import Head, Inclusion, Key, Trust, verified_head, whole_number
from recoup_verify.tree import check_inclusion, leaf_hash, read_hashes

MAX_BYTES = 1 << 20
_AT = "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}[.][0-9]{6}Z"
_MOMENT = re.compile(_AT)
# The fields of a leaf in the order of RFC 8785, and what their values are spelled like: a leaf has one spelling.
_FIELDS = {
    "appended_at": f'"({_AT})"',
    "event_id": '"([0-9a-f-]{36})"',
    "org_seq": "([1-9][0-9]{0,14})",
    "organization_id": '"([0-9a-f-]{36})"',
    "payload_commitment": '"([0-9a-f]{64})"',
    "prev_leaf": '"((?:[0-9a-f]{64})?)"',
    "producer": '"([a-z][a-z0-9_-]{0,62})"',
    "producer_counter": "([1-9][0-9]{0,14})",
    "v": "(1)",
}
_LEAF = re.compile("[{]" + ",".join(f'"{name}":{value}' for name, value in _FIELDS.items()) + "}")
_NUMBERS = ("org_seq", "producer_counter", "v")
_HEAD = shape(texts="note size root origin", numbers="shard")
_EVENT = shape(texts="leaf index payload salt", lists="proof", numbers="shard", objects="checkpoint")
_DOCUMENT = shape(event=_EVENT, checkpoint=_HEAD)


class Proven(NamedTuple):
    """An event that the tree of a head holds."""

    leaf: Mapping[str, Any]
    payload: Mapping[str, Any]
    position: int
    head: Head
    digest: bytes


def check_event(raw: bytes, key: Key | Trust) -> Proven:
    """Check a proof document. Raises Disproved, CannotTell."""
    if len(raw) > MAX_BYTES:
        raise CannotTell("the file is larger than any proof")
    document = shaped(read_json(raw), "the document", _DOCUMENT)
    event, checkpoint = document["event"], document["checkpoint"]
    head, index = verified_head(checkpoint["note"], key), whole_number(event["index"])
    if checkpoint["size"] != str(head.size) or decode(checkpoint["root"], "checkpoint.root") != head.root:
        raise Disproved("checkpoint.size or checkpoint.root isn't what the signed note says")
    if checkpoint["origin"] != head.origin or not head.shard == checkpoint["shard"] == event["shard"]:
        raise Disproved("checkpoint.origin, checkpoint.shard or event.shard isn't the shard of the signed note")
    if canonical(event["checkpoint"]) != canonical(checkpoint):
        raise Disproved("event.checkpoint isn't the same as checkpoint")
    if index is None:
        raise Disproved("event.index isn't a whole number")
    inclusion = Inclusion(index, read_hashes(event["proof"], "event.proof"))
    leaf, payload, salt = (decode(event[name], f"event.{name}") for name in ("leaf", "payload", "salt"))
    return proven(leaf, payload, salt, inclusion, head)


def proven(raw: bytes, payload: bytes, salt: bytes, inclusion: Inclusion, head: Head) -> Proven:
    """An event from its leaf and payload, each read only after it is proved. Raises Disproved, CannotTell."""
    check_inclusion(raw, inclusion.position, inclusion.hashes, head.size, head.root)
    leaf = read_leaf(raw)
    if not payload and not salt:
        place = f"leaf {inclusion.position} of {head.size} of {head.origin} is event {leaf['event_id']}, as signed"
        raise CannotTell(f"the payload is withheld, as it is once it was erased: {place}, but not what it said")
    return Proven(leaf, disclosed(payload, salt, leaf), inclusion.position, head, leaf_hash(raw))


def read_leaf(raw: bytes) -> Mapping[str, Any]:
    """The leaf's content, from bytes that are proved. Raises Disproved, CannotTell."""
    if found := _LEAF.fullmatch(raw.decode("ascii", "replace")):
        texts = dict(zip(_FIELDS, found.groups(), strict=True))
        return texts | {name: int(texts[name]) for name in _NUMBERS}
    leaf = read_json(raw)
    if not isinstance(leaf, dict) or leaf.keys() != _FIELDS.keys():
        raise CannotTell("the leaf hasn't the fields of one")
    if leaf["v"] != 1:
        raise UnknownVersion(f"leaves of version {leaf['v']} are unknown to this verifier")
    raise Disproved("the leaf isn't canonical")


def disclosed(payload: bytes, salt: bytes, leaf: Mapping[str, Any]) -> Mapping[str, Any]:
    """The payload, read only after it is the one that the leaf commits to. Raises Disproved, CannotTell."""
    if len(salt) != 32 or sha256(salt + payload).hexdigest() != leaf["payload_commitment"]:
        raise Disproved("the payload isn't the one that the leaf commits to: payload or salt was changed")
    found = read_canonical(payload, "the payload")
    if not isinstance(found, dict) or not isinstance(found.get("metadata", {}), dict):
        raise Disproved("the payload isn't an event's")
    for name in ("event_id", "organization_id"):
        if found.get(name) != leaf[name]:
            raise Disproved(f"the payload's {name} isn't the leaf's")
    return found


def is_moment(text: Any) -> bool:
    """Whether this is a moment in UTC with microseconds; such texts sort by time."""
    return isinstance(text, str) and _MOMENT.fullmatch(text) is not None


def told(files: Sequence[str], trust: Trust) -> tuple[list[str], dict[str, Any]]:
    """What is proved of an event, in words and as facts. Raises Disproved, CannotTell."""
    leaf, payload, position, head, _ = check_event(read_file(files[0], MAX_BYTES), trust)
    lines = [
        f"PROVED: event {leaf['event_id']} is leaf {position} of {head.size} in the log {head.origin}.",
        f"  what       {payload.get('action')} on {payload.get('target')}: {payload.get('result')}",
        f"  who        {payload.get('actor')} as {payload.get('role')}",
        f"  when       {payload.get('occurred_at')}, appended {leaf['appended_at']} by {leaf['producer']}",
        f"  chain      number {leaf['org_seq']} of organization {leaf['organization_id']}",
        "Not proved: that what the event says is true, and that no other event was left out.",
    ]
    return lines, {"index": position, "size": head.size, "origin": head.origin, "event": payload}
