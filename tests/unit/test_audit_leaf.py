"""Leaves and payloads: canonical, whichever way that was found out, and resting on something that has a name."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
import rfc8785

from services.audit.model.canonical import MAX_INTEGER, is_canonical
from services.audit.model.leaf import Leaf, PayloadInvalid, parse_payload
from tests.support.log import ACME, event

TRICKY: list[Any] = [
    {"b": 1, "a": {"z": [], "y": {}}},
    {"é": "ü", "e": "\u20ac"},
    {"\U0001f600": 1, "\ufb33": 2},  # By UTF-16 units the other way round than by code points.
    {"a_b": 1, "aab": 2, "aB": 3, "": 4},
    {"control": "\x00\x08\t\n\x0b\x0c\r\x1f\x7f", "quote": '"\\/'},
    {"n": [0, -1, MAX_INTEGER, -MAX_INTEGER, True, False, None]},
    {"f": [1.5, 1e21, 1e-7, 100.0, 0.1]},
    [1, "x", {"k": "v"}],
    "text",
]


@pytest.mark.parametrize("content", TRICKY, ids=repr)
def test_what_rfc_8785_writes_is_canonical_and_nothing_else_is(content: Any) -> None:
    canonical = rfc8785.dumps(content)
    assert is_canonical(json.loads(canonical), canonical)
    for other in (
        json.dumps(content, ensure_ascii=False, indent=1).encode(),
        json.dumps(content).encode(),
        canonical + b" ",
        json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode(),
    ):
        if other != canonical:
            assert not is_canonical(json.loads(other), other)


def test_numbers_of_one_value_have_one_spelling() -> None:
    for raw in (b'{"n":1.0}', b'{"n":10e1}', b'{"n":-0}', b'{"n":1E5}', b'{"a":1,"a":1}', b'{"a":"\\u0061"}'):
        assert not is_canonical(json.loads(raw), raw)


def test_a_leaf_is_rfc_8785() -> None:
    leaf = Leaf(uuid4(), ACME, 7, bytes(32), "actions", MAX_INTEGER, datetime(2026, 1, 2, tzinfo=UTC), "ab" * 32)
    encoded = leaf.encode()
    assert encoded == rfc8785.dumps(json.loads(encoded))
    assert json.loads(encoded)["appended_at"] == "2026-01-02T00:00:00.000000Z"


GRANT = f"grant:{UUID(int=5)}.3.1"


@pytest.mark.parametrize(
    ("actor", "authority"),
    [
        ("user:1", f"passport:{UUID(int=9)}"),
        (f"scim:{UUID(int=9)}", f"scim:{UUID(int=9)}"),
        ("user:1", f"saml:{UUID(int=9)}"),
        ("spiffe://recoup/scanner-worker", GRANT),
        ("spiffe://recoup/scanner", "system"),
        ("process:scanner", "system"),
    ],
)
def test_an_event_rests_on_a_passport_a_grant_or_the_process_itself(actor: str, authority: str) -> None:
    given = event(1, actor=actor, authority=authority)
    assert parse_payload(given.payload, given.event_id, ACME).actor == actor


@pytest.mark.parametrize(
    ("actor", "authority"),
    [
        ("user:1", "system"),
        ("user:1", GRANT),
        ("user:1", ""),
        ("user:1", "passport:"),
        ("user:1", "passport:me"),
        ("user:1", f"passport:{UUID(int=9)}x"),
        ("user:1", f"passport:{UUID(int=9)}\n"),
        ("user:1", f"scim:{UUID(int=9)}"),
        (f"scim:{UUID(int=8)}", f"scim:{UUID(int=9)}"),
        (f"scim:{UUID(int=9)}", f"saml:{UUID(int=9)}"),
        (f"scim:{UUID(int=9)}", "system"),
        ("user:1", "saml:okta"),
        ("process:scanner", ""),
        ("process:scanner", "trust me"),
        ("spiffe://recoup/scanner-worker", f"grant:{UUID(int=5)}"),
        ("spiffe://recoup/scanner-worker", GRANT + ".7"),
    ],
)
def test_an_event_that_rests_on_nothing_is_refused_and_the_field_named(actor: str, authority: str) -> None:
    given = event(1, actor=actor, authority=authority)
    with pytest.raises(PayloadInvalid, match="authority must be"):
        parse_payload(given.payload, given.event_id, ACME)
