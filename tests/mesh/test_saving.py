"""The story of a saving, from connection to receipt, against what the cloud and the log themselves say."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from recoup_local.cloud import ProxyControl
from tests.mesh.test_faults import nothing_is_lost_or_twice, rows
from tests.support.mesh import until
from tests.support.story import Told

pytestmark = pytest.mark.xdist_group("story")


def verify(told: Told, content: bytes, folder: Path) -> tuple[int, dict[str, Any]]:
    file = folder / "receipt.json"
    file.write_bytes(content)
    key = told.made.mesh.installation.log.verifier_key
    command = [sys.executable, "-m", "recoup_verify.cli", "receipt", str(file), "--key", key, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.returncode, json.loads(done.stdout)


def test_refusals_were_seen(told: Told) -> None:
    facts = told.story.facts
    assert facts["refusals"]["own_approval"] == {"status": 403, "reason": "REQUESTER_IS_APPROVER"}
    assert facts["refusals"]["wrong_hash"]["reason"] == "PLAN_HASH_MISMATCH"
    assert set(facts["isolation"]) == {"connection", "scan", "finding", "action", "receipt", "event"}
    assert set(facts["isolation"].values()) == {404}


def test_the_cloud_was_changed_once_for_each_step_and_no_more(told: Told) -> None:
    control = ProxyControl.of(told.made.mesh.cloud)
    wanted = {"CreateSnapshot": 2, "DeleteVolume": 2, "ModifyVolume": 2, "ReleaseAddress": 2}
    ids = {each["resource"]["id"] for each in told.story.facts["requests"]}
    seen = [
        line
        for line in control.log()
        if line["mutating"] and line["principal"] == "session" and ids & set(line["params"].values())
    ]
    counted = {name: sum(line["action"] == name for line in seen) for name in wanted}
    assert counted == wanted
    assert all(line["applied"] for line in seen)
    # Each by the act role's session, under a policy of its own, whose identity names the action.
    assert all(":assumed-role/RecoupAct/act-" in line["arn"] for line in seen)


def test_a_deletion_waited_for_its_snapshot_and_its_quarantine(told: Told) -> None:
    control = ProxyControl.of(told.made.mesh.cloud)
    volume = told.story.facts["requests"][0]["resource"]["id"]
    log = [line for line in control.log() if volume in line["params"].values()]
    made = next(line for line in log if line["action"] == "CreateSnapshot")
    deleted = next(line for line in log if line["action"] == "DeleteVolume")
    waited = datetime.fromisoformat(deleted["sim_time"]) - datetime.fromisoformat(made["sim_time"])
    assert waited >= timedelta(hours=24)
    snapshot = told.story.facts["actions"][0]["steps"][0]["result_id"]
    polls = [
        line for line in control.log() if line["action"] == "DescribeSnapshots" and snapshot in line["params"].values()
    ]
    assert sum("<status>pending" in (line["answer"] or "") for line in polls) >= 1


def test_every_checkpoint_has_its_receipt_and_every_receipt_verifies(told: Told, tmp_path: Path) -> None:
    finance = told.made.rest("acme", "Finance")
    receipts = told.story.facts["receipts"]
    assert {(r["actionId"], r["days"]) for r in receipts} == {
        (each["action_id"], days) for each in told.story.facts["requests"] for days in (7, 14, 30)
    }
    for receipt in receipts:
        bundle = finance.get(f"/receipts/{receipt['receiptId']}")["bundle"]
        code, said = verify(told, bundle.encode(), tmp_path)
        assert (code, said["verdict"], said["local"]) == (0, "proved", True), said
        assert receipt["decision"] in ("DECISION_VERIFIED", "DECISION_PARTIAL"), receipt


def test_the_amounts_are_what_the_bill_stopped_charging(told: Told) -> None:
    """Against the meter's own rows, which the services never see but through the bill."""
    finance = told.made.rest("acme", "Finance")
    for each in told.story.facts["requests"]:
        receipt = next(r for r in told.story.facts["receipts"] if r["actionId"] == each["action_id"] and r["days"] == 7)
        measurement = json.loads(json.loads(finance.get(f"/receipts/{receipt['receiptId']}")["bundle"])["measurement"])
        before = sum(Decimal(day["counterfactual"]) for day in measurement["result"]["daily"])
        after = sum(Decimal(day["actual"]) + Decimal(day["leakage"]) for day in measurement["result"]["daily"])
        assert Decimal(measurement["result"]["economic"]) == before - after > 0
        estimate = Decimal(each["estimate"]["amount"]) * 12 * 7 / 365
        # The snapshot's estimate is an upper bound: a deletion may save more than was estimated, never far less.
        assert before - after > estimate * Decimal("0.9")
        if each["action_type"] != "aws.ebs.delete_volume":
            assert abs(before - after - estimate) < estimate * Decimal("0.05")


