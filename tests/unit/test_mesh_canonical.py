"""Canonical JSON the fast way: byte for byte what `rfc8785` writes, and refused where it refuses."""

from __future__ import annotations

from enum import StrEnum
from typing import Any
from uuid import UUID

import orjson
import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st

from services._mesh import canonical

TEXT = st.text() | st.text(st.characters(max_codepoint=127)) | st.characters(categories=["Cs"])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
DOCUMENTS = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner), max_leaves=20)


def outcome(dumps: Any, document: Any) -> bytes | str:
    try:
        return bytes(dumps(document))
    except (rfc8785.CanonicalizationError, UnicodeEncodeError) as error:
        return type(error).__name__


@given(DOCUMENTS)
@example({"\ue000": 1, "\U0001f600": 2})  # Sorted by UTF-16 units, the second is the first.
@example({"v": 2**53, "w": 1})
@example({"v": 1.0})
@example({"a": "\x00\x07\x08\t\n\x0b\x0c\r\x1f\x7f\"\\/<>&'"})
@example({"a": {"b": [True, None, -0.0, 1e21]}})
def test_the_same_bytes_or_the_same_refusal(document: Any) -> None:
    assert outcome(canonical.dumps, document) == outcome(rfc8785.dumps, document)


class Name(StrEnum):
    A = "a"


@pytest.mark.parametrize("value", [UUID(int=1), b"raw", object(), {1: "a"}, (1, 2), Name.A])
def test_what_is_no_json_is_taken_or_refused_alike(value: Any) -> None:
    assert outcome(canonical.dumps, {"a": value}) == outcome(rfc8785.dumps, {"a": value})


def test_what_is_deep_is_written_alike() -> None:
    document: Any = "deep"
    for _ in range(60):
        document = {"a": [document]}
    assert canonical.dumps(document) == rfc8785.dumps(document)
    assert orjson.loads(canonical.dumps(document)) == document
