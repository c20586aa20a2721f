"""RFC 8785 JSON, fast where that is easy to see to be the same. Pure.

orjson writes what RFC 8785 asks for as long as all text is ASCII and all numbers are whole: then the order of keys by
code points is that by UTF-16 units, and no float has to be spelled. Everything else goes the slow way.
"""

from __future__ import annotations

from typing import Any

import orjson
import rfc8785

# Beyond it, RFC 8785's numbers (IEEE 754 doubles) don't hold a whole number exactly.
MAX_INTEGER = (1 << 53) - 1
_MAX_DEPTH = 64


def is_canonical(content: Any, raw: bytes) -> bool:
    """Whether `raw`, of which `content` was read, is written as RFC 8785 says. Raises CanonicalizationError."""
    if raw.isascii() and _is_simple(content, 0):
        return orjson.dumps(content, option=orjson.OPT_SORT_KEYS) == raw
    return rfc8785.dumps(content) == raw


def _is_simple(value: Any, depth: int) -> bool:
    if depth > _MAX_DEPTH:
        return False
    if isinstance(value, dict):
        return all(type(each) is str or _is_simple(each, depth + 1) for each in value.values())
    if isinstance(value, list):
        return all(type(each) is str or _is_simple(each, depth + 1) for each in value)
    if type(value) is int:
        return -MAX_INTEGER <= value <= MAX_INTEGER
    return value is None or type(value) in (str, bool)
