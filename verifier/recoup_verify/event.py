"""Checks the proof of one event, as the gateway's `…/events/{event_id}/proof` gives it: every byte of it.

What is proved: the event, exactly as disclosed, stood in the log when its head was signed. What isn't: that what the
event says is true, nor that no other event was left out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from recoup_verify.documents import (
    CannotTell,
    Disproved,
    Reader,
    UnknownVersion,
    canonical,
    decode,
    fields,
    read_json,
    shape,
    shaped,
)
from recoup_verify.log import Key, Trust, verified_head, whole_number
from recoup_verify.tree import MAX_HASHES, check_inclusion

_AT = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"
_MOMENT = re.compile(_AT, re.ASCII)
# The fields of a leaf in the order of RFC 8785, and what their values are spelled like: a leaf has one spelling.
_LEAF_FIELDS = {
    "appended_at": f'"(?P<appended_at>{_AT})"',
    "event_id": '"(?P<event_id>[0-9a-f-]{36})"',
    "org_seq": "(?P<org_seq>[1-9][0-9]{0,14})",
    "organization_id": '"(?P<organization_id>[0-9a-f-]{36})"',
    "payload_commitment": '"(?P<payload_commitment>[0-9a-f]{64})"',
    "prev_leaf": '"(?P<prev_leaf>(?:[0-9a-f]{64})?)"',
    "producer": '"(?P<producer>[a-z][a-z0-9_-]{0,62})"',
    "producer_counter": "(?P<producer_counter>[1-9][0-9]{0,14})",
    "v": "1",
}
_LEAF = re.compile(
    ("{" + ",".join(f'"{name}":{value}' for name, value in _LEAF_FIELDS.items()) + "}")
    .replace('{"', '\\{"', 1)
    .encode()
)
_EVENT = shape(texts="leaf index payload salt", lists="proof", numbers="shard", objects="checkpoint")
_HEAD = shape(texts="note size root origin", numbers="shard")
MAX_BYTES = 1 << 20


class Proved(NamedTuple):
    """What was proved of an event."""

    payload: Mapping[str, Any]
    leaf: Mapping[str, Any]
    position: int
    size: int
    origin: str


def check_event(raw: bytes, key: Key | Trust) -> Proved:
    """Check a proof document. Raises Disproved, CannotTell."""
    if len(raw) > MAX_BYTES:
        raise CannotTell("the file is larger than any proof")
    document = shaped(read_json(raw), "the document", shape(objects="event checkpoint"))
    event, checkpoint = shaped(document["event"], "event", _EVENT), shaped(document["checkpoint"], "checkpoint", _HEAD)
    head, index = verified_head(checkpoint["note"], key), whole_number(event["index"])
    if checkpoint["size"] != str(head.size) or decode(checkpoint["root"], "checkpoint.root") != head.root:
        raise Disproved("checkpoint.size or checkpoint.root isn't what the signed note says")
    if checkpoint["origin"] != head.origin or not head.shard == checkpoint["shard"] == event["shard"]:
        raise Disproved("checkpoint.origin, checkpoint.shard or event.shard isn't the shard of the signed note")
    if canonical(event["checkpoint"]) != canonical(checkpoint):
        raise Disproved("event.checkpoint isn't the same as checkpoint")
    if index is None or len(event["proof"]) > MAX_HASHES:
        raise Disproved("event.index isn't a whole number, or event.proof is longer than any tree is high")
    # Bytes are read as documents only after they're proved: what was changed is disproved, whatever it has become.
    leaf_bytes, payload_bytes = decode(event["leaf"], "event.leaf"), decode(event["payload"], "event.payload")
    check_inclusion(leaf_bytes, index, [decode(item, "event.proof") for item in event["proof"]], head.size, head.root)
    leaf, salt = read_leaf(leaf_bytes), decode(event["salt"], "event.salt")
    if not payload_bytes and not salt:
        place = f"leaf {index} of {head.size} of {head.origin} is event {leaf['event_id']}, as signed"
        raise CannotTell(f"the payload is withheld, as it is once it was erased: {place}, but not what it said")
    check_commitment(payload_bytes, salt, leaf)
    return Proved(event_payload(read_json(payload_bytes), leaf), leaf, index, head.size, head.origin)


def read_leaf(raw: bytes) -> Mapping[str, Any]:
    """The leaf's content, from bytes that are proved. Raises Disproved, CannotTell."""
    found = _LEAF.fullmatch(raw)
    if found:
        texts = {name: value.decode() for name, value in found.groupdict().items()}
        return {**texts, "v": 1, "org_seq": int(texts["org_seq"]), "producer_counter": int(texts["producer_counter"])}
    leaf = fields(read_json(raw), "the leaf", tuple(_LEAF_FIELDS))
    if leaf["v"] != 1:
        raise UnknownVersion(f"leaves of version {leaf['v']} are unknown to this verifier")
    raise Disproved("the leaf isn't canonical")


def is_moment(text: Any) -> bool:
    """Whether this is a moment in UTC with microseconds; such texts sort by time."""
    return isinstance(text, str) and _MOMENT.fullmatch(text) is not None


def check_commitment(payload: bytes, salt: bytes, leaf: Mapping[str, Any]) -> None:
    """Raise Disproved unless the leaf commits to this payload with this salt."""
    if len(salt) != 32 or hashlib.sha256(salt + payload).hexdigest() != leaf["payload_commitment"]:
        raise Disproved("the payload isn't the one that the leaf commits to: payload or salt was changed")


def event_payload(payload: Any, leaf: Mapping[str, Any]) -> Mapping[str, Any]:
    """The payload that a leaf commits to. Raises Disproved unless it is one of the same event."""
    if not isinstance(payload, dict) or not isinstance(payload.get("metadata", {}), dict):
        raise Disproved("the payload isn't an event's")
    for name in ("event_id", "organization_id"):
        if payload.get(name) != leaf[name]:
            raise Disproved(f"the payload's {name} isn't the leaf's")
    return payload


def told(files: Sequence[str], read: Reader, trust: Trust) -> tuple[list[str], dict[str, Any]]:
    """What is proved of an event, in words and as facts. Raises Disproved, CannotTell."""
    proved = check_event(read(files[0], MAX_BYTES), trust)
    payload, leaf = proved.payload, proved.leaf
    lines = [
        f"PROVED: event {leaf['event_id']} is leaf {proved.position} of {proved.size} in the log {proved.origin}.",
        f"  what       {payload.get('action')} on {payload.get('target')}: {payload.get('result')}",
        f"  who        {payload.get('actor')} as {payload.get('role')}",
        f"  when       {payload.get('occurred_at')}, appended {leaf['appended_at']} by {leaf['producer']}",
        f"  chain      number {leaf['org_seq']} of organization {leaf['organization_id']}",
        "Not proved: that what the event says is true, and that no other event was left out.",
    ]
    return lines, {"index": proved.position, "size": proved.size, "origin": proved.origin, "event": payload}
