"""The bundle's documents: canonical, bound to each other, and disclosing exactly what was asked for."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import orjson
import pytest
import rfc8785

from services.audit.model.evidence import documents
from services.audit.model.evidence.documents import Contents, Counts, Head, ProvenLeaf, Scope

ACTION = UUID(int=5)
TEXTS = ("plain", "\x00\x1f\b\t\n\f\r", '"\\/', "\u2028\x7f\u00e4\U0001f4b6", "</script>", "")


@pytest.mark.parametrize("given", TEXTS)
@pytest.mark.parametrize("erased", [False, True])
def test_lines_are_canonical(given: str, erased: bool) -> None:
    raw = given.encode()
    for disclosed in (None, (raw, b"\xff" * 32)):
        line = documents.event_line(1, 2**40 - 1, raw, disclosed, erased=erased)
        content = orjson.loads(line)
        assert rfc8785.dumps(content) + b"\n" == line
        assert line.count(b"\n") == 1
        wanted = {"index", "leaf", "shard"} | ({"erased"} if erased else {"payload", "salt"} if disclosed else set())
        assert set(content) == wanted
        assert content["leaf"] == given
        if "payload" in wanted:
            assert (content["payload"], base64.b64decode(content["salt"])) == (given, b"\xff" * 32)


@pytest.mark.parametrize(
    ("scope", "payload", "covered"),
    [
        (Scope(), {"target": "members/1"}, True),
        (Scope((ACTION,)), {"target": f"actions/{ACTION}"}, True),
        (Scope((ACTION,)), {"target": "receipts/1", "metadata": {"action_id": str(ACTION)}}, True),
        (Scope((ACTION,)), {"target": f"actions/{UUID(int=6)}", "metadata": {"action_id": str(UUID(int=6))}}, False),
        (Scope((ACTION,)), {"target": "members/1", "metadata": "no object"}, False),
        (Scope((), ("connections/", "scans/")), {"target": "scans/9"}, True),
        (Scope((), ("connections/",)), {"target": "members/9"}, False),
        (Scope((ACTION,), ("members/",)), {"target": "members/9"}, True),
        (Scope((ACTION,)), {}, False),
    ],
)
def test_a_scope_covers_what_it_names(scope: Scope, payload: dict[str, Any], covered: bool) -> None:
    assert scope.covers(payload) is covered


def test_the_statement_says_all_of_it_in_one_order() -> None:
    berlin = datetime(2026, 4, 1, 1, 30, tzinfo=timezone(timedelta(hours=2)))
    said = Contents(
        bundle_id=UUID(int=1), organization_id=UUID(int=2), scope=Scope((ACTION, UUID(int=4)), ("b", "a")),
        begins_at=datetime(2026, 1, 1, tzinfo=UTC), ends_at=berlin, created_at=berlin, log="x/log",
        heads=[Head(0, 5), Head(1, 7)], chain_seq=3, chain_leaf=b"\xab" * 32,
        counts=Counts(events=3, disclosed=2, erased=1, receipts=0),
        digests={"b.json": "1" * 64, "a.json": "0" * 64, "receipts/x.json": "2" * 64},
    )  # fmt: skip
    raw = documents.statement(said)
    content = orjson.loads(raw)
    assert rfc8785.dumps(content) == raw
    assert [each["name"] for each in content["subject"]] == ["a.json", "b.json", "receipts/x.json"]
    predicate = content["predicate"]
    assert predicate["period"] == {"from": "2026-01-01T00:00:00.000000Z", "to": "2026-03-31T23:30:00.000000Z"}
    assert predicate["scope"] == f"actions/{UUID(int=4)},actions/{ACTION},target:a,target:b"
    assert Scope().text() == "organization"
    assert predicate["heads"] == [{"shard": 0, "size": 5}, {"shard": 1, "size": 7}]
    assert predicate["chain"] == {"org_seq": 3, "leaf": "ab" * 32}
    assert predicate["counts"] == {"events": 3, "disclosed": 2, "erased": 1, "receipts": 0}


def test_the_envelope_and_the_seal_are_canonical() -> None:
    signed = documents.envelope(b"{}", "k" * 64, b"\1" * 64)
    assert rfc8785.dumps(orjson.loads(signed)) == signed
    assert documents.pre_authentication(b"{}") == b"DSSEv1 28 application/vnd.in-toto+json 2 {}"
    leaf = ProvenLeaf(b"{}", b'{"a":1}', b"\2" * 32, 7, [b"\3" * 32], "x/log\n8\nroot\n\n\u2014 x/log sig\n")
    sealed = documents.seal(leaf, [b"\4" * 32], "keys\n")
    content = orjson.loads(sealed)
    assert rfc8785.dumps(content) == sealed
    assert content["proof"].startswith("c2sp.org/tlog-proof@v1\nindex 7\n")
    assert content["proof"].endswith("\n\nx/log\n8\nroot\n\n\u2014 x/log sig\n")
    assert set(content) == {"v", "leaf", "payload", "salt", "proof", "consistency", "key_manifest"}
