"""API tokens from end to end: made by REST, used, narrowed with their creator, revoked everywhere, leaked nowhere."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from click.testing import Result

from recoup.scanner.v1 import scanner_service_pb2
from recoup_client.errors import Denied, SignInNeeded
from recoup_local.issuer import find_person, organization_id
from tests.mesh.test_client import client
from tests.support.command import DONE, recoup, said
from tests.support.mesh import Person, TestMesh, soon, until

pytestmark = pytest.mark.xdist_group("mesh")
ACME = str(organization_id("acme"))
# What is revoked is so in every process.
EVERYWHERE_SECONDS = 5.0
NO_SCAN = {"connectionId": str(uuid4())}
HELD = ("scanner.finding.read", "scanner.scan.start", "identity.token.own")


@pytest.fixture
def newcomer(made: TestMesh) -> tuple[Person, dict[str, Any]]:
    """A FinOps engineer who became a member just now, with their session; and the membership."""
    user_id = str(uuid4())
    body = {"userId": user_id, "email": f"{user_id[:8]}@acme.example.com", "role": "ROLE_FINOPS"}
    member: dict[str, Any] = made.rest("acme", "Admin").post("/members", body)["member"]
    token = made.mesh.installation.issuer.token(find_person("acme", "FinOps"), sub=user_id)
    return Person(made.mesh, "acme", token), member


def wanted(**more: Any) -> dict[str, Any]:
    ends_at = datetime.now(UTC) + timedelta(days=1)
    return {"displayName": "ci", "permissions": list(HELD), "expiresAt": f"{ends_at:%FT%TZ}", **more}


def within(seconds: float, look: Callable[[], bool]) -> None:
    until(lambda: look() or None, seconds)


def test_a_token_is_used_narrowed_and_revoked(made: TestMesh, newcomer: tuple[Person, dict[str, Any]]) -> None:
    person, member = newcomer
    created = person.post("/tokens", wanted())
    machine = Person(made.mesh, "acme", created["secret"])
    assert machine.call("GET", "/findings").status_code == 200
    assert machine.call("POST", "/scans", json=NO_SCAN).status_code == 404  # Let in, and there is no such connection.
    mine = machine.client.get("/v1/me/organizations").json()["memberships"]
    assert [each["organization"]["organizationId"] for each in mine] == [ACME]
    foreign = machine.client.get(f"/v1/organizations/{organization_id('globex')}/findings")
    assert (foreign.status_code, foreign.json()["reason"]) == (404, "RESOURCE_NOT_FOUND")
    # What only people do is closed to it, whatever it holds.
    refused = machine.call("POST", "/tokens", json=wanted())
    assert (refused.status_code, refused.json()["reason"]) == (403, "HUMAN_SESSION_REQUIRED")
    assert "secret" not in json.dumps(person.get("/tokens"))
    listed = person.get("/tokens")["tokens"]
    assert [(each["tokenId"], each["state"]) for each in listed] == [
        (created["token"]["tokenId"], "TOKEN_STATE_ACTIVE")
    ]
    assert listed[0]["lastUsedAt"]

    # The passports that the gateway still holds for it are void with the first change of its creator.
    body = {"role": "ROLE_VIEWER", "etag": member["etag"]}
    changed = made.rest("acme", "Admin").call("PATCH", f"/members/{member['memberId']}", json=body)
    assert changed.status_code == 200, changed.text
    within(EVERYWHERE_SECONDS, lambda: machine.call("POST", "/scans", json=NO_SCAN).status_code == 403)
    assert machine.call("GET", "/findings").status_code == 200

    path = f"/tokens/{created['token']['tokenId']}:revoke"
    assert made.rest("acme", "Security").call("POST", path, json={}).status_code == 200
    within(EVERYWHERE_SECONDS, lambda: machine.call("GET", "/findings").status_code == 401)
    over = machine.call("GET", "/findings")
    assert over.json()["reason"] == "CREDENTIAL_REVOKED"
    assert 'error="invalid_token"' in over.headers["www-authenticate"]
    _leaked_nowhere(made, created["secret"])


def _leaked_nowhere(made: TestMesh, secret: str) -> None:
    """Not in a log, a span, an event, a row or a file of the database: the part of it that no list shows."""
    canary = secret[8:].encode()
    searched = 0
    for folder, _, names in os.walk(made.mesh.state):
        for name in names:
            try:
                with open(os.path.join(folder, name), "rb") as file:
                    content = file.read()
            except OSError:  # A socket, or gone meanwhile.
                continue
            searched += 1
            assert canary not in content, name
    assert searched > 100
    assert b"TokenService" in (made.mesh.state / "spans.jsonl").read_bytes()


async def test_a_teams_program_acts_as_a_service_account(
    made: TestMesh, newcomer: tuple[Person, dict[str, Any]]
) -> None:
    person, member = newcomer
    admin = made.rest("acme", "Admin")
    account = admin.post("/serviceAccounts", {"displayName": "nightly", "ownerUserId": member["userId"]})
    account_id = account["serviceAccount"]["serviceAccountId"]
    body = wanted(serviceAccountId=account_id, permissions=["scanner.finding.read"])
    secret = person.post("/tokens", body)["secret"]
    findings = scanner_service_pb2.ListFindingsRequest(organization_id=ACME)
    async with client(made, secret) as mesh:
        await mesh.scanner.ListFindings(findings)
        with pytest.raises(Denied):
            await mesh.scanner.ListScans(scanner_service_pb2.ListScansRequest(organization_id=ACME))
        assert admin.call("DELETE", f"/members/{member['memberId']}").status_code == 200

        async def is_over() -> bool | None:
            try:
                await mesh.scanner.ListFindings(findings)
            except SignInNeeded:
                return True
            return None

        await soon(is_over, EVERYWHERE_SECONDS)


def test_who_authenticated_long_ago_is_asked_to_do_it_again(made: TestMesh) -> None:
    issuer, now = made.mesh.installation.issuer, int(time.time())
    earlier = [{"method": "totp", "timestamp": now - 1000}]
    old = Person(made.mesh, "acme", issuer.token(find_person("acme", "FinOps"), amr=earlier))
    assert old.call("GET", "/findings").status_code == 200
    refused = old.call("POST", "/tokens", json=wanted())
    assert (refused.status_code, refused.json()["reason"]) == (403, "REAUTHENTICATION_REQUIRED")
    assert refused.json()["metadata"]["max_auth_age_seconds"] == "900"
    assert 'error="insufficient_user_authentication"' in refused.headers["www-authenticate"]
    assert 'max_age="900"' in refused.headers["www-authenticate"]
    one_factor = made.rest("acme", "FinOps", aal=1)
    assert one_factor.call("POST", "/tokens", json=wanted()).json()["reason"] == "ASSURANCE_TOO_LOW"


def test_the_command_line_makes_lists_rotates_and_revokes(
    made: TestMesh, newcomer: tuple[Person, dict[str, Any]]
) -> None:
    person, _ = newcomer

    def run(token: str, *arguments: str) -> Result:
        done = recoup(made, token, *arguments)
        assert done.exit_code == DONE, done.stderr
        return done

    first = run(
        person.token, "token", "create", "ci", "--permission", "scanner.finding.read", "--days", "365", "--json"
    )
    made_token = said(first)
    assert set(made_token) >= {"token", "tokenId", "expiresAt"}
    assert "shown this once" in first.stderr
    assert made_token["token"] not in first.stderr
    # A token is enough to name the organization: there is but one.
    assert "findings" in said(run(made_token["token"], "findings", "--json"))
    second = run(person.token, "token", "rotate", made_token["tokenId"], "--overlap-hours", "1")
    assert second.stdout.startswith("rcp_")
    listed = run(person.token, "token", "list").stdout
    assert made_token["token"] not in listed
    assert made_token["token"][:8] in listed
    assert "revoked" in run(person.token, "token", "revoke", made_token["tokenId"]).stdout
    admin = made.rest("acme", "Admin").token
    account = said(run(admin, "service-account", "create", "nightly", "--json"))["serviceAccount"]
    run(admin, "service-account", "update", account["serviceAccountId"], "--name", "nightly scan")
    assert "nightly scan" in run(admin, "service-account", "list").stdout
    assert "disabled" in run(admin, "service-account", "disable", account["serviceAccountId"]).stdout
