"""Reads documents strictly: no duplicate keys, no unknown fields, no lenient base64. What isn't covered is refused."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

_HIGH = re.compile("[\ud800-\U0010ffff]")
_WRITER = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"))


# Reads a file, and no more of it than a limit and one byte.
Reader = Callable[[str, int], bytes]


class Disproved(Exception):
    """Something that is claimed isn't so; says which part."""


class CannotTell(Exception):
    """The input isn't something that this verifier can judge; says why."""


class NotJson(CannotTell):
    """The bytes aren't JSON; `place` is about where they stop being it, counted from 0."""

    def __init__(self, why: str, place: int = 0) -> None:
        super().__init__(why)
        self.place = place


class UnknownVersion(CannotTell):
    """A document is of a version that this verifier doesn't know; what it says may still be true."""


def read_json(raw: bytes) -> Any:
    """JSON without duplicate keys or broken characters. Raises CannotTell, NotJson."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            names = [name for name, _ in pairs]
            raise CannotTell(f"the field {next(name for name in names if names.count(name) > 1)!r} is there twice")
        return found

    try:
        found = json.loads(raw.decode("utf-8"), object_pairs_hook=unique, parse_constant=_whole)
        # "\\ud800" is JSON's half of a character; it has no UTF-8, so nothing could be compared with it.
        json.dumps(found, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except json.JSONDecodeError as error:
        raise NotJson(f"this isn't JSON: {error}", error.pos) from error
    except UnicodeDecodeError as error:
        raise NotJson("this isn't JSON: it isn't UTF-8", error.start) from error
    except (ValueError, RecursionError) as error:
        raise NotJson(
            "this isn't JSON that can be read: numbers too large or too long, nested too deep, or half a character"
        ) from error
    return found


def fields(document: Any, where: str, wanted: tuple[str, ...]) -> Mapping[str, Any]:
    """An object with exactly these fields. Raises CannotTell."""
    if not isinstance(document, dict):
        raise CannotTell(f"{where} must be an object")
    missing, unknown = set(wanted) - document.keys(), document.keys() - set(wanted)
    if missing or unknown:
        words = [f"lacks {name}" for name in sorted(missing)] + [f"has the unknown field {n}" for n in sorted(unknown)]
        raise CannotTell(f"{where} {', '.join(words)}")
    return document


def decode(text: Any, where: str) -> bytes:
    """Base64 in its one canonical spelling. Raises Disproved."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise Disproved(f"{where} isn't base64") from error
    if base64.b64encode(raw).decode() != text:
        raise Disproved(f"{where} isn't canonical base64")
    return raw


# The fields that a document has, and the type of each.
Shape = Mapping[str, type]
_WORDS = {str: "a text", int: "a whole number", bool: "true or false", list: "a list", dict: "an object"}


def shape(*, texts: str = "", numbers: str = "", flags: str = "", lists: str = "", objects: str = "") -> Shape:
    """A shape from the names of its fields, by their type."""
    kinds: tuple[tuple[str, type], ...] = ((texts, str), (numbers, int), (flags, bool), (lists, list), (objects, dict))
    return {name: kind for names, kind in kinds for name in names.split()}


def shaped(document: Any, where: str, kinds: Shape) -> Mapping[str, Any]:
    """An object with exactly these fields, each of exactly this type. Raises CannotTell."""
    found = fields(document, where, tuple(kinds))
    for name, kind in kinds.items():
        if type(found[name]) is not kind:
            raise CannotTell(f"{where}'s {name} must be {_WORDS[kind]}")
    return found


def canonical(document: Any) -> bytes:
    """RFC 8785 for documents of texts, whole numbers, lists and objects; other values are refused."""
    try:
        return _canonical(document)
    except RecursionError:
        raise CannotTell("the document is nested too deep") from None


def read_canonical(raw: bytes, where: str) -> Any:
    """JSON in its one canonical spelling (RFC 8785). Raises CannotTell."""
    with suppress(ValueError, RecursionError):  # why it can't be read is said below
        text = raw.decode("utf-8")
        document = _READER.decode(text)
        # Up to here sorting by characters is sorting by UTF-16, and Python's writer in C spells like RFC 8785.
        if (text.isascii() or not _HIGH.search(text)) and _WRITER.encode(document) == text:
            return document
    document = read_json(raw)
    if canonical(document) != raw:
        raise CannotTell(f"{where} isn't canonical JSON")
    return document


def _canonical(document: Any) -> bytes:
    if isinstance(document, dict):
        # RFC 8785 orders keys by their UTF-16 code units.
        keys = sorted(document, key=None if all(map(str.isascii, document)) else lambda key: key.encode("utf-16-be"))
        return b"{" + b",".join(_WRITER.encode(key).encode() + b":" + _canonical(document[key]) for key in keys) + b"}"
    if isinstance(document, list):
        return b"[" + b",".join(_canonical(item) for item in document) + b"]"
    if isinstance(document, str):
        return _WRITER.encode(document).encode()
    if isinstance(document, bool) or document is None:
        return {True: b"true", False: b"false", None: b"null"}[document]
    if isinstance(document, int) and abs(document) < 2**53:
        return str(document).encode()
    raise CannotTell("a number that isn't whole has no place in these documents")


def shown(text: object) -> str:
    """A text as it may stand on a terminal: without anything that could steer it."""
    return "".join(character if character.isprintable() else "\ufffd" for character in str(text))


def _whole(text: str) -> int:
    if len(text) > 17 or abs(int(text)) >= 2**53:
        raise ValueError("a number that isn't whole or too large has no place in these documents")
    return int(text)


_READER = json.JSONDecoder(parse_int=_whole, parse_float=_whole, parse_constant=_whole)
