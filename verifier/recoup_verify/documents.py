"""Reads documents strictly: no duplicate keys, no unknown fields, no lenient base64. What isn't covered is refused."""

from __future__ import annotations

import binascii
import json
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

# The fields that a document has, and of each its type, its own shape, or a list with that of its members.
Shape = Mapping[str, Any]
_WORDS = {str: "a text", int: "a whole number", bool: "true or false", list: "a list", dict: "an object"}


class Disproved(Exception):
    """Something that is claimed isn't so; says which part."""


class CannotTell(Exception):
    """The input isn't something that this verifier can judge; says why."""


class NotJson(CannotTell):
    """The bytes aren't JSON; `place` is about where they stop being it, counted from 0."""

    def __init__(self, why: str, place: int = 0) -> None:
        super().__init__(f"this isn't JSON{why}")
        self.place = place


class UnknownVersion(CannotTell):
    """A document is of a version that this verifier doesn't know; what it says may still be true."""


def read_file(name: str, limit: int) -> bytes:
    """A file, "-" for the standard input; at most one byte more than the limit, which says that there are too many."""
    if name == "-":
        return sys.stdin.buffer.read(limit + 1)
    with open(name, "rb") as opened:
        return opened.read(limit + 1)


def read_json(raw: bytes) -> Any:
    """JSON without duplicate keys, odd numbers or broken characters. Raises CannotTell, NotJson."""
    try:
        found = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique, **_NUMBERS)
        canonical(found)  # half a character has no spelling
    except json.JSONDecodeError as error:
        raise NotJson(f": {error}", error.pos) from error
    except UnicodeDecodeError as error:
        raise NotJson(": it isn't UTF-8", error.start) from error
    except (ValueError, RecursionError) as error:
        raise NotJson(" that can be read: nested too deep, or half a character") from error
    return found


def read_canonical(raw: bytes, where: str) -> Any:
    """JSON in its one canonical spelling (RFC 8785). Raises CannotTell."""
    with suppress(CannotTell, ValueError, RecursionError):  # why it can't be read is said below
        document = _QUICK.decode(raw.decode("utf-8"))
        if canonical(document) == raw:
            return document
    read_json(raw)
    raise CannotTell(f"{where} isn't canonical JSON")


def canonical(document: Any) -> bytes:
    """The canonical spelling (RFC 8785) of a document of texts, whole numbers, lists and objects."""
    text = _WRITER.encode(document)
    # Python sorts keys by character, RFC 8785 by UTF-16 unit: up to U+D7FF these are the same.
    if not text.isascii() and re.search("[\ud800-\U0010ffff]", text):
        text = json.dumps(_sorted(document), ensure_ascii=False, separators=(",", ":"))
    return text.encode()


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value, key=lambda key: key.encode("utf-16-be"))}
    return [_sorted(each) for each in value] if isinstance(value, list) else value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise CannotTell(f"the field {next(name for name in names if names.count(name) > 1)!r} is there twice")
    return found


def _whole(text: str) -> int:
    if len(text) <= 17 and text.lstrip("-").isdecimal() and abs(int(text)) < 2**53:
        return int(text)
    raise CannotTell("numbers too large, or that aren't whole, have no place in these documents")


_NUMBERS: Mapping[str, Any] = {"parse_int": _whole, "parse_float": _whole, "parse_constant": _whole}
_QUICK = json.JSONDecoder(**_NUMBERS)
_WRITER = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def decode(text: Any, where: str) -> bytes:
    """Base64 in its one canonical spelling. Raises Disproved."""
    try:
        raw = binascii.a2b_base64(text, strict_mode=True)
    except (ValueError, TypeError) as error:
        raise Disproved(f"{where} isn't base64") from error
    if binascii.b2a_base64(raw, newline=False).decode() != text:
        raise Disproved(f"{where} isn't canonical base64")
    return raw


def shape(
    *, texts: str = "", numbers: str = "", flags: str = "", lists: str = "", objects: str = "", **deeper: Any
) -> Shape:
    """A shape from the names of its fields by their type; fields of a shape of their own come by their name."""
    kinds: tuple[tuple[str, type], ...] = ((texts, str), (numbers, int), (flags, bool), (lists, list), (objects, dict))
    return {name: kind for names, kind in kinds for name in names.split()} | deeper


def shaped(document: Any, where: str, kinds: Shape) -> Mapping[str, Any]:
    """An object with exactly these fields, each of exactly this type. Raises CannotTell."""
    if not isinstance(document, dict):
        raise CannotTell(f"{where} must be an object")
    if document.keys() != kinds.keys():
        words = [f"lacks {name}" for name in sorted(kinds.keys() - document.keys())]
        words += [f"has the unknown field {name}" for name in sorted(document.keys() - kinds.keys())]
        raise CannotTell(f"{where} {', '.join(words)}")
    for name, kind in kinds.items():
        expected = kind if isinstance(kind, type) else type(kind)
        if type(document[name]) is not expected:
            raise CannotTell(f"{where}'s {name} must be {_WORDS[expected]}")
        if isinstance(kind, dict):
            shaped(document[name], f"{where}'s {name}", kind)
        elif isinstance(kind, list):
            for number, each in enumerate(document[name], 1):
                shaped(each, f"{where}'s {name} {number}", kind[0])
    return document


def shown(text: object) -> str:
    """A text as it may stand on a terminal: without anything that could steer it."""
    return "".join(character if character.isprintable() else "\ufffd" for character in str(text))
