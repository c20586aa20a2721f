"""The offline verifier on genuine receipts: every decision, with amounts that were worked out by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import rfc8785

from recoup_verify.cli import main
from recoup_verify.documents import Disproved
from recoup_verify.log import parse_key
from recoup_verify.receipts.receipt import check_receipt
from recoup_verify.receipts.words import receipt_lines
from services.audit.model.notes import Signer
from tests.support import receipt_cases as cases
from tests.support.evidence_bundle import NAME, Bundling, Log, shown
from tests.support.receipt_cases import Case
from tests.support.receipt_log import Signatories
from tests.support.receipts import STAGES, Issuing, issue

CASES = {
    "deleted": cases.deleted_volume(),
    "deleted, provisional": cases.deleted_volume(closed=False),
    "deleted, less than estimated": cases.deleted_volume("PARTIAL", estimate="400"),
    "deleted, but still there": cases.deletion_that_failed(),
    "deleted, charged by the month": cases.deleted_volume("INCONCLUSIVE", spanning=True),
    "deleted, the bill never came": cases.unclear(cases.deleted_volume(missing=2)),
    "deleted, the bill never came nor closed": cases.unclear(cases.deleted_volume(missing=2, closed=False)),
    "deleted, other currency": cases.unclear(cases.deleted_volume(currency="EUR")),
    "converted": cases.conversion("VERIFIED", "2.24", "3.92"),
    "converted, two months": cases.conversion_over_two_months(),
    "converted, nothing saved": cases.conversion("NOT_REALIZED", "2.8", "0"),
    "converted, costs more": cases.conversion("NEGATIVE", "3.5", "-4.9"),
    "converted, fading": cases.fading_conversion(),
    "converted, a day without a row": cases.conversion_with_a_hole(),
    "variable": cases.variable_resource("68.75", "73.25"),
}


@pytest.fixture(scope="module")
def signatories() -> Signatories:
    return Signatories()


@pytest.mark.parametrize("name", CASES)
def test_a_genuine_receipt_is_proved(name: str, signatories: Signatories) -> None:
    case = CASES[name]
    proved = check_receipt(issue(case, signatories), parse_key(signatories.log.verifier_key.text()))
    assert proved.papers.receipt["decision"] == case.result["decision"]


def written(folder: Path, case: Case, signatories: Signatories) -> list[str]:
    """The receipt in a file, and the command's arguments for it."""
    file = folder / "receipt.json"
    file.write_bytes(issue(case, signatories))
    return ["receipt", str(file), "--key", signatories.log.verifier_key.text()]


def test_what_was_proved_is_said_in_plain_words(
    signatories: Signatories, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(written(tmp_path, cases.deleted_volume(closed=False), signatories)) == 0
    told = capsys.readouterr().out
    assert told.startswith("LOCAL: not evidence")
    for words in (
        "by user:requester as ENGINEER",
        "by user:approver as APPROVER, another person",
        "create_snapshot: intended",
        "which gave snap-1",
        "28 days from 2026-02-08 to 2026-03-07",
        "7 days from 2026-03-11 to 2026-03-17; the resource was confirmed gone",
        "VERIFIED: the money stopped being spent, by recoup-savings/1",
        "economic   59.5 USD",
        "cash       46.9 USD",
        "90 % interval 59.5 to 59.5 USD",
        "PROVIDER_FETCHED s3://bill/2026-03.parquet version v1",
        "provisional",
        "Not proved: that the rows are what the provider billed",
    ):
        assert words in told


def test_what_was_proved_is_printed_as_facts(
    signatories: Signatories, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*written(tmp_path, cases.deleted_volume(), signatories), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["verdict"] == "proved"
    assert facts["local"] is True
    assert facts["receipt"]["economic"] == {"amount": "59.5", "currency": "USD"}
    assert facts["requested_by_person"] != facts["approvals"][0]["person"]
    assert facts["not_proved"]


def test_an_upload_is_told_apart(signatories: Signatories) -> None:
    def uploaded(issuing: Issuing) -> None:
        issuing.measurement["batches"][0]["provenance"] = "USER_UPLOADED"

    raw = issue(cases.deleted_volume(), signatories, hash=uploaded)
    lines = "\n".join(receipt_lines(check_receipt(raw, parse_key(signatories.log.verifier_key.text()))))
    assert "Not proved: anything of the inputs that are USER_UPLOADED" in lines


def test_a_key_of_production_has_no_banner(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The banner hangs on the key's name alone, never on what the file says."""
    signatories = Signatories()
    assert main([*written(tmp_path, cases.deleted_volume(), signatories)[:-1], "example.com/log+00000000+AQ=="]) == 2
    assert "LOCAL" not in capsys.readouterr().out


def test_a_receipt_over_a_new_years_shard_is_proved() -> None:
    """The request stands in the old shard, the issue in the new one: each under the head of its own."""
    log = Log()
    log.others(9)
    signatories = Signatories(Signer(NAME, log.key))
    issuing, placed = Issuing(cases.deleted_volume(), signatories), []
    for stage in STAGES:
        getattr(issuing, stage)()
    for number, event in enumerate(issuing.events):
        if number == 4:
            log.open_shard("2026-05-01T00:00:00.000000Z")
        placed.append(log.add(event.payload, "2026-06-01T00:00:00.000000Z"))
    manifest = Bundling(log=log, receipt_key=signatories.receipt).manifest()
    key = parse_key(signatories.log.verifier_key.text())

    def issued(sizes: Sequence[int]) -> bytes:
        proofs = [log.trees[each.shard].proof(each.index, size) for each, size in zip(placed, sizes, strict=True)]
        events = [{**shown(each), "proof": proof} for each, proof in zip(placed, proofs, strict=True)]
        return rfc8785.dumps({**issuing.bundle, "events": events, "key_manifest": manifest})

    proved = check_receipt(issued([13] * 4 + [5] * 4), key)
    assert (proved.trail[0].head.shard, proved.trail[-1].head.shard) == (0, 1)
    assert any("the shards of the log continue each other" in line for line in receipt_lines(proved))
    with pytest.raises(Disproved, match="the proofs don't all lead to one checkpoint"):
        check_receipt(issued([13, 13, 12, 13] + [5] * 4), key)


def test_the_readme_quotes_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["receipt", "--help"]) == 0
    quoted = (Path(__file__).parents[2] / "verifier" / "README.md").read_text("utf-8")
    assert f"```\n{capsys.readouterr().out}```\n" in quoted
