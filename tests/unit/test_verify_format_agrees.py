"""Two readings of FORMAT.md that share no code: actions writes, byte for byte, what these tests wrote by hand."""

from __future__ import annotations

import base64
from uuid import UUID

import pytest
import rfc8785

from recoup_verify.log import parse_key
from recoup_verify.receipt import check_receipt
from services.actions.model import receipt as producer
from tests.support import receipt_cases as cases
from tests.support.receipt_log import Signatories, sha256
from tests.support.receipts import STAGES, Issuing


@pytest.fixture(scope="module")
def issued() -> Issuing:
    """A receipt with all its parts."""
    issuing = Issuing(cases.deleted_volume(), Signatories())
    for stage in STAGES:
        getattr(issuing, stage)()
    return issuing


def documents(issued: Issuing) -> dict[str, bytes]:
    return {name: rfc8785.dumps(getattr(issued, name)) for name in ("receipt", "plan", "baseline", "measurement")}


def test_the_statement_is_the_same(issued: Issuing) -> None:
    content, ids = documents(issued), [UUID(event.payload["event_id"]) for event in issued.events[:-1]]
    made = producer.statement(content["receipt"], content["baseline"], content["measurement"], ids)
    assert made == rfc8785.dumps(issued.statement)


def test_the_bundle_is_the_same_and_is_proved(issued: Issuing) -> None:
    signatories, statement = issued.signatories, rfc8785.dumps(issued.statement)
    signature = signatories.receipt.sign(producer.pre_authentication(statement))
    signed = producer.envelope(statement, sha256(signatories.receipt_public), signature)
    proofs = [proof(event) for event in issued.bundle["events"]]
    checkpoint = issued.bundle["events"][0]["proof"].partition("\n\n")[2]
    made = producer.bundle(documents(issued), signed, proofs, checkpoint, issued.bundle["key_manifest"]).encode()
    assert made == rfc8785.dumps(issued.bundle)
    check_receipt(made, parse_key(signatories.log.verifier_key.text()))


def proof(event: dict[str, str]) -> producer.Proof:
    """An event of a bundle as actions gets it from the log."""
    lines = event["proof"].partition("\n\n")[0].split("\n")
    return producer.Proof(
        leaf=event["leaf"].encode(),
        payload=event["payload"].encode(),
        salt=base64.b64decode(event["salt"]),
        index=int(lines[1].removeprefix("index ")),
        hashes=[base64.b64decode(line) for line in lines[2:]],
    )
