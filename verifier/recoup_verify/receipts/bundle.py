"""Reads the file that holds a receipt with all that proves it: exactly as FORMAT.md says, or not at all.

Owns the difference between a file that isn't a receipt (can't tell) and a receipt that was changed (disproved).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import takewhile
from typing import Any

from recoup_verify.documents import CannotTell, Disproved, NotJson, UnknownVersion, canonical, read_json, shape, shaped

TYPE = "recoup-receipt-bundle"
VERSION = 1
MAX_BYTES = 16 << 20
MAX_EVENTS = 100
_MEMBERS = shape(
    numbers="v",
    texts="type receipt plan baseline measurement key_manifest",
    objects="envelope",
    events=[shape(texts="leaf payload salt proof")],
)
# A text inside of the bundle has its quotes escaped, so these are members of the bundle itself.
_SIGNS = [f'"{name}":'.encode() for name in _MEMBERS.keys() - {"type", "v"}]
_ENOUGH_SIGNS = 3


def read_bundle(raw: bytes) -> Mapping[str, Any]:
    """The bundle's members, nothing of them checked yet; what digests are of are texts.

    Raises CannotTell for what isn't a bundle, Disproved for one that was changed.
    """
    if len(raw) > MAX_BYTES:
        raise CannotTell(f"the file is larger than any receipt ({MAX_BYTES >> 20} MiB)")
    try:
        document = read_json(raw)
    except CannotTell as error:
        if not _was_bundle(raw):
            raise CannotTell(f"this isn't a receipt: {error}") from error
        raise Disproved(_changed_near(error.place) if isinstance(error, NotJson) else _changed(error)) from error
    if not _is_bundle(document):
        raise CannotTell(f'this isn\'t a receipt\'s bundle itself: its "type" isn\'t "{TYPE}"')
    spelled, version = canonical(document), document.get("v")
    if spelled != raw:
        same = takewhile(lambda pair: pair[0] == pair[1], zip(spelled, raw, strict=False))
        raise Disproved(_changed_near(sum(1 for _ in same)))
    try:
        if document.get("type") != TYPE:
            raise CannotTell(f'its "type" isn\'t "{TYPE}"')
        found = shaped(document, "the bundle", _MEMBERS)
    except CannotTell as error:
        if type(version) is int and version > VERSION:
            raise UnknownVersion(f"bundles of version {version} are unknown to this verifier") from error
        raise Disproved(_changed(error)) from error
    if len(found["events"]) > MAX_EVENTS:
        raise Disproved(f"the bundle has more than {MAX_EVENTS} events")
    return found


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


def _changed(why: Exception) -> str:
    return f"the bundle isn't one as it was issued: {why}"
