"""Following long work over REST: as events, and as lines; it ends with the work."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest

from tests.support.command import recoup
from tests.support.mesh import TestMesh

pytestmark = pytest.mark.xdist_group("mesh")


def test_a_scan_is_followed_as_events_until_it_is_over(made: TestMesh) -> None:
    person = made.rest("acme", "FinOps")
    scan_id = person.post("/scans", {"connectionId": made.connection_id})["scan"]["scanId"]
    path = f"/v1/organizations/{person.organization_id}/scans/{scan_id}:watch"
    with person.client.stream("GET", path, headers={"accept": "text/event-stream"}) as answer:
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        seen = [json.loads(line.removeprefix("data: "))["scan"] for line in answer.iter_lines() if line]
    states = [each["state"].removeprefix("SCAN_STATE_") for each in seen]
    assert set(states[:-1]) <= {"QUEUED", "RUNNING"}
    assert states[-1] in ("COMPLETE", "PARTIAL")
    assert len(seen) > 1
    assert all(one != other for one, other in pairwise(seen))
    # One that is over is one line.
    lines = person.client.get(path)
    assert lines.headers["content-type"] == "application/x-ndjson"
    assert json.loads(lines.text)["scan"] == seen[-1]
    shown = recoup(made, person.token, "--org", "acme", "scan", "watch", scan_id)
    assert (shown.exit_code, shown.stdout) == (0, f"{states[-1]} {seen[-1]['resourcesSeen']} resources\n"), shown.stderr
    refused = recoup(made, person.token, "--org", "acme", "action", "watch", scan_id)
    assert (refused.exit_code, "RESOURCE_NOT_FOUND" in refused.stderr) == (1, True)
