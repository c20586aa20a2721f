"""The `recoup` command line against a running mesh: what it prints, and with which exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from recoup_local.issuer import find_person
from tests.support.command import DONE, REFUSED, WRONG_USE, recoup, said
from tests.support.mesh import TestMesh
from tests.support.story import Told

pytestmark = pytest.mark.xdist_group("story")

# The id of nothing.
NOBODY = "00000000-0000-4000-8000-000000000000"


class Cli:
    """The command line as one person uses it."""

    def __init__(self, made: TestMesh) -> None:
        self._made = made

    def __call__(self, role: str, *arguments: str, **environment: str) -> Result:
        token = self._made.mesh.token("acme", role) if role else ""
        return recoup(self._made, token, *arguments, **environment)

    def json(self, role: str, *arguments: str) -> dict[str, Any]:
        return said(self(role, "--json", *arguments))


@pytest.fixture(scope="module")
def cli(told: Told) -> Cli:
    return Cli(told.made)


READS = (
    ("orgs", "memberships"),
    ("members", "members"),
    ("connections", "connections"),
    ("scan list", "scans"),
    ("findings", "findings"),
    ("prices", "prices"),
    ("events", "events"),
    ("audit events", "events"),
    ("bill sources", "billSources"),
    ("bill imports", "billImports"),
    ("action list", "actions"),
    ("receipt list", "receipts"),
    ("ledger", "lines"),
)


@pytest.mark.parametrize(("command", "key"), READS, ids=[command for command, _ in READS])
def test_every_list_is_a_table_for_people_and_json_for_programs(cli: Cli, command: str, key: str) -> None:
    found = cli.json("Admin", *command.split())[key]
    assert found
    # The option stands before the command's name or behind it.
    assert key in said(cli("Admin", *command.split(), "--json"))
    shown = cli("Admin", *command.split())
    assert shown.exit_code == DONE
    assert len(shown.stdout.splitlines()) > 2


def test_an_auditor_finds_what_somebody_did(cli: Cli, told: Told) -> None:
    request = told.story.facts["requests"][0]
    target = f"actions/{request['action_id']}"
    (approval,) = cli.json("Auditor", "audit", "events", "--action", "actions.action.approve", "--target", target)[
        "events"
    ]
    shown = cli("Auditor", "audit", "events", "--target", target, "--role", "APPROVER", "--result", "OK").stdout
    assert "user:" in shown
    assert approval["eventId"] in shown
    actor = f"user:{find_person('acme', 'Approver').user_id}"
    told_by_actor = cli.json("Auditor", "audit", "events", "--actor", actor, "--all")["events"]
    assert approval["eventId"] in [event["eventId"] for event in told_by_actor]
    assert {event["role"] for event in told_by_actor} == {"APPROVER"}
    traced = cli.json("Auditor", "audit", "events", "--trace", approval["traceId"])["events"]
    assert approval["eventId"] in [event["eventId"] for event in traced]
    moment = approval["occurredAt"]
    assert cli.json("Auditor", "audit", "events", "--target", target, "--to", moment, "--action",
                    "actions.action.approve")["events"] == []  # fmt: skip
    # Everybody asks the same; each sees what their role may.
    seen = {event["action"].split(".")[0] for event in cli.json("FinOps", "audit", "events", "--all")["events"]}
    assert seen == {"scanner", "pricing", "actions"}
    assert "PERMISSION_MISSING" in cli("Viewer", "audit", "events").stderr


def test_an_action_is_shown_with_what_an_approver_must_see(cli: Cli, told: Told) -> None:
    request = told.story.facts["requests"][0]
    shown = cli("Approver", "action", "show", request["action_id"]).stdout
    for text in (
        request["plan_hash"],
        "Snapshot volume",
        "Create a volume from the snapshot",
        "approved",
        "after 30 days",
    ):
        assert text in shown, text


def test_a_receipt_is_fetched_and_verifies(cli: Cli, told: Told, tmp_path: Path) -> None:
    receipt = told.story.facts["receipt"]["receipt_id"]
    file = tmp_path / "receipt.json"
    assert cli("Finance", "receipt", "fetch", receipt, "--output", str(file)).exit_code == DONE
    key = told.made.mesh.installation.log.verifier_key
    command = [sys.executable, "-m", "recoup_verify.cli", "receipt", str(file), "--key", key]
    assert subprocess.run(command, capture_output=True, timeout=60).returncode == 0
    nowhere = cli("Finance", "receipt", "fetch", receipt, "--output", str(tmp_path / "no" / "file"))
    assert (nowhere.exit_code, "can't be written" in nowhere.stderr) == (REFUSED, True)


REFUSALS = (
    (("action", "show", NOBODY), "RESOURCE_NOT_FOUND"),
    (("action", "show", "not-an-id"), "FIELD_INVALID"),
    (("action", "request", NOBODY), "RESOURCE_NOT_FOUND"),
    (("action", "approve", NOBODY, "0" * 64), "RESOURCE_NOT_FOUND"),
    (("action", "approve", NOBODY, "short"), "FIELD_INVALID"),
    (("action", "reject", NOBODY, "--comment", "no"), "RESOURCE_NOT_FOUND"),
    (("action", "cancel", NOBODY), "RESOURCE_NOT_FOUND"),
    (("receipt", "fetch", NOBODY, "--output", os.devnull), "RESOURCE_NOT_FOUND"),
    (("bill", "fetch", NOBODY), "RESOURCE_NOT_FOUND"),
    (("scan", "start", NOBODY), "RESOURCE_NOT_FOUND"),
    (("scan", "show", NOBODY), "RESOURCE_NOT_FOUND"),
    (("verify", NOBODY), "RESOURCE_NOT_FOUND"),
)


@pytest.mark.parametrize(("arguments", "reason"), REFUSALS, ids=[" ".join(a[:2]) + " " + r for a, r in REFUSALS])
def test_a_refusal_is_one_on_stderr_with_its_reason(cli: Cli, arguments: tuple[str, ...], reason: str) -> None:
    done = cli("Admin", *arguments)
    assert (done.exit_code, done.stdout) == (REFUSED, "")
    assert f"reason {reason}" in done.stderr
    if reason == "FIELD_INVALID":
        assert "_id:" in done.stderr or "plan_hash:" in done.stderr


def test_who_may_not_is_told_so(cli: Cli, told: Told) -> None:
    request = told.story.facts["requests"][0]
    done = cli("Viewer", "action", "request", request["finding_id"])
    assert (done.exit_code, "PERMISSION_MISSING" in done.stderr) == (REFUSED, True)
    again = cli("Approver", "action", "approve", request["action_id"], request["plan_hash"])
    assert (again.exit_code, "STATE_WRONG" in again.stderr) == (REFUSED, True)
    old = told.made.mesh.installation.issuer.token(find_person("acme", "FinOps"), seconds=-600)
    expired = cli("", "findings", RECOUP_TOKEN=old)
    assert (expired.exit_code, "CREDENTIAL_EXPIRED" in expired.stderr) == (REFUSED, True)


def test_wrong_use_says_what_is_missing(cli: Cli, tmp_path: Path) -> None:
    assert "sign in first" in cli("", "findings").stderr
    assert cli("", "findings").exit_code == WRONG_USE
    assert "--account" in cli("Admin", "bill", "add", NOBODY).stderr
    assert cli("Admin", "action").exit_code == WRONG_USE
    assert cli("Admin", "action", "reject", NOBODY).exit_code == WRONG_USE
    assert "--gateway" in cli("Admin", "findings", RECOUP_GATEWAY="").stderr
    other = cli("Admin", "--org", "globex", "findings")
    assert (other.exit_code, "Yours: acme" in other.stderr) == (WRONG_USE, True)
