"""Reads documents strictly: no duplicate keys, no unknown fields, no lenient base64. What isn't covered is refused."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any


class Disproved(Exception):
    """Something that is claimed isn't so; says which part."""


class CannotTell(Exception):
    """The input isn't something that this verifier can judge; says why."""


def read_json(raw: bytes) -> Any:
    """JSON without duplicate keys. Raises CannotTell."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise CannotTell(f"the field {key!r} is there twice")
            found[key] = value
        return found

    try:
        return json.loads(raw.decode("utf-8"), object_pairs_hook=unique)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CannotTell(f"this isn't JSON: {error}") from error


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


def canonical(document: Any) -> bytes:
    """RFC 8785 for documents of texts, whole numbers, lists and objects; other values are refused."""
    if isinstance(document, dict):
        # RFC 8785 orders keys by their UTF-16 code units.
        keys = sorted(document, key=lambda key: key.encode("utf-16-be"))
        return b"{" + b",".join(_text(key) + b":" + canonical(document[key]) for key in keys) + b"}"
    if isinstance(document, list):
        return b"[" + b",".join(canonical(item) for item in document) + b"]"
    if isinstance(document, str):
        return _text(document)
    if isinstance(document, bool) or document is None:
        return {True: b"true", False: b"false", None: b"null"}[document]
    if isinstance(document, int) and abs(document) < 2**53:
        return str(document).encode()
    raise CannotTell("a number that isn't whole has no place in these documents")


def _text(text: str) -> bytes:
    return json.dumps(text, ensure_ascii=False).encode("utf-8")