def test_a_changed_byte_is_named(told: Told, tmp_path: Path) -> None:
    assert told.story.facts["verification"]["receipt"]["exit"] == 0
    assert told.story.facts["verification"]["one_byte_changed"]["exit"] == 1
    content = told.receipt.encode()
    step = max(1, len(content) // 60)
    for place in range(0, len(content), step):
        changed = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
        code, said = verify(told, changed, tmp_path)
        assert (code, said["verdict"]) == (1, "disproved"), (place, said)
        assert said["why"]


def test_an_approval_is_one_trace_over_six_processes(told: Told) -> None:
    trace_id = told.story.facts["requests"][0]["approval_trace"]
    wanted = {"gateway", "identity", "actions", "actions-worker", "scanner", "broker"}

    def complete() -> str | None:
        spans = {span.span_id: span for span in told.made.mesh.spans.trace(trace_id)}
        roots = [span for span in spans.values() if span.parent_id not in spans]
        return roots[0].process if wanted <= {s.process for s in spans.values()} and len(roots) == 1 else None

    assert until(complete, 30.0) == "gateway"


def in_force(told: Told) -> list[dict[str, Any]]:
    """The receipts that no later one supersedes."""
    receipts = told.story.facts["receipts"]
    superseded = {receipt["supersedes"] for receipt in receipts}
    return [receipt for receipt in receipts if receipt["receiptId"] not in superseded]


def test_what_was_provisional_is_superseded_once_the_month_has_closed(told: Told) -> None:
    receipts = {receipt["receiptId"]: receipt for receipt in told.story.facts["receipts"]}
    later = [receipt for receipt in receipts.values() if receipt["supersedes"]]
    # The windows of 7 and 14 days lie in the month that closed; that of 30 days doesn't.
    assert {(r["days"], r["provisional"]) for r in later} == {(7, False), (14, False)}
    assert len(later) == 2 * len(told.story.facts["requests"])
    for receipt in later:
        earlier = receipts[receipt["supersedes"]]
        assert (earlier["actionId"], earlier["days"], earlier["provisional"]) == (
            receipt["actionId"], receipt["days"], True,
        )  # fmt: skip
        assert earlier["supersededBy"] == receipt["receiptId"]
    assert all(not receipt["supersededBy"] for receipt in in_force(told))
    assert len(in_force(told)) == 3 * len(told.story.facts["requests"])


def test_the_ledger_adds_up(told: Told) -> None:
    ledger = told.story.facts["ledger"]
    for line in ledger["lines"]:
        receipts = [r for r in in_force(told) if r["days"] == line["days"]]
        total = sum(Decimal(r["economic"]["amount"]) for r in receipts)
        assert Decimal(line["economic"]["amount"]) == total.quantize(Decimal("0.01"))
        assert line["verified"] + line["partial"] == len(told.story.facts["requests"])
    assert ledger["executedActions"] == len(told.story.facts["requests"])


def test_nothing_was_lost_on_the_way(told: Told) -> None:
    nothing_is_lost_or_twice(told.made)
    dead = [
        row
        for schema in ("scanner", "pricing", "actions")
        for row in rows(told.made, f"SELECT kind, last_error FROM {schema}.jobs WHERE status = 'DEAD'")
    ]
    assert not dead


def test_what_was_printed_is_for_people(told: Told) -> None:
    for text in ("USD a month", "The ledger", "PROVED", "DISPROVED", "LOCAL: not evidence", "REQUESTER_IS_APPROVER"):
        assert text in told.printed, text
