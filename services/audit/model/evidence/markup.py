"""The one way of a text into the page: whatever it is, it is shown as it is and does nothing. Pure."""

from __future__ import annotations

from html import escape

# Characters that turn text around, or that no reader shows, would let one name look like another.
_INVISIBLE = {
    **{code: "\ufffd" for code in (*range(0x20), 0x7F, *range(0x80, 0xA0)) if code not in (9, 10, 13)},
    **dict.fromkeys((*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C, 0xFEFF), "\ufffd"),
}


def text(value: object) -> str:
    """A text as HTML shows it, in elements and in attributes."""
    return escape(str(value).translate(_INVISIBLE), quote=True)
