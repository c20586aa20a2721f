"""The parts of a compact JWT (RFC 7515): base64url in its one spelling, and JSON that means one thing to every reader.

Every failure is a ValueError. Nothing here knows a claim or a key.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, NoReturn


def octets(part: str) -> bytes:
    """base64url without padding, and only its one canonical spelling: a token must have no second form."""
    try:
        data = base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("base64url") from error
    if base64.urlsafe_b64encode(data).rstrip(b"=").decode() != part:
        raise ValueError("base64url")
    return data


def members(data: bytes) -> dict[str, Any]:
    """The members of the JSON object in `data`: UTF-8, each name once, no number that JSON doesn't know.

    Readers differ on which of two members of one name counts (RFC 8259, section 4), so that there may not be two.
    """
    try:
        value = _STRICT.decode(data.decode("utf-8"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member comes twice")
    return found


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


_STRICT = json.JSONDecoder(object_pairs_hook=_each_once, parse_constant=_no_number)
