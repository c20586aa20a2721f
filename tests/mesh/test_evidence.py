"""An auditor exports a story's evidence over the command line, and checks it with recoup-verify alone."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from datetime import UTC, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.mesh.test_cli import Cli
from tests.support.command import DONE, REFUSED, said
from tests.support.story import Told

pytestmark = pytest.mark.xdist_group("story")


@dataclass(frozen=True)
class Bundle:
    """A bundle as it was exported, and what the command said of it."""

    folder: Path
    export: dict[str, Any]

    def json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_bytes())


@pytest.fixture(scope="module")
def cli(told: Told) -> Cli:
    return Cli(told.made)


def period(told: Told) -> tuple[str, str]:
    now = told.made.mesh.clock.now().astimezone(UTC)
    return f"{now - timedelta(days=400):%Y-%m-%d}", f"{now + timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"


@pytest.fixture(scope="module")
def bundle(told: Told, cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    begins, ends = period(told)
    folder = tmp_path_factory.mktemp("evidence") / "bundle"
    done = cli("Auditor", "evidence", "export", "--from", begins, "--to", ends, "-o", str(folder), "--json")
    return Bundle(folder, said(done)["export"])


def verify(told: Told, path: Path) -> tuple[int, dict[str, Any]]:
    key = told.made.mesh.installation.log.root_verifier_key
    command = [sys.executable, "-m", "recoup_verify.cli", "bundle", str(path), "--key", key, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_the_bundle_verifies_offline(told: Told, bundle: Bundle) -> None:
    code, said = verify(told, bundle.folder)
    assert (code, said["verdict"]) == (0, "proved"), said


def test_it_holds_the_receipts_the_approvals_and_the_scans_of_the_story(told: Told, bundle: Bundle) -> None:
    facts = told.story.facts
    receipts = {path.stem for path in (bundle.folder / "receipts").glob("*.json")}
    assert receipts == {receipt["receiptId"] for receipt in facts["receipts"]}
    approved = {a["target"] for a in bundle.json("approvals.json") if a["action"] == "actions.action.approve"}
    assert {f"actions/{request['action_id']}" for request in facts["requests"]} <= approved
    scans = bundle.json("scans.json")
    assert scans
    assert all(scan["event_id"] for scan in scans if scan["state"] in ("COMPLETE", "PARTIAL"))
    # The estate has a region that the scan role may not read: the scan says so, and isn't complete.
    assert any(unit["outcome"] == "DENIED" for scan in scans for unit in scan["missed"])
    keys = bundle.json("keys.json")
    assert {key["kind"] for key in keys} == {"connection", "log", "receipt", "evidence"}
    # Others may have made connections since, which nobody has verified yet.
    verified = [key for key in keys if key["kind"] == "connection" and key["verified_at"]]
    assert {key["external_id_enforced"] for key in verified} == {"yes"}
    rows = list(csv.DictReader(io.StringIO((bundle.folder / "approvals.csv").read_text(), newline="")))
    assert [row["event_id"] for row in rows] == [each["event_id"] for each in bundle.json("approvals.json")]


def test_its_chain_is_the_organizations_own_from_the_first_event_on(bundle: Bundle) -> None:
    lines = [json.loads(line) for line in (bundle.folder / "events.jsonl").read_bytes().splitlines()]
    leaves = [json.loads(line["leaf"]) for line in lines]
    assert [leaf["org_seq"] for leaf in leaves] == list(range(1, len(leaves) + 1))
    assert len({leaf["organization_id"] for leaf in leaves}) == 1
    assert all("payload" in line for line in lines)


def test_the_summary_says_what_the_receipts_in_force_sum_up_to(told: Told, bundle: Bundle) -> None:
    page = (bundle.folder / "summary.html").read_text()
    in_force = [r for r in told.story.facts["receipts"] if not r["supersededBy"]]
    for days in (7, 14, 30):
        total = sum(Decimal(r["economic"]["amount"]) for r in in_force if r["days"] == days)
        assert f"{total:,.2f} USD after {days} days" in page
    assert "<script" not in page


def test_a_bundle_about_one_action_discloses_nothing_else(told: Told, cli: Cli, tmp_path: Path) -> None:
    begins, ends = period(told)
    action = told.story.facts["requests"][0]["action_id"]
    file = tmp_path / "one.zip"
    done = cli("Security", "evidence", "export", "--from", begins, "--to", ends, "--scope", f"actions/{action}",
               "-o", str(file))  # fmt: skip
    assert done.exit_code == DONE, done.stderr
    assert verify(told, file)[0] == 0
    folder = tmp_path / "unpacked"
    with zipfile.ZipFile(file) as packed:
        packed.extractall(folder)
    lines = [json.loads(line) for line in (folder / "events.jsonl").read_bytes().splitlines()]
    shown = [json.loads(line["payload"]) for line in lines if "payload" in line]
    assert shown
    about = {f"actions/{action}"}
    assert all(p["target"] in about or p["metadata"].get("action_id") == action for p in shown)
    assert json.loads((folder / "scans.json").read_bytes()) == []


def test_exports_are_listed_and_who_may_not_gets_none(cli: Cli, bundle: Bundle, tmp_path: Path) -> None:
    listed = cli.json("Auditor", "evidence", "list")["exports"]
    assert bundle.export["exportId"] in [each["exportId"] for each in listed]
    assert "READY" in cli("Admin", "evidence", "list").stdout
    for role in ("FinOps", "Finance", "Approver", "Viewer"):
        refused = cli(
            role, "evidence", "export", "--from", "2026-01-01", "--to", "2026-01-02", "-o", str(tmp_path / "x")
        )
        assert (refused.exit_code, "PERMISSION_MISSING" in refused.stderr) == (REFUSED, True)


def test_the_export_is_in_the_log_itself(cli: Cli, bundle: Bundle) -> None:
    target = f"evidence/{bundle.export['exportId']}"
    found = cli.json("Auditor", "audit", "events", "--target", target)["events"]
    assert [event["action"].rpartition(".")[2] for event in reversed(found)] == ["start", "run", "seal", "complete"]
