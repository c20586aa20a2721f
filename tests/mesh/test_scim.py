"""A directory at the live gateway, with a token from the command line: what it provisions, and never reaches."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import httpx
import pytest

from services.gateway.exchange import SECURITY_HEADERS
from tests.support.command import recoup, said
from tests.support.mesh import TestMesh, until

pytestmark = pytest.mark.xdist_group("mesh")
USER = "urn:ietf:params:scim:schemas:core:2.0:User"


def scim(made: TestMesh, organization: str, *arguments: str) -> dict[str, Any]:
    """What `recoup scim …` of an Admin prints as JSON."""
    token = made.rest(organization, "Admin").token
    return said(recoup(made, token, "scim", *arguments, "--org", organization, "--json"))


@contextmanager
def directory(made: TestMesh, token: str) -> Iterator[httpx.Client]:
    trust = ssl.create_default_context(cafile=str(made.mesh.installation.ca.cert_file))
    headers = {"authorization": f"Bearer {token}", "content-type": "application/scim+json"}
    with httpx.Client(base_url=f"{made.mesh.gateway_url}/scim/v2", verify=trust, headers=headers) as client:
        yield client


def test_a_directory_provisions_with_a_token_from_the_command_line(made: TestMesh) -> None:
    acme, globex = (scim(made, each, "token", "create", "--name", "mesh") for each in ("acme", "globex"))
    name = f"{uuid4()}@acme.example"
    with directory(made, acme["token"]) as ours, directory(made, globex["token"]) as theirs:
        answer = ours.post("/Users", content=json.dumps({"schemas": [USER], "userName": name}))
        assert answer.status_code == 201, answer.text
        assert answer.headers["content-type"] == "application/scim+json"
        for header, value in SECURITY_HEADERS:
            assert answer.headers[header.decode()] == value.decode()
        where = answer.headers["location"].removeprefix("/scim/v2")
        assert ours.get(where).json()["userName"] == name
        patch = {"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"], "Operations": [
            {"op": "Replace", "path": "active", "value": "False"}]}  # fmt: skip
        body = {"schemas": [USER], "userName": name}
        for method, sent in (("GET", None), ("PUT", body), ("PATCH", patch), ("DELETE", None)):
            foreign = theirs.request(method, where, content=json.dumps(sent) if sent else None)
            assert (foreign.status_code, foreign.json()["status"]) == (404, "404"), method
        assert ours.patch(where, content=json.dumps(patch)).json()["active"] is False
        assert ours.delete(where).status_code == 204
        # A session is no SCIM token, and a SCIM token no session.
        session = {"authorization": f"Bearer {made.rest('acme', 'Admin').token}"}
        assert ours.get("/Users", headers=session).status_code == 401
        organization = made.rest("acme", "Admin").organization_id
        other = ours.get(f"{made.mesh.gateway_url}/v1/organizations/{organization}/members")
        assert other.status_code == 401
        status = scim(made, "acme", "status")
        assert status["lastSyncAt"]
        scim(made, "acme", "token", "revoke", acme["scimToken"]["tokenId"])
        refused = ours.get("/Users")
        assert (refused.status_code, refused.json()["status"]) == (401, "401")
    auditor = made.rest("acme", "Auditor")

    def appended() -> bool | None:
        events = auditor.get("/events", action="identity.scim.provision", pageSize=500)["events"]
        return [each["target"] for each in events].count(f"scim{where}") == 3 or None

    until(appended)
