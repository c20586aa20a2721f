"""The parts of a compact JWT have one spelling and one meaning."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services._mesh import compact


@pytest.mark.parametrize(
    "part", ["AB", "AAB", "AA==", "AAA=", "A A", "A", "AAAAA", "AA\n", "++++", "A/", "AÄ", "=", "AA=A"]
)
def test_a_part_has_one_spelling(part: str) -> None:
    assert compact.octets("AA") == b"\0"
    with pytest.raises(ValueError, match="base64url"):
        compact.octets(part)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=40))
def test_fuzz_what_is_encoded_is_decoded(data: bytes) -> None:
    assert compact.octets(base64.urlsafe_b64encode(data).rstrip(b"=").decode()) == data


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="AQgwBZaz09-_+/= ", max_size=9))
def test_fuzz_what_is_decoded_is_encoded_like_this_and_in_no_other_way(part: str) -> None:
    try:
        data = compact.octets(part)
    except ValueError:
        return
    assert base64.urlsafe_b64encode(data).rstrip(b"=").decode() == part


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
