"""How people come to an organization, change and leave, over REST and by command, in the whole mesh."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from recoup_local.issuer import find_person
from tests.support.command import recoup, said
from tests.support.mesh import Person, TestMesh, until

pytestmark = pytest.mark.xdist_group("mesh")


@pytest.fixture
def somebody(made: TestMesh) -> Iterator[Any]:
    """Makes people without any membership, each with an address of their own."""
    opened: list[Person] = []

    def one(address: str, *, organization: str = "acme", **claims: Any) -> Person:
        token = made.mesh.installation.issuer.token(
            find_person("acme", "Viewer"), **{"sub": str(uuid4()), "email": address, **claims}
        )
        person = Person(made.mesh, organization, token)
        opened.append(person)
        return person

    yield one
    for each in opened:
        each.client.close()


def accept(person: Person, secret: str, more: dict[str, str] | None = None) -> tuple[int, dict[str, Any]]:
    answer = person.client.post("/v1/me/invitations:accept", json={"secret": secret, **(more or {})})
    return answer.status_code, answer.json()


def refused(person: Person, method: str, path: str, **arguments: Any) -> tuple[int, str]:
    answer = person.call(method, path, **arguments)
    return answer.status_code, answer.json().get("reason", "")


def test_invited_accepted_promoted_and_gone(made: TestMesh, somebody: Any) -> None:
    """The story: invite, accept, another role, leave. Each change is in force at once, and in the log."""
    admin, eve, mallory = made.rest("acme", "Admin"), somebody("Eve@new.example.com"), somebody("m@new.example.com")
    made_now = admin.post("/invitations", {"email": "eve@new.example.com", "role": "ROLE_VIEWER"})
    secret, invitation = made_now["secret"], made_now["invitation"]
    assert refused(eve, "GET", "") == (404, "RESOURCE_NOT_FOUND")
    for person, more, reason in (
        (mallory, {}, "INVITATION_FOR_ANOTHER"),
        (somebody("eve@new.example.com", email_verified=None), {}, "ADDRESS_UNVERIFIED"),
        (eve, {"secret": secret[:-1]}, "RESOURCE_NOT_FOUND"),
        (eve, {"expectedOrganization": str(uuid4())}, "RESOURCE_NOT_FOUND"),
    ):
        assert accept(person, secret, more)[1]["reason"] == reason
    request = {"requestId": str(uuid4())}
    status, joined = accept(eve, secret, request)
    assert (status, joined["member"]["role"]) == (200, "ROLE_VIEWER")
    assert accept(eve, secret, request) == (200, joined)
    assert accept(eve, secret)[1]["reason"] == "INVITATION_USED"
    listed = {each["invitationId"]: each for each in admin.get("/invitations", pageSize=500)["invitations"]}
    assert listed[invitation["invitationId"]]["state"] == "INVITATION_STATE_ACCEPTED"
    assert secret not in json.dumps(listed)

    mine = eve.client.get("/v1/me/organizations").json()
    assert mine["defaultOrganization"] == eve.organization_id
    assert eve.get("")["organization"]["slug"] == "acme"
    assert refused(eve, "GET", "/members") == (403, "PERMISSION_MISSING")
    path = f"/members/{joined['member']['memberId']}"
    etag = admin.get(path)["member"]["etag"]
    changed = admin.call("PATCH", path, json={"role": "ROLE_AUDITOR", "etag": etag}).json()["member"]
    assert changed["role"] == "ROLE_AUDITOR"
    # The passport that the gateway had is void: the new role counts within seconds.
    until(lambda: eve.call("GET", "/members").status_code == 200 or None)
    assert refused(eve, "POST", ":leave", json={"confirmSlug": "globex"}) == (400, "FIELD_INVALID")
    assert eve.post(":leave", {"confirmSlug": "acme"}) == {}
    until(lambda: refused(eve, "GET", "") == (404, "RESOURCE_NOT_FOUND") or None)
    assert eve.client.get("/v1/me/organizations").json()["memberships"] == []

    def told(target: str, wanted: set[str]) -> bool | None:
        events = admin.get("/events", target=target, pageSize=50)["events"]
        return wanted <= {event["action"] for event in events} or None

    until(lambda: told(f"invitations/{invitation['invitationId']}", {f"identity.invitation.{v}" for v in _INVITED}))
    until(lambda: told(f"members/{joined['member']['memberId']}", {f"identity.member.{v}" for v in _BELONGED}))


_INVITED, _BELONGED = ("create", "accept"), ("add", "update", "leave")


def test_a_customer_begins_rests_and_goes_on(made: TestMesh, somebody: Any) -> None:
    """By command: the platform's Admin creates an organization, its first Admin accepts, it rests and goes on."""
    slug = f"initech-{uuid4().hex[:6]}"
    done = recoup(made, made.mesh.token("platform", "Admin"), "org", "create", slug, "--name", "Initech", "--admin",
                  "bill@initech.example.com", "--json")  # fmt: skip
    created = said(done)
    organization_id = created["organization"]["organizationId"]
    bill = somebody("bill@initech.example.com")
    weak = made.mesh.installation.issuer.token(
        find_person("acme", "Viewer"), aal=1, sub=str(uuid4()), email="bill@initech.example.com"
    )
    done = recoup(made, weak, "member", "accept", RECOUP_INVITATION=created["secret"])
    assert (done.exit_code, "second factor" in done.stderr) == (1, True)
    done = recoup(made, bill.token, "member", "accept", RECOUP_INVITATION=created["secret"])
    assert done.exit_code == 0, done.stderr
    assert "ADMIN" in done.stdout
    shown = said(recoup(made, bill.token, "org", "show", "--json"))["organization"]
    assert (shown["slug"], bool(shown["ownerMemberId"])) == (slug, True)
    listed = recoup(made, bill.token, "member", "list").stdout
    assert "ADMIN, owner" in listed
    for command in (("org", "leave", slug), ("member", "remove", "bill@initech.example.com")):
        done = recoup(made, bill.token, *command)
        assert (done.exit_code, "last Admin" in done.stderr) == (1, True), done.stderr
    # Nobody of a customer's suspends anybody.
    done = recoup(made, made.mesh.token("acme", "Admin"), "org", "suspend", organization_id, "--reason", "x")
    assert (done.exit_code, "PERMISSION_MISSING" in done.stderr) == (1, True)

    platform = made.mesh.token("platform", "Admin")
    path = f"/v1/organizations/{organization_id}"
    assert bill.client.get(path).status_code == 200
    assert recoup(made, platform, "org", "suspend", organization_id, "--reason", "unpaid").exit_code == 0
    until(lambda: bill.client.get(path).status_code == 404 or None)
    assert recoup(made, platform, "org", "resume", organization_id, "--reason", "paid").exit_code == 0
    until(lambda: bill.client.get(path).status_code == 200 or None)
    done = recoup(made, bill.token, "member", "invite", "m@initech.example.com", "--role", "approver", "--json")
    secret = said(done)["secret"]
    milton = somebody("M@initech.example.com")
    assert recoup(made, milton.token, "member", "accept", RECOUP_INVITATION=secret).exit_code == 0
    assert recoup(made, milton.token, "org", "default", slug).exit_code == 0
    assert recoup(made, milton.token, "org", "leave", slug).exit_code == 0
