"""Two readings of FORMAT.md that share no code: the services write, byte for byte, what these tests wrote by hand."""

from __future__ import annotations

import base64
import json
from datetime import datetime
from uuid import UUID

import pytest
import rfc8785

from recoup_verify.log import parse_key
from recoup_verify.receipts.receipt import check_receipt
from services.actions.model import receipt as producer
from services.audit.model import multiproof
from services.audit.model.evidence import documents as evidence
from tests.support import receipt_cases as cases
from tests.support.evidence_bundle import Bundling, bundled
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


@pytest.fixture(scope="module")
def made() -> Bundling:
    """An evidence bundle with all its parts."""
    return bundled()


def test_the_lines_of_events_are_the_same(made: Bundling) -> None:
    for line, placed in zip(made.files["events.jsonl"].splitlines(keepends=True), made.log.placed, strict=False):
        said = json.loads(line)
        disclosed = (placed.payload, placed.salt) if "payload" in said else None
        erased = "erased" in said
        assert evidence.event_line(placed.shard, placed.index, placed.leaf, disclosed, erased=erased) == line


def test_the_proof_of_many_leaves_is_the_same(made: Bundling) -> None:
    for shard, (tree, size) in enumerate(zip(made.log.trees, made.sizes, strict=True)):
        indexes = [placed.index for placed in made.log.placed[:17] if placed.shard == shard]
        hashes = tree.hashes(list(multiproof.uncovered(indexes, size)))
        assert [base64.b64encode(each).decode() for each in hashes] == (
            made.files[f"log/{shard}/tree.txt"].decode().splitlines()
        )


def test_the_statement_and_envelope_of_evidence_are_the_same(made: Bundling) -> None:
    claim = made.statement["predicate"]
    period = [datetime.fromisoformat(claim["period"][name]) for name in ("from", "to")]
    contents = evidence.Contents(
        bundle_id=UUID(claim["bundle_id"]),
        organization_id=UUID(claim["organization_id"]),
        scope=evidence.Scope(),
        begins_at=period[0],
        ends_at=period[1],
        created_at=datetime.fromisoformat(claim["created_at"]),
        log=claim["log"],
        heads=[evidence.Head(**each) for each in claim["heads"]],
        chain_seq=claim["chain"]["org_seq"],
        chain_leaf=bytes.fromhex(claim["chain"]["leaf"]),
        counts=evidence.Counts(**claim["counts"]),
        digests={each["name"]: each["digest"]["sha256"] for each in made.statement["subject"]},
    )
    raw = evidence.statement(contents)
    assert raw == rfc8785.dumps(made.statement)
    signature = made.evidence_key.sign(evidence.pre_authentication(raw))
    key_id = sha256(made.evidence_key.public_key().public_bytes_raw())
    assert evidence.envelope(raw, key_id, signature) == made.files["manifest.json"]
