"""JSON as SCIM sends it, read strictly: bounded in depth, no member twice in any case, no unusable text. Pure."""

from __future__ import annotations

import json
import re
from typing import Any

from scim2_models import InvalidSyntaxException, InvalidValueException

MAX_DEPTH = 20
MAX_TEXT = 8192
_MAX_DIGITS = 40
# Possessive, and good for strings without an end too: each character is looked at once.
_MARKS = re.compile(r'"(?:[^"\\]++|\\.?)*+"?|[{\[]|[}\]]', re.DOTALL)
_UNUSABLE = re.compile("[\x00\ud800-\udfff]")


def read_object(body: bytes) -> dict[str, Any]:
    """The JSON object of a request's body. Raises InvalidSyntaxException, InvalidValueException."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidSyntaxException(detail="The body isn't UTF-8.") from error
    _check_depth(text)
    try:
        found = json.loads(text, object_pairs_hook=_no_twins, parse_int=_number, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise InvalidSyntaxException(
            detail=f"The body isn't JSON: it can't be read on at character {error.pos}."
        ) from error
    if not isinstance(found, dict):
        raise InvalidSyntaxException(detail="The body must be a JSON object.")
    require_usable_texts(found)
    return found


def require_usable(text: str, name: str) -> None:
    """Raise InvalidValueException for text that is too long or that the database can't hold."""
    if len(text) > MAX_TEXT:
        raise InvalidValueException(detail=f"{name} is longer than {MAX_TEXT} characters.")
    if _UNUSABLE.search(text):
        raise InvalidValueException(detail=f"{name} holds U+0000 or half of a surrogate pair.")


def _check_depth(text: str) -> None:
    """Refuse nesting before a parser recurses into it; brackets in strings don't count."""
    depth = 0
    for found in _MARKS.finditer(text):
        mark = found.group()
        if mark in "{[":
            depth += 1
            if depth > MAX_DEPTH:
                raise InvalidSyntaxException(detail=f"The body is nested deeper than {MAX_DEPTH} levels.")
        elif mark in "}]":
            depth -= 1


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Attribute names are case-insensitive (RFC 7643, 2.1), so that `active` and `Active` are one member twice."""
    seen: set[str] = set()
    for key, _ in pairs:
        if key.casefold() in seen:
            raise InvalidSyntaxException(detail=f"{_printable(key)} is given twice.")
        seen.add(key.casefold())
    return dict(pairs)


def require_usable_texts(value: Any) -> None:
    """Look at all names and texts of a document whose depth is bounded already."""
    if isinstance(value, str):
        require_usable(value, "A value")
    elif isinstance(value, list):
        for each in value:
            require_usable_texts(each)
    elif isinstance(value, dict):
        for key, each in value.items():
            require_usable(key, "A name")
            require_usable_texts(each)


def _number(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MAX_DIGITS else float(digits)


def _no_constant(name: str) -> Any:
    raise InvalidSyntaxException(detail=f"The body isn't JSON: it has no {name}.")


def _printable(name: str) -> str:
    return name[:100].encode(errors="backslashreplace").decode()
