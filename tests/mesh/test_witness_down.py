"""While the log's witness is dead, receipts wait and nothing else does; once it is back, they become final."""

from __future__ import annotations

from pathlib import Path

import pytest

from recoup_verify.log import parse_key
from services.audit.model.notes import Note
from tests.mesh.test_saving import verify
from tests.support.story import Told

pytestmark = pytest.mark.xdist_group("story")


def signers(checkpoint: str) -> list[str]:
    """The names of who signed a checkpoint."""
    return [line.name for line in Note.parse(checkpoint).lines]


def test_a_receipt_that_was_issued_without_a_witness_says_what_it_waits_for(told: Told) -> None:
    waiting = told.meanwhile.waiting
    assert waiting["state"] == "RECEIPT_STATE_ISSUED"
    assert waiting["receipt"]["decision"] in ("DECISION_VERIFIED", "DECISION_PARTIAL")
    assert (waiting.get("bundle", ""), waiting.get("cosigned", 0), waiting["quorum"]) == ("", 0, 1)


def test_a_receipt_that_was_cosigned_before_stays_final(told: Told, tmp_path: Path) -> None:
    assert told.meanwhile.earlier["state"] == "RECEIPT_STATE_FINAL"
    assert verify(told, told.meanwhile.earlier["bundle"].encode(), tmp_path)[0] == 0


def test_ordinary_events_are_proved_meanwhile_by_the_log_alone(told: Told) -> None:
    own = parse_key(told.made.mesh.installation.log.verifier_key).name
    assert signers(told.meanwhile.proof["checkpoint"]["note"]) == [own]


def test_evidence_was_exported_meanwhile_and_says_which_receipts_it_lacks(told: Told) -> None:
    assert "not enclosed: it isn&#x27;t final: too few witnesses have cosigned yet" in told.meanwhile.summary


def test_it_is_final_and_verifies_once_the_witness_is_back(told: Told, tmp_path: Path) -> None:
    final = told.meanwhile.final
    assert final["state"] == "RECEIPT_STATE_FINAL"
    assert final["receipt"]["receiptId"] == told.meanwhile.waiting["receipt"]["receiptId"]
    code, said = verify(told, final["bundle"].encode(), tmp_path)
    assert (code, said["verdict"]) == (0, "proved"), said
