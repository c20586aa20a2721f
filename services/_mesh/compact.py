"""The parts of a compact JWT (RFC 7515): base64url in its one spelling, and JSON that means one thing to every reader.

Every failure is a ValueError. Nothing here knows a claim or a key.
"""

from __future__ import annotations

import binascii
import json
from typing import Any, NoReturn

# "-" and "_" to what the standard alphabet has for them; what that has, and padding, to what no alphabet has.
_STANDARD = bytes.maketrans(b"-_+/=", b"+/!!!")
_LAST = {2: b"AQgw", 3: b"AEIMQUYcgkosw048"}
_PADDING = {0: b"", 2: b"==", 3: b"="}


def octets(part: str) -> bytes:
    """base64url without padding, and only its one canonical spelling: a token must have no second form."""
    raw = part.encode("ascii", "replace")
    left = len(raw) % 4
    # The bits of the last character that belong to no byte must be zero (RFC 4648, section 3.5).
    if left == 1 or (left and raw[-1] not in _LAST[left]):
        raise ValueError("base64url")
    try:
        return binascii.a2b_base64(raw.translate(_STANDARD) + _PADDING[left], strict_mode=True)
    except binascii.Error as error:
        raise ValueError("base64url") from error


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
