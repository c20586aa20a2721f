"""The text of API tokens: nothing that isn't one reaches the database, and no input breaks the parser."""

from __future__ import annotations

import hashlib
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.identity.model.api_tokens import TokenTextInvalid, digest, hint, new_text

SHAPE = r"rcp_[0-9A-Za-z]{49}"
ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
BOUNDED = settings(max_examples=200, deadline=None)


def is_refused(text: str) -> bool:
    try:
        digest(text)
    except TokenTextInvalid:
        return True
    return False


def test_a_text_has_256_random_bits_and_a_shape_that_scanners_find() -> None:
    texts = {new_text() for _ in range(500)}
    assert len(texts) == 500
    assert all(re.fullmatch(SHAPE, text) for text in texts)
    # 43 digits in base 62 hold 256 bits: each digit but the first takes every value.
    assert {text[20] for text in texts} | {text[46] for text in texts} == set(ALPHABET)
    text = texts.pop()
    assert digest(text) == hashlib.sha256(text.encode()).digest()
    assert hint(text) == text[:8]


@BOUNDED
@given(st.integers(0, 52), st.characters())
def test_one_wrong_character_is_seen_without_the_database(place: int, character: str) -> None:
    text = new_text()
    changed = text[:place] + character + text[place + 1 :]
    assert is_refused(changed) == (changed != text)


@BOUNDED
@given(st.text(max_size=10_000) | st.from_regex(SHAPE) | st.binary(max_size=200).map(lambda raw: raw.decode("latin-1")))
def test_nothing_else_is_a_token(text: str) -> None:
    for given_text in (text, "rcp_" + text):
        assert is_refused(given_text) or re.fullmatch(SHAPE, given_text)


@pytest.mark.parametrize("change", [str.lower, str.upper, lambda t: t + "\n", lambda t: " " + t, lambda t: t[:-1]])
def test_a_token_has_one_spelling(change: object) -> None:
    assert callable(change)
    assert is_refused(change(new_text()))
