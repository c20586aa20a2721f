"""CSV twins for people: RFC 4180, every cell quoted, and no cell that a spreadsheet would take for a formula. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

# What spreadsheets begin to calculate at (OWASP, CSV injection); full-width forms are taken for the same by some.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
# A number is what it is, whatever its sign.
_NUMBER = re.compile(r"-?[0-9]{1,40}(\.[0-9]{1,40})?")


def cell(value: str) -> str:
    """A cell's text, harmless in a spreadsheet: an apostrophe in front makes it text."""
    if value.startswith(_FORMULA) and not _NUMBER.fullmatch(value):
        value = f"'{value}"
    return value.replace("\0", "\ufffd")


def row(values: Sequence[str]) -> bytes:
    """One line of CSV in UTF-8."""
    quoted = (f'"{cell(value).replace(chr(34), chr(34) * 2)}"' for value in values)
    return (",".join(quoted) + "\r\n").encode("utf-8", "replace")
