"""The parts of a compact JWT have one spelling and one meaning."""

from __future__ import annotations

import pytest

from services._mesh import compact


@pytest.mark.parametrize("part", ["AB", "AA==", "A A", "A", "AA\n", "A+", "AÄ"])
def test_a_part_has_one_spelling(part: str) -> None:
    assert compact.octets("AA") == b"\0"
    with pytest.raises(ValueError, match="base64url"):
        compact.octets(part)


@pytest.mark.parametrize(
    "data",
    [
        b'{"a": 1, "a": 1}',
        b'{"b": [{"a": 1, "a": 2}]}',
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": "\xff"}',
        b'\xef\xbb\xbf{"a": 1}',
        '{"a": 1}'.encode("utf-16"),
        b'{"a": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b"[]",
        b"1",
        b"{} {}",
        b"",
    ],
    ids=lambda data: repr(data[:20]),
)
def test_an_object_has_one_meaning(data: bytes) -> None:
    assert compact.members(b'{"a": {"a": 1}}') == {"a": {"a": 1}}
    with pytest.raises(ValueError, match=r"."):
        compact.members(data)
