"""Single sign-on through the gateway: from a provider's metadata to a session at work, enforced, and ended at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from recoup_local.issuer import organization_id
from services.identity.model.sso_tokens import challenge_of
from tests.support import mesh as support
from tests.support.command import recoup
from tests.support.command import said as printed
from tests.support.mesh import Person, TestMesh
from tests.support.saml_idp import MFA, Said, TestIdp

pytestmark = pytest.mark.xdist_group("mesh")

VERIFIER, BACK = "v" * 43, "http://127.0.0.1:49152/back"
DOMAIN = "globex.example.com"


def sso(made: TestMesh, *arguments: str) -> dict[str, Any]:
    """What `recoup sso …` of globex' Admin prints as JSON."""
    return printed(recoup(made, made.mesh.token("globex", "Admin"), "--json", "sso", *arguments))


def path_of(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


def said(provider: dict[str, Any], **changes: Any) -> Said:
    attributes = {"email": [f"eve@{DOMAIN}"], "groups": ["engineers"]}
    return Said(provider["acsUrl"], provider["spEntityId"], attributes=attributes, authn_context=MFA, **changes)


def reason(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json().get("reason", "")


def test_a_sign_in_goes_from_the_browser_to_a_call_and_ends(made: TestMesh, tmp_path: Any) -> None:
    admin, viewer = made.rest("globex", "Admin"), made.rest("globex", "Viewer")
    browser, idp = Person(made.mesh, "globex", ""), TestIdp()
    # Onboarding, by the command line.
    provider = sso(made, "create", "--name", "Test")["provider"]
    (tmp_path / "idp.xml").write_bytes(idp.metadata())
    sso(made, "import-metadata", str(tmp_path / "idp.xml"))
    domain = sso(made, "domain", "add", DOMAIN)["domain"]
    assert reason(admin.call("POST", f"/domains/{domain['domainId']}:verify", json={})) == (400, "DOMAIN_NOT_PROVEN")
    made.mesh.dns.records[domain["recordName"]] = [domain["recordValue"]]
    assert sso(made, "domain", "verify", DOMAIN)["domain"]["state"] == "DOMAIN_STATE_VERIFIED"
    sso(made, "set", "--email-attribute", "email", "--groups-attribute", "groups", "--mfa-context", MFA)
    sso(made, "map", "engineers=finops")
    # A test sign-in, then the real thing.
    test = sso(made, "test")
    answer = browser.client.post(path_of(provider["acsUrl"]), data=idp.answer(test["loginUrl"], said(provider)))
    assert (answer.status_code, "passed" in answer.text) == (200, True), answer.text
    result = sso(made, "test", "--result", test["test"]["testId"])["test"]
    assert (result["state"], result["role"], result["aal"]) == ("TEST_STATE_PASSED", "ROLE_FINOPS", 2)
    assert sso(made, "enable")["provider"]["state"] == "PROVIDER_STATE_ACTIVE"
    eve = signed_in(made, browser, idp, provider)
    assert eve.get("/findings")["findings"] == []
    acme = organization_id("acme")
    assert reason(eve.client.get(f"/v1/organizations/{acme}/findings")) == (404, "RESOURCE_NOT_FOUND")
    assert reason(eve.call("GET", "/members")) == (403, "PERMISSION_MISSING")
    for what in ("metadata", f"login?code_challenge={challenge_of(VERIFIER)}&return_to={BACK}"):
        below_acme = f"/saml/{acme}/{provider['providerId']}/{what}"
        assert reason(browser.client.get(below_acme)) == (404, "RESOURCE_NOT_FOUND")
    # Whoever set the provider up doesn't confirm it: sessions that it makes approve tomorrow.
    known = sso(made, "status")["providers"][0]
    assert known["approvesFrom"] > known["createdAt"]
    path = f"/identityProviders/{provider['providerId']}:confirm"
    answer = admin.call("POST", path, json={"etag": known["etag"]})
    assert reason(answer) == (403, "SECOND_PERSON_REQUIRED")
    # Enforced: members in the domain come by the provider, but for the one named Admin.
    member = next(each for each in admin.get("/members", pageSize=500)["members"] if each["role"] == "ROLE_ADMIN")
    assert viewer.call("GET", "/findings").status_code == 200
    sso(made, "enforce", "--break-glass", member["memberId"])
    support.until(lambda: reason(viewer.call("GET", "/findings")) == (403, "SSO_REQUIRED") or None)
    # All others' passports were voided as well, and are issued anew: nobody else notices.
    for allowed, path in ((admin, "/members"), (eve, "/findings")):
        assert reason(allowed.call("GET", path)) == (200, "")
    # Disabled: its sessions are over, in every process, and the demand with them.
    again = signed_in_by_command(made, browser, idp, provider)
    assert again.get("/findings")["findings"] == []
    assert sso(made, "disable")["sessionsEnded"] == 2
    support.until(lambda: reason(eve.call("GET", "/findings")) == (401, "CREDENTIAL_REVOKED") or None)
    assert reason(again.call("GET", "/findings")) == (401, "CREDENTIAL_REVOKED")
    support.until(lambda: viewer.call("GET", "/findings").status_code == 200 or None)
    assert sso(made, "status")["providers"][0]["state"] == "PROVIDER_STATE_DISABLED"


def signed_in_by_command(made: TestMesh, browser: Person, idp: TestIdp, provider: dict[str, Any]) -> Person:
    """Eve, by `recoup sso login`, which prints an address and waits on this machine for her browser."""
    ca = str(made.mesh.installation.ca.cert_file)
    given = {"RECOUP_GATEWAY": made.mesh.gateway_url, "RECOUP_CA": ca, "PATH": os.environ["PATH"]}
    command = [sys.executable, "-m", "recoup_client.cli", "--json", "sso", "login", provider["loginUrl"]]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=given) as running:
        assert running.stderr is not None
        address = running.stderr.readline().rpartition(" ")[2].strip()
        form = idp.answer(browser.client.get(path_of(address)).headers["location"], said(provider))
        back = browser.client.post(path_of(provider["acsUrl"]), data=form).headers["location"]
        assert httpx.get(back.partition("?")[0] + "x?code=stolen").status_code == 404
        assert "Signed in" in httpx.get(back).text
        out, told = running.communicate(timeout=60)
    assert running.returncode == 0, told
    return Person(made.mesh, "globex", json.loads(out)["sessionToken"])


def signed_in(made: TestMesh, browser: Person, idp: TestIdp, provider: dict[str, Any]) -> Person:
    """Eve, by a sign-in that began here."""
    query = f"code_challenge={challenge_of(VERIFIER)}&return_to={BACK}"
    begun = browser.client.get(f"{path_of(provider['loginUrl'])}?{query}")
    assert begun.status_code == 303, begun.text
    form = idp.answer(begun.headers["location"], said(provider))
    wrong = browser.client.post(path_of(provider["acsUrl"]), json=form)
    assert reason(wrong) == (415, "MEDIA_TYPE_UNSUPPORTED")
    other = Person(made.mesh, "globex", "").client.post(path_of(provider["acsUrl"]), data=form)
    assert (other.status_code, "(BROWSER)" in other.text) == (403, True)
    answer = browser.client.post(path_of(provider["acsUrl"]), data=form)
    assert (answer.status_code, answer.headers["location"].partition("?")[0]) == (303, BACK), answer.text
    assert list(browser.client.cookies) == []
    again = browser.client.post(path_of(provider["acsUrl"]), data=form)
    assert (again.status_code, "(REQUEST)" in again.text) == (403, True)
    (code,) = parse_qs(urlsplit(answer.headers["location"]).query)["code"]
    body = {"code": code, "codeVerifier": VERIFIER}
    token = browser.client.post("/v1/sso/sessions", json=body).json()["sessionToken"]
    assert reason(browser.client.post("/v1/sso/sessions", json=body)) == (401, "LOGIN_CODE_INVALID")
    return Person(made.mesh, "globex", token)
