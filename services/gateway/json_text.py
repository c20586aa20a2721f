"""Reads JSON strictly: UTF-8, nested to a depth at most, with so many values at most, no key twice, no NaN, no number
that takes long to read.
"""

from __future__ import annotations

import json
import re
from typing import Any

from services._mesh.errors import Exhausted, Invalid, Reason
from services.gateway.shapes import unknown

# Python reads no more than 4300 digits, and takes a time that grows with their square; 64 bits have 20.
_MAX_DIGITS = 40
# Each value is checked against its field in Python, which costs a hundred times what it takes to send one. No request
# has a list of more than some hundreds.
_MOST_VALUES = 10_000
# Texts are skipped whole: brackets in them don't count. One that never ends is skipped to the end of the body: looked
# for from each quotation mark in it, its end would take a time that grows with the square of the body.
_TEXT = r'"(?:[^"\\]++|\\.?)*+"?'
_TEXTS = re.compile(_TEXT, re.DOTALL)
# To the next one, or the end, in one step: what is between them may be nearly all of the body. It fits everywhere, so
# that it is sought from nowhere else.
_BRACKETS = re.compile(rf'(?:[^"\[\]{{}}]++|{_TEXT})*+(?:([\[{{])|([\]}}])|\Z)', re.DOTALL)


def read(body: bytes, max_depth: int) -> Any:
    """What the body says. Raises Invalid, and Exhausted."""
    try:
        text = body.decode("utf-8")
        _require_size(text)
        _require_depth(text, max_depth)
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise Invalid(
            Reason.ERROR_REASON_BODY_MALFORMED,
            f"The body isn't JSON: it can't be read on at character {error.pos}.",
            {"position": str(error.pos)},
        ) from error
    except UnicodeDecodeError as error:
        raise Invalid(
            Reason.ERROR_REASON_BODY_MALFORMED, "The body isn't UTF-8.", {"position": str(error.start)}
        ) from error


def _number(digits: str) -> int | float:
    """An integer; one that no field could hold as a float, which the check of its field refuses by name."""
    return int(digits) if len(digits) <= _MAX_DIGITS else float(digits)


def _no_constant(name: str) -> Any:
    raise Invalid(Reason.ERROR_REASON_BODY_MALFORMED, f"The body isn't JSON: it has no {name}.", {"position": "0"})


def _require_size(text: str) -> None:
    """Refuse more values than any request has, before anybody looks at them one by one."""
    if _values(text) > _MOST_VALUES and _values(_TEXTS.sub("", text)) > _MOST_VALUES:
        raise Exhausted(
            Reason.ERROR_REASON_TOO_LARGE,
            f"The body has more than {_MOST_VALUES} values.",
            {"limit": str(_MOST_VALUES)},
        )


def _values(text: str) -> int:
    """How many there may be: one, another behind each comma, and the first of each list and object."""
    return 1 + text.count(",") + text.count("[") + text.count("{")


def _require_depth(text: str, max_depth: int) -> None:
    """Refuse nesting before a parser recurses into it."""
    if text.count("{") + text.count("[") <= max_depth:
        return
    depth = 0
    for found in _BRACKETS.finditer(text):
        depth += 1 if found.group(1) else -1 if found.group(2) else 0
        if depth < 0:
            return  # No parser gets beyond this one.
        if depth > max_depth:
            raise Invalid(
                Reason.ERROR_REASON_BODY_MALFORMED,
                f"The body is nested deeper than {max_depth} levels.",
                {"position": str(found.end() - 1)},
            )


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise unknown(key, "it is given twice")
        found[key] = value
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_no_twins, parse_int=_number, parse_constant=_no_constant)
