"""The story through real mTLS, in pieces: connect, scan, find; each against the plain truth about the estate."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

import pytest
from click.testing import CliRunner

from recoup_local.cloud import DENIED_REGION
from recoup_local.cloud.estate.truth import expectations
from recoup_local.tracing import trace
from tests.support import mesh as support
from tests.support.mesh import TestMesh

pytestmark = pytest.mark.xdist_group("mesh")

# On these days the estate changed in ways that a scan before and after can't tell from no change at all.
SCAN_DAYS = (-35, -21, -14, -12, -10, -8, -7, 0)
BLOCKED = {
    None: {"ACTIONABILITY_ACTIONABLE", "ACTIONABILITY_NO_ACTION"},
    "hold": {"ACTIONABILITY_HELD"},
    "iac": {"ACTIONABILITY_MANAGED_AS_CODE"},
    "autoscaler": {"ACTIONABILITY_AUTOSCALED"},
}


def test_connecting_shows_that_the_external_id_is_enforced(made: TestMesh) -> None:
    found = made.rest("acme", "FinOps").get(f"/connections/{made.connection_id}")["connection"]
    seen = {(c["withoutExternalId"], c["withWrongExternalId"], c["withExternalId"]) for c in found["roleChecks"]}
    assert (len(found["roleChecks"]), seen) == (4, {("REFUSED", "REFUSED", "ALLOWED")})
    assert "awsSecretAccessKey" not in json.dumps(found)
    outcomes = {(c["use"], c["outcome"]) for c in found["permissionChecks"]}
    assert outcomes == {("scan", "ALLOWED"), ("act", "ALLOWED")}
    finops = made.rest("acme", "FinOps")
    planned = finops.post("/connectionPlans", {"principalArn": made.base_user.arn})
    assert planned["externalId"] == found["externalId"]
    finops.post(f"/connections/{made.connection_id}:check")

    def checked() -> dict[str, Any] | None:
        now: dict[str, Any] = finops.get(f"/connections/{made.connection_id}")["connection"]
        return now if now["checkedAt"] != found["checkedAt"] else None

    assert support.until(checked)["state"] == "CONNECTION_STATE_ACTIVE"


def test_a_connection_whose_roles_refuse_us_is_not_accepted(made: TestMesh) -> None:
    finops = made.rest("acme", "FinOps")
    given = support.new_connection(made)
    account = given["awsAccounts"][0]
    account["scanRoleArn"] = account["scanRoleArn"].replace("RecoupScan", "NobodyMadeIt")
    connection = finops.post("/connections", given)["connection"]
    found = support.verify(finops, connection["connectionId"])
    assert found["state"] == "CONNECTION_STATE_FAILED"
    assert "NobodyMadeIt refuses us" in found["problem"]
    refused = finops.call("POST", "/scans", json={"connectionId": connection["connectionId"]})
    assert (refused.status_code, refused.json()["reason"]) == (400, "STATE_WRONG")


def test_scans_find_exactly_what_is_true_of_the_estate(made: TestMesh) -> None:
    finops = made.rest("acme", "FinOps")
    for day in SCAN_DAYS:
        for each in [d for d in made.estate.plan.days() if d <= day and d not in made.estate.done_days]:
            made.go_to(each)
            made.estate.seed_day(each)
        # A little later each time, so that what was seen at a threshold's day is past it on day 0.
        made.go_to(day, minutes=60 + day)
        scan = support.scan(made, finops)
        assert scan["state"] == "SCAN_STATE_PARTIAL", scan["problem"]
    not_read = {(u["region"], u["outcome"]) for u in scan["coverage"] if u["outcome"] != "COMPLETE"}
    assert not_read == {(DENIED_REGION, "DENIED")}
    assert scan["unitsDone"] == scan["unitsTotal"] == 36
    findings = finops.get("/findings", pageSize=500)["findings"]
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for finding in findings:
        found[finding["resource"]["id"]][finding["detectionId"]] = finding["actionability"]
    truth = expectations(made.estate.plan, made.estate.ids, 0)["resources"]
    wrong = {}
    for resource_id, expected in truth.items():
        due = {d for d in expected["detections"] if _seen_in_time(expected)}
        if "aws.ebs.unattached" in due:
            due.discard("aws.ebs.gp2")  # One volume, one proposal: what is to be deleted isn't converted first.
        if set(found.get(resource_id, {})) != due:
            wrong[resource_id] = (sorted(found.get(resource_id, {})), sorted(due), expected)
        for actionability in found.get(resource_id, {}).values():
            assert actionability in BLOCKED[expected["blocked_by"]], (resource_id, expected)
    assert not wrong, list(wrong.values())[:3]
    assert set(found) <= set(truth)
    assert all(f["monthlySaving"]["currency"] == "USD" and f["priceVersion"] for f in findings)


def _seen_in_time(expected: dict[str, object]) -> bool:
    """Whether our scan days were early enough for our own ledger to be as old as the condition must be."""
    first, last = expected["scan_from"], expected["scan_until"]
    if first is None or last is None:
        return True
    return any(int(str(first)) <= day <= int(str(last)) for day in SCAN_DAYS)


def test_progress_is_committed_as_it_happens(made: TestMesh) -> None:
    from recoup_local.cloud import ProxyControl

    control = ProxyControl.of(made.mesh.cloud)
    rule = control.add_fault(action="DescribeSnapshots", hold="before")
    finops = made.rest("acme", "FinOps")
    try:
        scan_id = finops.post("/scans", {"connectionId": made.connection_id})["scan"]["scanId"]
        control.wait_until_held(rule, 30.0)

        def halfway() -> dict[str, object] | None:
            scan = finops.get(f"/scans/{scan_id}")["scan"]
            return scan if 0 < scan["unitsDone"] < scan["unitsTotal"] else None

        assert support.until(halfway)["state"] == "SCAN_STATE_RUNNING"
    finally:
        control.remove_fault(rule)
    assert support.scan_ended(finops, scan_id)["unitsDone"] == 36


def test_one_scan_is_one_trace_over_five_processes(made: TestMesh) -> None:
    finops = made.rest("acme", "FinOps")
    answer = finops.call("POST", "/scans", json={"connectionId": made.connection_id})
    trace_id = answer.headers["traceresponse"].split("-")[1]
    support.scan_ended(finops, answer.json()["scan"]["scanId"])
    wanted = {"gateway", "identity", "scanner", "scanner-worker", "broker"}

    def complete() -> str | None:
        """The trace's one root, once the spans of all five have arrived; parents end after their children."""
        spans = {span.span_id: span for span in made.mesh.spans.trace(trace_id)}
        roots = [span for span in spans.values() if span.parent_id not in spans]
        whole = wanted <= {span.process for span in spans.values()} and len(roots) == 1
        return roots[0].process if whole else None

    assert support.until(complete, 30.0) == "gateway"
    shown = CliRunner().invoke(trace, [answer.headers["x-request-id"], "--state", str(made.mesh.state)])
    assert (shown.exit_code, {each for each in wanted if each in shown.output}) == (0, wanted), shown.output
