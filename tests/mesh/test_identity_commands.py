"""What an Admin does by command at the live gateway: custom roles, a directory's tokens and groups, the posture, and a
finding that is left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from uuid import uuid4

import pytest
from click.testing import Result

from recoup_local.issuer import find_person
from tests.support import command
from tests.support import mesh as support
from tests.support.command import REFUSED, WRONG_USE, said
from tests.support.mesh import Person, TestMesh

pytestmark = pytest.mark.xdist_group("mesh")

Command = Callable[..., Result]


@pytest.fixture
def recoup(made: TestMesh) -> Command:
    """The command line under the session of acme's Admin, or of somebody else."""

    def run(*arguments: str, token: str = "") -> Result:
        return command.recoup(made, token or made.rest("acme", "Admin").token, *arguments)

    return run


@contextmanager
def member(made: TestMesh) -> Iterator[tuple[str, Person]]:
    """A new Viewer of acme, by their address."""
    user, address = str(uuid4()), f"{uuid4().hex[:8]}@acme.example.com"
    admin = made.rest("acme", "Admin")
    admin.post("/members", {"userId": user, "email": address, "role": "ROLE_VIEWER"})
    person = Person(made.mesh, "acme", made.mesh.installation.issuer.token(find_person("acme", "Viewer"), sub=user))
    yield address, person
    person.client.close()


def test_a_custom_role_is_made_given_changed_and_deleted(made: TestMesh, recoup: Command) -> None:
    name = f"night-watch-{uuid4().hex[:6]}"
    role = said(recoup("role", "create", name, "--permission", "scanner.finding.read", "--json"))["role"]
    assert (role["name"], role["permissions"], role["holders"]) == (name, ["scanner.finding.read"], 0)
    with member(made) as (address, person):
        assert said(recoup("role", "assign", address, name, "--json"))["member"]["customRoleId"] == role["roleId"]
        assert person.call("GET", "/findings").status_code == 200
        refused = person.call("GET", "/members")
        assert (refused.status_code, refused.json()["reason"]) == (403, "PERMISSION_MISSING")
        changed = said(recoup("role", "update", name, "--add", "identity.member.read", "--json"))["role"]
        assert changed["permissions"] == ["identity.member.read", "scanner.finding.read"]
        # What the gateway has in hand ends by the feed, within seconds; the next passport holds what the role does.
        support.until(lambda: person.call("GET", "/members").status_code == 200 or None)
        (row,) = [line for line in recoup("role", "list").stdout.splitlines() if name in line]
        assert [cell.strip() for cell in row.strip("│").split("│")] == [name, "1", "2", ""]
        held = recoup("role", "delete", name)
        assert (held.exit_code, "reason STATE_WRONG" in held.stderr) == (REFUSED, True), held.stderr
        said(recoup("role", "assign", address, "viewer", "--json"))
        assert said(recoup("role", "delete", name, "--json")) == {"roleId": role["roleId"]}
    listed = said(recoup("role", "list", "--json"))
    assert name not in {each["name"] for each in listed["roles"]}
    assert len(listed["builtInRoles"]) == 7
    for wrong, what in (
        (("show", name), f"there is no role {name}; there are "),
        (("create", "admin", "--permission", "scanner.finding.read"), "name: "),
        (("create", "odd", "--permission", "scanner.finding.raed"), "scanner.finding.raed"),
        (("assign", "nobody@acme.example.com", "viewer"), "nobody@acme.example.com"),
    ):
        done = recoup("role", *wrong)
        assert (done.exit_code in (REFUSED, WRONG_USE), done.stdout) == (True, "")
        assert what in done.stderr, done.stderr


def test_a_directorys_tokens_and_groups_by_command(made: TestMesh, recoup: Command) -> None:
    shown = said(recoup("scim", "token", "create", "--org", "acme", "--json"))
    token, token_id = shown["token"], shown["scimToken"]["tokenId"]
    listed = recoup("scim", "token", "list", "--org", "acme", "--json")
    (own,) = [each for each in said(listed)["scimTokens"] if each["tokenId"] == token_id]
    assert (own["name"], own.get("revokedAt")) == ("scim", None)
    assert token not in listed.stdout
    assert said(recoup("scim", "token", "revoke", token_id, "--org", "acme", "--json"))["scimToken"]["revokedAt"]
    mapped = said(recoup("scim", "roles", "--org", "acme", "Cloud Admins=ADMIN", "Ops=finops", "--json"))["roles"]
    assert [(each["group"], each["role"]) for each in mapped] == [
        ("Cloud Admins", "ROLE_ADMIN"),
        ("Ops", "ROLE_FINOPS"),
    ]
    assert said(recoup("scim", "status", "--org", "acme", "--json"))["roles"] == mapped
    assert said(recoup("scim", "roles", "--org", "acme", "--json"))["roles"] == []
    wrong = recoup("scim", "roles", "--org", "acme", "Ops=boss")
    assert (wrong.exit_code, "GROUP=ROLE" in wrong.stderr) == (WRONG_USE, True)
    other = recoup("scim", "token", "list", "--org", "acme", token=made.rest("globex", "Admin").token)
    assert (other.exit_code, "Yours: globex" in other.stderr) == (WRONG_USE, True)


def test_how_access_stands_is_shown_to_who_may_know(made: TestMesh, recoup: Command) -> None:
    posture = said(recoup("org", "posture", "--json"))["posture"]
    members = made.rest("acme", "Admin").get("/members", pageSize=500)["members"]
    assert (posture["members"], posture["admins"]) == (
        len(members),
        len([each for each in members if each["role"] == "ROLE_ADMIN"]),
    )
    assert "members without a second factor" in recoup("org", "posture").stdout
    viewer = recoup("org", "posture", token=made.rest("acme", "Viewer").token)
    assert (viewer.exit_code, "reason PERMISSION_MISSING" in viewer.stderr) == (REFUSED, True)


def test_a_finding_is_left_alone_until_its_exception_ends(made: TestMesh, recoup: Command) -> None:
    finops = made.rest("acme", "FinOps")
    if not finops.get("/findings", pageSize=1)["findings"]:
        support.scan(made, finops)
    finding_id = finops.get("/findings", pageSize=1)["findings"][0]["findingId"]

    def are(*options: str) -> set[str]:
        found = said(recoup("findings", "--json", *options, token=finops.token))
        return {each["findingId"] for each in found["findings"]}

    until = f"{made.mesh.clock.now() + timedelta(days=2):%Y-%m-%dT%H:%M}"
    asked = ("suppress", finding_id, "--reason", "its owner moves it next week", "--until", until)
    finding = said(recoup(*asked, "--json", token=finops.token))["finding"]
    assert (finding["state"], finding["suppressedUntil"][:16]) == ("FINDING_STATE_SUPPRESSED", until)
    assert finding_id in are("--suppressed") - are()
    again = recoup(*asked, token=finops.token)
    assert (again.exit_code, "reason RESOURCE_EXISTS" in again.stderr) == (REFUSED, True), again.stderr
    exception = said(recoup("exception", "show", finding["exceptionId"], "--json"))["exception"]
    assert (exception["target"], exception["state"]) == (f"findings/{finding_id}", "EXCEPTION_STATE_ACTIVE")
    said(recoup("exception", "end", finding["exceptionId"], "--reason", "moved already", "--json"))
    support.until(lambda: finding_id in are() or None)
