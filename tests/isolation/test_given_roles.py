"""Every RPC under roles that an organization makes or limits itself; what is expected follows from the descriptors."""

from __future__ import annotations

from uuid import uuid4

import pytest

from recoup_local.issuer import Person as Somebody
from services._mesh.descriptors import LimitRule
from services.audit.model.visibility import is_visible, view_of
from services.identity.model.permissions import OWN
from tests.isolation.rpcs import APPROVALS, HOLDERS, NAMED, RULES, TENANT, ask, short
from tests.isolation.valid_requests import EVENT, Case
from tests.support.mesh import Person, TestMesh

pytestmark = pytest.mark.xdist_group("story")

# Break-glass is an Admin's, whatever a custom role may hold.
BREAK_GLASS = "recoup.identity.v1.ElevationService/RequestElevation"
# What a service asks another one in the caller's name takes that one's permission as well (docs/PERMISSIONS.md).
NEEDS = {
    "RequestAction": {"scanner.finding.read", "scanner.connection.read", "pricing.bill.read"},
    "CreateBillSource": {"scanner.connection.read"},
}
TOKEN = "recoup.identity.v1.TokenService/CreateToken"


def newcomer(made: TestMesh, name: str, **role: object) -> Person:
    """A new member of acme with this role, who never came here before: no process knows them by another one."""
    admin, person = made.rest("acme", "Admin"), Somebody("acme", name)
    wanted = {"userId": str(person.user_id), "email": person.email, "role": "ROLE_VIEWER"}
    member = admin.post("/members", wanted)["member"]
    admin.post(f"/members/{member['memberId']}:assignRole", {**role, "etag": member["etag"]})
    return Person(made.mesh, "acme", made.mesh.installation.issuer.token(person))


def answers_under(held: set[str], name: str, case: Case) -> list[tuple[int, str]]:
    """What a custom role of these permissions may get for a request whose case says what an Admin gets."""
    permission = RULES[name][1].permission
    if permission not in held | OWN or name == BREAK_GLASS:
        return [(403, "PERMISSION_MISSING")]
    if permission in APPROVALS:
        return [(403, "APPROVER_FRESH")]
    if NEEDS.get(short(name), set()) - held:
        return [(403, "PERMISSION_MISSING")]
    if given_on(case) - held:
        too_much = (403, "TOKEN_TOO_WIDE" if name == TOKEN else "PERMISSION_NOT_HELD")
        # Where something else is wrong besides, either may be said first.
        return [too_much] if case.answer == (200, "") else [too_much, case.answer]
    if "event_id" in case.variables and not is_visible(EVENT, view_of(held)):
        return [(404, "RESOURCE_NOT_FOUND")]
    return [case.answer]


def given_on(case: Case) -> set[str]:
    """The permissions that a request hands on to somebody: nobody gives what they don't hold."""
    body = case.body or {}
    role = str(body.get("role", "")).removeprefix("ROLE_")
    return {*body.get("permissions", ()), *(name for name, roles in HOLDERS.items() if role in roles)}


@pytest.mark.parametrize("half", [0, 1])
def test_a_custom_role_may_what_it_says(made: TestMesh, cases: dict[str, Case], half: int) -> None:
    """Every RPC, under a role that holds every other permission that its maker holds."""
    held = sorted(name for name, roles in HOLDERS.items() if "ADMIN" in roles)[half::2]
    role = made.rest("acme", "Admin").post("/roles", {"name": f"half-{half}", "permissions": held})["role"]
    person = newcomer(made, f"half{half}", customRoleId=role["roleId"])
    found = {short(name): ask(person, name, cases[name]) for name in TENANT}
    person.client.close()
    may = {short(name): answers_under(set(held), name, cases[name]) for name in TENANT}
    assert {name: (got, may[name]) for name, got in found.items() if got not in may[name]} == {}


def test_a_limited_role_reaches_its_resources_alone(made: TestMesh, cases: dict[str, Case]) -> None:
    """Every RPC, under a role that is limited to a connection that there isn't."""
    person = newcomer(made, "limited", role="ROLE_FINOPS", limits={"connectionIds": [str(uuid4())]})
    expected = {}
    for name in TENANT:
        rule = RULES[name][1]
        if "FINOPS" not in HOLDERS[rule.permission]:
            expected[short(name)] = (403, "PERMISSION_MISSING")
        elif rule.permission in APPROVALS:
            expected[short(name)] = (403, "APPROVER_FRESH")
        elif rule.limits in (LimitRule.UNSPECIFIED, LimitRule.THROUGH_SERVICE):
            expected[short(name)] = (403, "ROLE_LIMITED")
        elif rule.limits is LimitRule.HONOURED and name in NAMED:
            expected[short(name)] = (404, "RESOURCE_NOT_FOUND")
        else:
            expected[short(name)] = cases[name].answer
    found = {short(name): ask(person, name, cases[name]) for name in TENANT}
    for path in ("connections", "scans", "findings", "actions", "receipts"):
        assert person.get(f"/{path}")[path] == []
    person.client.close()
    assert found == expected
