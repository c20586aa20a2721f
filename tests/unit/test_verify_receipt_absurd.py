"""The offline verifier on receipts with absurd content, signed by whoever may sign: an answer, never a failure."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from recoup_verify.documents import CannotTell, Disproved
from recoup_verify.log import parse_key
from recoup_verify.receipts.receipt import check_receipt
from recoup_verify.receipts.words import receipt_facts, receipt_lines
from tests.support import receipt_cases as cases
from tests.support.receipt_log import Signatories
from tests.support.receipts import STAGES, Issuing, issue

SIGNATORIES = Signatories()
KEY = parse_key(SIGNATORIES.log.verifier_key.text())
# Each part, and the stage before which it is changed.
PARTS = {
    "receipt": "state",
    "plan": "hash",
    "baseline": "hash",
    "measurement": "hash",
    "statement": "issue",
    "bundle": "end",
}
ABSURD: list[Any] = [
    *(None, 0, -1, 1.5, True, 2**53 - 1, "", "x" * 5000, "\u202e\x1b[31m", "9" * 400, "0.1", "NaN", "2026-02-30"),
    *([], {}, [None], {"a": 1}, [[]]),
]


def paths(document: Any, way: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every place of a document; of a list its first two."""
    names: list[str | int] = []
    if isinstance(document, dict):
        names = list(document)
    if isinstance(document, list):
        names = list(range(min(len(document), 2)))
    for name in names:
        yield (*way, name)
        yield from paths(document[name], (*way, name))


@pytest.mark.parametrize("part", PARTS)
def test_absurd_content_gets_an_answer(part: str) -> None:
    issuing = Issuing(cases.deletion_that_failed(), SIGNATORIES)
    for stage in STAGES:
        getattr(issuing, stage)()
    every = [(path, value) for path in paths(getattr(issuing, part)) for value in ABSURD]
    # Most of them reach the verifier: what the issuer itself can't build is no test of it.
    assert sum(answered(part, path, value) for path, value in Random(part).sample(every, 60)) >= 50


def answered(part: str, path: tuple[str | int, ...], value: Any) -> bool:
    """Whether there was a receipt to answer for; fails unless the verifier answers."""

    def change(issuing: Issuing) -> None:
        found = getattr(issuing, part)
        for name in path[:-1]:
            found = found[name]
        found[path[-1]] = copy.deepcopy(value)

    try:
        raw = issue(cases.deletion_that_failed(), SIGNATORIES, **{PARTS[part]: change})
    except (KeyError, TypeError, AttributeError, IndexError):
        return False
    try:
        proved = check_receipt(raw, KEY)
    except (Disproved, CannotTell):
        return True
    # What no rule speaks of may be anything, as long as a terminal isn't steered by it.
    assert all(line.isprintable() for line in receipt_lines(proved))
    assert json.dumps(receipt_facts(proved))
    return True
