"""An operator in a customer's organization, as REST has it: nothing before its consent, and nothing after its end."""

from __future__ import annotations

import base64
import json

import pytest

from recoup_local.issuer import find_person, organization_id
from tests.support import mesh as support
from tests.support.mesh import TestMesh

pytestmark = pytest.mark.xdist_group("mesh")


def test_an_operator_comes_in_by_consent_and_goes_at_once(made: TestMesh) -> None:
    admin, operator = made.rest("acme", "Admin"), made.rest("platform", "Security")
    acme = str(organization_id("acme"))
    findings = f"/v1/organizations/{acme}/findings"
    asked = {"role": "ROLE_VIEWER", "reason": "the nightly scan stands still", "hours": 1}
    assert operator.client.get(findings).status_code == 404
    answer = operator.client.post(f"/v1/platform/organizations/{acme}/operatorAccesses", json=asked)
    assert answer.status_code == 200, answer.text
    access = answer.json()["access"]["accessId"]
    assert operator.client.get(findings).status_code == 404
    granted = admin.post(f"/operatorAccesses/{access}:grant", {})["access"]
    assert granted["state"] == "OPERATOR_ACCESS_STATE_GRANTED"

    assert operator.client.get(findings).status_code == 200
    refused = operator.client.post(f"/v1/organizations/{acme}/scans", json={"connectionId": made.connection_id})
    assert (refused.status_code, refused.json()["reason"]) == (403, "PERMISSION_MISSING")
    # The session that came with one factor only has nothing to do here.
    single = made.rest("platform", "Security", aal=1)
    assert single.client.get(findings).status_code == 404

    admin.post(f"/operatorAccesses/{access}:revoke", {})
    support.until(lambda: operator.client.get(findings).status_code == 404 or None)
    told = support.until(lambda: _entered(made) or None)
    assert told == f"operator:{find_person('platform', 'SECURITY').user_id}"


def _entered(made: TestMesh) -> str:
    found = made.rest("acme", "Auditor").get("/events", action="identity.operatoraccess.enter")["events"]
    return str(json.loads(base64.b64decode(found[0]["payload"]))["actor"]) if found else ""
