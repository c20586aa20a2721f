"""What the tests of evidence bundles share: one log's keys, an honest issuer, and how a lie is found out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from recoup_verify.documents import Disproved
from recoup_verify.evidence.bundle import Proved, check_evidence
from recoup_verify.log import Trust, parse_key
from tests.support.evidence_bundle import Bundling, Change, Log, bundled, folder
from tests.support.receipts import RECEIPT


def named(value: object) -> str:
    """What a case is called, the same in every process."""
    return "" if callable(value) else str(value)[:50]


RECEIPT_FILE = f"receipts/{RECEIPT}.json"
LOG, OTHER_KEY = Log(), Ed25519PrivateKey.generate()
KEYS: dict[str, Any] = {"receipt_key": Ed25519PrivateKey.generate(), "evidence_key": Ed25519PrivateKey.generate()}


def new(**given: Any) -> Bundling:
    """A bundle in the making, by the same keys as all others here."""
    log = Log()
    log.key, log.root, log.trees[0].signer = LOG.key, LOG.root, LOG.trees[0].signer
    return Bundling(log=log, **{**KEYS, **given})


TRUST = Trust.of(parse_key(new().vkey()))


def check(made: Bundling, path: Path, trust: Trust = TRUST) -> Proved:
    """What is proved of a bundle."""
    return check_evidence(folder(made.files, path / "bundle"), trust)


def lie(why: str, path: Path, made: Bundling | None = None, **changes: Change) -> None:
    """Make a bundle with these changes, and expect to be found out."""
    found = bundled(made or new(), **changes)
    with pytest.raises(Disproved, match=why):
        check(found, path)


def lines_changed(made: Bundling, number: int, change: Callable[[Any], Any]) -> None:
    """Change a line of events.jsonl, counted from 1."""
    lines = made.files["events.jsonl"].split(b"\n")
    line = json.loads(lines[number - 1])
    change(line)
    lines[number - 1] = rfc8785.dumps(line)
    made.files["events.jsonl"] = b"\n".join(lines)
