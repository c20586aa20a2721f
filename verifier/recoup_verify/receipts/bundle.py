"""Reads the file that holds a receipt with all that proves it: exactly as FORMAT.md says, or not at all.

Owns the difference between a file that isn't a receipt (can't tell) and a receipt that was changed (disproved).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from recoup_verify.documents import (
    CannotTell,
    Disproved,
    NotJson,
    UnknownVersion,
    canonical,
    decode,
    read_json,
    shape,
    shaped,
)

TYPE = "recoup-receipt-bundle"
VERSION = 1
MAX_BYTES = 16 << 20
MAX_EVENTS = 100
_DOCUMENTS = ("receipt", "plan", "baseline", "measurement")
_MEMBERS = shape(
    numbers="v", texts="type receipt plan baseline measurement key_manifest", lists="events", objects="envelope"
)
_EVENT = shape(texts="leaf payload salt proof")
# A text inside of the bundle has its quotes escaped, so these are members of the bundle itself.
_SIGNS = tuple(f'"{name}":'.encode() for name in (*_DOCUMENTS, "envelope", "events", "key_manifest"))
_ENOUGH_SIGNS = 3


class LoggedEvent(NamedTuple):
    """One event and its proof, nothing of it checked yet. `proof` is a tlog-proof."""

    leaf: bytes
    payload: bytes
    salt: bytes
    proof: str


class Bundle(NamedTuple):
    """The bundle's parts, nothing of them checked yet. The four documents are the bytes that digests are of."""

    version: int
    envelope: Mapping[str, Any]
    receipt: bytes
    plan: bytes
    baseline: bytes
    measurement: bytes
    events: Sequence[LoggedEvent]
    key_manifest: str


def read_bundle(raw: bytes) -> Bundle:
    """Read a bundle. Raises CannotTell for what isn't one, Disproved for one that was changed."""
    if len(raw) > MAX_BYTES:
        raise CannotTell(f"the file is larger than any receipt ({MAX_BYTES >> 20} MiB)")
    try:
        document = read_json(raw)
        spelled = canonical(document)
    except CannotTell as error:
        if not _was_bundle(raw):
            raise CannotTell(f"this isn't a receipt: {error}") from error
        raise Disproved(_changed_near(error.place) if isinstance(error, NotJson) else _changed(str(error))) from error
    if not _is_bundle(document):
        raise CannotTell(f'this isn\'t a receipt\'s bundle itself: its "type" isn\'t "{TYPE}"')
    if spelled != raw:
        raise Disproved(_changed_near(_first_difference(spelled, raw)))
    return _bundle(document)


def _bundle(document: Mapping[str, Any]) -> Bundle:
    version = document.get("v")
    try:
        if document.get("type") != TYPE:
            raise CannotTell(f'its "type" isn\'t "{TYPE}"')
        found = shaped(document, "it", _MEMBERS)
        events = [_event(event, number) for number, event in enumerate(found["events"], 1)]
    except CannotTell as error:
        if type(version) is int and version > VERSION:
            raise UnknownVersion(f"bundles of version {version} are unknown to this verifier") from error
        raise Disproved(_changed(str(error))) from error
    if len(events) > MAX_EVENTS:
        raise Disproved(f"the bundle has more than {MAX_EVENTS} events")
    documents = {name: found[name].encode() for name in _DOCUMENTS}
    return Bundle(found["v"], found["envelope"], **documents, events=events, key_manifest=found["key_manifest"])


def _event(document: Any, number: int) -> LoggedEvent:
    found = shaped(document, f"event {number}", _EVENT)
    salt = decode(found["salt"], f"event {number}: its salt")
    return LoggedEvent(found["leaf"].encode(), found["payload"].encode(), salt, found["proof"])


def _is_bundle(document: Any) -> bool:
    """Whether this is a bundle, or one of which a member's name was changed."""
    if not isinstance(document, dict):
        return False
    return document.get("type") == TYPE or len(_MEMBERS.keys() & document.keys()) >= _ENOUGH_SIGNS


def _was_bundle(raw: bytes) -> bool:
    """Whether what isn't JSON any more was a bundle once: a change anywhere leaves enough signs of it."""
    return TYPE.encode() in raw or sum(sign in raw for sign in _SIGNS) >= _ENOUGH_SIGNS


def _changed_near(place: int) -> str:
    return f"the bundle isn't canonical JSON any more, near character {place}: it was changed after it was issued"


def _changed(why: str) -> str:
    return f"the bundle isn't one as it was issued: {why}"


def _first_difference(one: bytes, other: bytes) -> int:
    shorter = min(len(one), len(other))
    return next((place for place in range(shorter) if one[place] != other[place]), shorter)
