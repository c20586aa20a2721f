"""Provisioning by SCIM: resources, dialects, memberships and roles that follow, and that nothing else ever does."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import pytest

from recoup.identity.v1 import scim_service_pb2 as pb
from recoup.mesh.v1 import access_pb2
from services._mesh.context import entered
from services._mesh.errors import Invalid
from services._mesh.uow import UnitOfWork
from services.audit.model.leaf import parse_payload
from services.identity.model.membership import Role
from services.identity.model.sso import GRACE
from services.identity.usecases import endings, members, persons, sso_domains
from services.identity.usecases.scim import membership
from services.identity.usecases.scim.joining import join_provisioned
from tests.support.identity import ADMIN, CLERK, SECOND
from tests.support.postgres import TestDatabase
from tests.support.scim import BULK, ENTERPRISE, ERROR, GROUP, USER, Directory, Provisioning, new_token, provisioning
from tests.support.things import ACME, GLOBEX, context

pytestmark = pytest.mark.services("identity")
NEW = UUID(int=0x99)


@pytest.fixture
async def made(database: TestDatabase) -> AsyncIterator[Provisioning]:
    async with provisioning(database) as found:
        yield found


def refusal(answer: Any, status: int, kind: str | None) -> str:
    """The detail of an error, if it is one as RFC 7644 has it."""
    document = answer.document
    assert answer.headers["content-type"] == "application/scim+json"
    assert document["schemas"] == [ERROR]
    assert (answer.status, document["status"], document.get("scimType")) == (status, str(status), kind), document
    return str(document["detail"])


async def linked(made: Provisioning, user: UUID, user_name: str, **attributes: Any) -> dict[str, Any]:
    """A directory's user that a person has signed in as."""
    resource = await made.acme.made("Users", userName=user_name, **attributes)
    await made.registry.decide(lambda work: membership.link_person(work, user, user_name), user)
    return resource


async def roles(made: Provisioning, *given: tuple[str, str]) -> pb.UpdateScimRolesResponse:
    """Say what groups stand for."""
    asked = [pb.ScimRole(group=group, role=access_pb2.Role.Value(f"ROLE_{role}")) for group, role in given]
    request = pb.UpdateScimRolesRequest(organization_id=str(ACME), roles=asked)
    told = {"actor": f"user:{ADMIN}", "responsible_person": ADMIN, "role": "ADMIN", "aal": 2}
    with entered(context(ACME, "identity.scim_roles.update", **told)):
        return await made.rpc.UpdateScimRoles(request, None)


async def test_a_user_is_created_read_replaced_and_deleted_with_an_event_each(made: Provisioning) -> None:
    answer = await made.acme.ask("POST", "/Users", {"schemas": [USER], "userName": "Ada@acme.example"}, expect=201)
    user = answer.document
    where = f"/scim/v2/Users/{user['id']}"
    assert (answer.headers["location"], answer.headers["etag"]) == (where, 'W/"1"') == (
        user["meta"]["location"], user["meta"]["version"])  # fmt: skip
    assert user["active"] is True
    replaced = {"schemas": [USER], "userName": "ada@acme.example", "displayName": "Ada", "active": True}
    answer = await made.acme.ask("PUT", f"/Users/{user['id']}", replaced, expect=200)
    assert (answer.document["meta"]["version"], answer.headers["etag"]) == ('W/"2"', 'W/"2"')
    await made.acme.ask("PUT", f"/Users/{user['id']}", replaced, expect=200)  # Changes nothing, and leaves no trace.
    await made.acme.ask("DELETE", f"/Users/{user['id']}", expect=204)
    refusal(await made.acme.ask("GET", f"/Users/{user['id']}"), 404, None)
    told = await made.told()
    assert [each["metadata"]["operation"] for each in told] == ["create", "replace", "delete"]
    assert told[1]["metadata"]["before"]["version"] == "1"
    assert told[1]["metadata"]["after"]["changed"] == ["displayName", "userName"]
    assert {each["target"] for each in told} == {f"scim/Users/{user['id']}"}
    assert told[0]["actor"] == f"scim:{made.acme.token_id}"
    assert told[0]["responsible_person"] == str(ADMIN)
    assert "ada@" not in json.dumps(told).lower()
    (row,) = await made.registry.rows("SELECT * FROM identity.scim_users")
    assert "ada@" not in json.dumps([str(value) for value in row]).lower()  # Nothing personal stays.


async def test_versions_are_compared(made: Provisioning) -> None:
    user = await made.acme.made("Users", userName="a")
    path = f"/Users/{user['id']}"
    unchanged = await made.acme.ask("GET", path, if_none_match='W/"1"', expect=304)
    assert (unchanged.body, "content-type" in unchanged.headers) == (b"", False)
    stale = {"if_match": 'W/"7"'}
    for method, body in (("PUT", {"schemas": [USER], "userName": "b"}), ("DELETE", None)):
        refusal(await made.acme.ask(method, path, body, **stale), 412, None)
    patch = {"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"], "Operations": [
        {"op": "replace", "path": "title", "value": "x"}]}  # fmt: skip
    refusal(await made.acme.ask("PATCH", path, patch, **stale), 412, None)
    assert (await made.acme.ask("PATCH", path, patch, if_match='W/"1"')).headers["etag"] == 'W/"2"'


async def test_names_are_unique_in_an_organization_whatever_their_case(made: Provisioning) -> None:
    await made.acme.made("Users", userName="Ada@acme.example")
    other = await made.acme.made("Users", userName="other")
    again = {"schemas": [USER], "userName": "ADA@ACME.example"}
    refusal(await made.acme.ask("POST", "/Users", again), 409, "uniqueness")
    refusal(await made.acme.ask("PUT", f"/Users/{other['id']}", again), 409, "uniqueness")
    await made.globex.made("Users", userName="ada@acme.example")
    group = await made.acme.made("Groups", displayName="Ops")
    refusal(await made.acme.ask("POST", "/Groups", {"schemas": [GROUP], "displayName": "OPS"}), 409, "uniqueness")
    await made.acme.ask("DELETE", f"/Groups/{group['id']}", expect=204)
    await made.acme.made("Groups", displayName="ops")


async def test_what_okta_sends_is_understood(made: Provisioning) -> None:
    user = await made.acme.made(
        "Users", userName="o@acme.example", name={"givenName": "O", "familyName": "K"}, externalId="00u1", groups=[],
        emails=[{"primary": True, "value": "o@acme.example", "type": "work"}], password="secret!", locale="en-US",
    )  # fmt: skip
    assert "password" not in user
    path = f"/Users/{user['id']}"
    changed = (await made.acme.patch(path, {"op": "replace", "value": {"active": False}})).document
    assert changed["active"] is False
    group = await made.acme.made("Groups", displayName="Everyone", members=[])
    of_group = f"/Groups/{group['id']}"
    listed = [{"value": user["id"], "display": "o@acme.example"}]
    await made.acme.patch(of_group, {"op": "add", "path": "members", "value": listed}, expect=204)
    assert (await made.acme.get(path))["groups"][0]["display"] == "Everyone"
    renamed = {"op": "replace", "value": {"id": group["id"], "displayName": "All"}}
    await made.acme.patch(of_group, renamed, expect=204)
    await made.acme.patch(of_group, {"op": "remove", "path": f'members[value eq "{user["id"]}"]'}, expect=204)
    found = await made.acme.get(of_group)
    assert (found["displayName"], "members" in found) == ("All", False)
    rows = await made.registry.rows("SELECT document::text AS text FROM identity.scim_users")
    assert not any("secret!" in row["text"] for row in rows)


async def test_what_entra_sends_is_understood(made: Provisioning) -> None:
    user = await made.acme.made("Users", userName="e@acme.example", externalId="e", active=True)
    path, manager = f"/Users/{user['id']}", f"{ENTERPRISE}:manager"
    changed = (
        await made.acme.patch(
            path,
            {"op": "Replace", "path": "active", "value": "False"},
            {"op": "Add", "path": 'emails[type eq "work"].value', "value": "e@acme.example"},
            {"op": "Replace", "path": 'addresses[type eq "work"].locality', "value": "Bonn"},
            {"op": "Add", "path": manager, "value": user["id"]},
            {"op": "Add", "value": {"name.familyName": "Tra", f"{ENTERPRISE}:department": "Cloud"}},
        )
    ).document
    assert changed["active"] is False
    assert changed["emails"] == [{"type": "work", "value": "e@acme.example"}]
    assert (changed["addresses"], changed["name"]) == ([{"type": "work", "locality": "Bonn"}], {"familyName": "Tra"})
    assert changed[ENTERPRISE] == {"manager": {"value": user["id"]}, "department": "Cloud"}
    changed = (await made.acme.patch(path, {"op": "Replace", "path": manager, "value": ""})).document
    assert changed[ENTERPRISE] == {"department": "Cloud"}
    group = await made.acme.made("Groups", displayName="Entra")
    of_group = f"/Groups/{group['id']}"
    for operation in ("Add", "Remove", "Remove"):  # The second removal removes nothing.
        await made.acme.patch(
            of_group, {"op": operation, "path": "members", "value": [{"value": user["id"]}]}, expect=204
        )
    assert "members" not in await made.acme.get(of_group)
    assert [each["metadata"]["operation"] for each in await made.told()] == [
        "create",
        "patch",
        "patch",
        "create",
        "patch",
        "patch",
    ]
    found = await made.acme.get('/Groups?excludedAttributes=members&filter=displayName%20eq%20"entra"')
    assert [each["id"] for each in found["Resources"]] == [group["id"]]


async def test_lists_are_filtered_sorted_paged_and_cut(made: Provisioning) -> None:
    for number in range(7):
        await made.acme.made(
            "Users", userName=f"u{number}@acme.example", displayName=f"Ünit {6 - number}", externalId=f"x{number}",
            active=number % 2 == 0, title="50%_off" if number == 3 else None, name={"familyName": f"F{number}"},
            emails=[{"value": f"u{number}@acme.example", "type": "work" if number < 3 else "home"}],
        )  # fmt: skip

    async def names(query: str) -> list[str]:
        found = await made.acme.get(f"/Users?{query}")
        return [each["userName"][:2] for each in found["Resources"]]

    for given, expected in {
        'userName eq "U3@ACME.example"': ["u3"],
        'userName sw "u" and active eq false': ["u1", "u3", "u5"],
        'externalId eq "X1"': [],
        'externalId eq "x1" or id pr and not (userName ne "u2@acme.example")': ["u1", "u2"],
        'displayName co "ÜNIT 6"': ["u0"],
        'title co "%_"': ["u3"],
        'title co "0_o"': [],
        "title pr": ["u3"],
        "not (title pr) and active eq true": ["u0", "u2", "u4", "u6"],
        'emails[type eq "work" and value ew "acme.example"]': ["u0", "u1", "u2"],
        'emails.type eq "home"': ["u3", "u4", "u5", "u6"],
        'emails.value eq "u5@acme.example"': ["u5"],
        'emails ne "u5@acme.example" and userName gt "u4"': ["u4", "u6"],
        'name.familyName eq "f6"': ["u6"],
        f'{USER}:userName eq "u6@acme.example"': ["u6"],
        'meta.created gt "2100-01-01T00:00:00Z"': [],
        'userName eq "x\' OR 1=1 --"': [],
    }.items():
        assert await names(f"filter={_quoted(given)}") == expected, given
    assert await names("sortBy=displayName") == ["u6", "u5", "u4", "u3", "u2", "u1", "u0"]
    assert await names("sortBy=title&sortOrder=descending&count=2") == ["u0", "u1"]
    assert await names("startIndex=6&count=100") == ["u5", "u6"]
    found = await made.acme.get("/Users?count=0")
    assert (found["totalResults"], found["itemsPerPage"], found["Resources"]) == (7, 0, [])
    found = await made.acme.get("/Users?attributes=name.familyName,userName&count=1")
    assert found["Resources"][0].keys() == {"schemas", "id", "userName", "name"}
    found = await made.acme.get("/Users?excludedAttributes=emails,meta&count=1")
    assert not {"emails", "meta"} & found["Resources"][0].keys()
    searched = await made.acme.ask("POST", "/Users/.search", {"filter": 'externalId eq "x4"'}, expect=200)
    assert [each["userName"][:2] for each in searched.document["Resources"]] == ["u4"]


def _quoted(text: str) -> str:
    return quote(text)


async def test_groups_are_found_by_their_members(made: Provisioning) -> None:
    users = [await made.acme.made("Users", userName=f"u{number}") for number in range(2)]
    groups = [
        await made.acme.made("Groups", displayName=f"g{number}", members=[{"value": user["id"]}])
        for number, user in enumerate(users)
    ]
    for given in (f'members eq "{users[1]["id"]}"', f'members[value eq "{users[1]["id"]}"]'):
        found = await made.acme.get(f"/Groups?filter={_quoted(given)}")
        assert [each["displayName"] for each in found["Resources"]] == ["g1"]
    of_group = _quoted('groups.value eq "{}"'.format(groups[0]["id"]))
    found = await made.acme.get(f"/Users?filter={of_group}")
    assert [each["userName"] for each in found["Resources"]] == ["u0"]


DENIED = [
    ("GET", "/Users?filter=userName%20xx%20%22a%22", None, 400, "invalidFilter"),
    ("GET", "/Users?filter=nothing%20eq%20%22a%22", None, 400, "invalidFilter"),
    ("GET", "/Users?filter=password%20eq%20%22a%22", None, 400, "invalidFilter"),
    ("GET", "/Users?filter=active%20gt%20true", None, 400, "invalidFilter"),
    ("GET", "/Users?filter=userName%20eq%20%22%00%22", None, 400, "invalidValue"),
    ("GET", "/Users?filter=userName%20eq%20%22%5Cu0000%22", None, 400, "invalidValue"),
    ("GET", f"/Users?filter={'(' * 2001}", None, 400, "invalidFilter"),
    ("GET", f"/Users?filter={'%20or%20'.join(['title%20pr'] * 51)}", None, 400, "invalidFilter"),
    ("GET", f"/Users?filter={'not(' * 40}title%20pr{')' * 40}", None, 400, "invalidFilter"),
    ("GET", "/Users?sortBy=password", None, 400, "invalidValue"),
    ("GET", "/Users?sortOrder=up", None, 400, "invalidValue"),
    ("GET", "/Users?count=many", None, 400, "invalidValue"),
    ("GET", "/Users?count=1&Count=2", None, 400, "invalidValue"),
    ("GET", "/Users?nothing=1", None, 400, "invalidValue"),
    ("GET", "/Users?attributes=a&excludedAttributes=b", None, 400, "invalidValue"),
    ("GET", "/Schemas?filter=id%20pr", None, 403, None),
    ("GET", "/Users/not-an-id", None, 404, None),
    ("GET", "/nothing", None, 404, None),
    ("GET", "/Me", None, 501, None),
    ("POST", "/Users", b"{", 400, "invalidSyntax"),
    ("POST", "/Users", b"", 400, "invalidSyntax"),
    ("POST", "/Users", b"[]", 400, "invalidSyntax"),
    ("POST", "/Users", b"\xff\xfe{", 400, "invalidSyntax"),
    ("POST", "/Users", b'{"userName": "a", "username": "b"}', 400, "invalidSyntax"),
    ("POST", "/Users", b'{"userName": NaN}', 400, "invalidSyntax"),
    ("POST", "/Users", b"[" * 100_000, 400, "invalidSyntax"),
    ("POST", "/Users", b'{"userName": "a\\u0000"}', 400, "invalidValue"),
    ("POST", "/Users", b'{"userName": "\\ud800"}', 400, "invalidValue"),
    ("POST", "/Users", b'{"schemas": [], "userName": ' + b"9" * 5000 + b"}", 400, "invalidValue"),
    ("POST", "/Users", {"schemas": [USER]}, 400, "invalidValue"),
    ("POST", "/Users", {"schemas": [USER], "userName": "  "}, 400, "invalidValue"),
    ("POST", "/Users", {"schemas": [USER], "userName": "x" * 257}, 400, "invalidValue"),
    ("POST", "/Users", {"schemas": [USER], "userName": "a", "nothing": 1}, 400, "invalidSyntax"),
    ("POST", "/Users", {"schemas": [USER], "userName": "a", "emails": [{"value": "no address"}]}, 400, "invalidValue"),
    ("POST", "/Users", {"schemas": [USER], "userName": "a", "roles": [{"value": "KING"}]}, 400, "invalidValue"),
    ("POST", "/Users", {"schemas": [USER], "userName": "a", "emails": [{"value": "a@b"}] * 51}, 400, "invalidValue"),
    ("POST", "/Users", {"schemas": [USER], "userName": "a", "title": "x" * 9000}, 400, "invalidValue"),
    ("POST", "/Groups", {"schemas": [GROUP]}, 400, "invalidValue"),
    ("POST", "/Groups", {"schemas": [GROUP], "displayName": "g", "members": [{"value": "x"}]}, 400, "invalidValue"),
    ("POST", "/Groups", {"schemas": [GROUP], "displayName": "g", "members": [
        {"value": "01a2159e-a832-72b9-9183-279f0f55bc58", "type": "Group"}]}, 400, "invalidValue"),
    ("POST", "/Schemas", {}, 405, None),
    ("PUT", "/Users", {"schemas": [USER]}, 405, None),
    ("DELETE", "/Users", None, 405, None),
    ("POST", "/Bulk", {"schemas": [BULK], "Operations": [{}] * 101}, 413, None),
    ("POST", "/Bulk", {"schemas": [BULK], "Operations": []}, 400, "invalidSyntax"),
    ("POST", "/Bulk", {"Operations": [{}]}, 400, "invalidSyntax"),
]  # fmt: skip


async def test_what_is_amiss_is_said_as_scim_says_it_and_nothing_is_provisioned(made: Provisioning) -> None:
    for method, path, body, status, kind in DENIED:
        answer = await made.acme.ask(method, path, body)
        assert answer.status == status, (method, path, answer.body)
        detail = refusal(answer, status, kind)
        assert detail, (method, path)
        assert "pydantic" not in detail
    big = b'{"userName": "' + b"x" * 1_048_576 + b'"}'
    refusal(await made.acme.ask("POST", "/Users", big), 413, None)
    refusal(await made.acme.ask("POST", "/Users", b"<a/>", content_type="application/xml"), 415, None)
    utf16 = {"content_type": "application/scim+json; charset=utf-16"}
    refusal(await made.acme.ask("POST", "/Users", b"{}", **utf16), 415, None)
    for table in ("users", "groups"):
        assert await made.registry.rows(f"SELECT FROM identity.scim_{table}") == []
    assert await made.told() == []


PATCHES = [
    ({"op": "replace", "path": "nothing", "value": 1}, "invalidPath"),
    ({"op": "replace", "path": "emails[", "value": 1}, "invalidPath"),
    ({"op": "replace", "path": "id", "value": "x"}, "mutability"),
    ({"op": "replace", "path": "roles", "value": [{"value": "ADMIN"}]}, "mutability"),
    ({"op": "remove", "path": "userName"}, "mutability"),
    ({"op": "remove"}, "noTarget"),
    ({"op": "conquer", "path": "title", "value": "x"}, "invalidValue"),
    ({"op": "replace", "path": "active", "value": "perhaps"}, "invalidValue"),
    ({"op": "replace", "value": {"nothing": 1}}, "invalidValue"),
    ({"op": "add", "path": 'emails[type eq "\\u0000"].value', "value": "a@b"}, "invalidValue"),
    ({"op": "replace", "path": 'emails[value co "x"].value', "value": "a@b"}, "noTarget"),
]


async def test_a_patch_that_fails_changes_nothing(made: Provisioning) -> None:
    user = await made.acme.made("Users", userName="a", title="t")
    path = f"/Users/{user['id']}"
    for operation, kind in PATCHES:
        answer = await made.acme.patch(path, {"op": "replace", "path": "title", "value": "x"}, operation, expect=400)
        refusal(answer, 400, kind)
    assert await made.acme.get(path) == user
    assert len(await made.told()) == 1


async def test_a_group_refuses_whom_it_can_not_hold(made: Provisioning) -> None:
    stranger = await made.globex.made("Users", userName="g")
    group = await made.acme.made("Groups", displayName="g")
    path = f"/Groups/{group['id']}"
    for operation, kind in (
        ({"op": "add", "path": "members", "value": [{"value": stranger["id"]}]}, "invalidValue"),
        ({"op": "add", "path": "members", "value": [{"value": str(uuid4())}]}, "invalidValue"),
        ({"op": "add", "path": "members", "value": ["x"]}, "invalidValue"),
        ({"op": "add", "path": "members", "value": [{"value": group["id"], "type": "Group"}]}, "invalidValue"),
        ({"op": "remove", "path": 'members[display eq "x"]'}, "invalidPath"),
        ({"op": "replace", "path": "displayName", "value": ""}, "invalidValue"),
        ({"op": "replace", "value": {"id": str(uuid4())}}, "invalidValue"),
    ):
        refusal(await made.acme.patch(path, operation, expect=400), 400, kind)
    twice = [{"value": (await made.acme.made("Users", userName="a"))["id"]}] * 2
    body = {"schemas": [GROUP], "displayName": "h", "members": twice}
    assert "twice" in refusal(await made.acme.ask("POST", "/Groups", body), 400, "invalidValue")


async def test_a_token_reaches_nothing_of_another_organization_by_any_verb(made: Provisioning) -> None:
    user = await made.acme.made("Users", userName="a")
    group = await made.acme.made("Groups", displayName="g", members=[{"value": user["id"]}])
    patch = {"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"], "Operations": [
        {"op": "replace", "path": "displayName", "value": "mine"}]}  # fmt: skip
    for path, body in (
        (f"/Users/{user['id']}", {"schemas": [USER], "userName": "b"}),
        (f"/Groups/{group['id']}", {"schemas": [GROUP], "displayName": "b"}),
    ):
        for method, sent in (("GET", None), ("PUT", body), ("PATCH", patch), ("DELETE", None)):
            foreign = await made.globex.ask(method, path, sent)
            nowhere = await made.globex.ask(method, f"{path[:-36]}{uuid4()}", sent)
            assert refusal(foreign, 404, None)[:15] == refusal(nowhere, 404, None)[:15], (method, path)
    jobs = [{"method": "DELETE", "path": f"/Users/{user['id']}"}, {"method": "PATCH", "path": f"/Groups/{group['id']}",
        "data": patch}]  # fmt: skip
    answer = await made.globex.ask("POST", "/Bulk", {"schemas": [BULK], "Operations": jobs}, expect=200)
    assert [each["status"] for each in answer.document["Operations"]] == ["404", "404"]
    named = _quoted('id eq "{}"'.format(user["id"]))
    for path in ("/Users", "/Groups", f"/Users?filter={named}"):
        assert (await made.globex.get(path))["totalResults"] == 0
    assert (await made.globex.ask("POST", "/.search", {}, expect=200)).document["totalResults"] == 0
    assert await made.acme.get(f"/Users/{user['id']}")
    assert await made.told(GLOBEX) == []


async def test_only_a_good_token_lets_in(made: Provisioning) -> None:
    good = made.acme.token
    for token in ("", "x", good[:-1], f"{good}x", good.upper(), "rcs_" + "A" * 43):
        answer = await Directory(made.gateway, token).ask("GET", "/Users")
        refusal(answer, 401, None)
        assert answer.headers["www-authenticate"].startswith("Bearer")
    told = {"actor": f"user:{ADMIN}", "responsible_person": ADMIN, "role": "ADMIN", "aal": 2}
    request = pb.RevokeScimTokenRequest(organization_id=str(ACME), token_id=made.acme.token_id)
    await made.acme.get("/Users")
    with entered(context(ACME, "identity.scim_token.revoke", **told)):
        assert (await made.rpc.RevokeScimToken(request, None)).scim_token.HasField("revoked_at")
    refusal(await made.acme.ask("GET", "/Users"), 401, None)
    made.registry.clock.wall_ahead += timedelta(days=366)
    refusal(await made.globex.ask("GET", "/Users"), 401, None)


async def test_a_token_is_kept_as_its_hash_and_shown_once(made: Provisioning) -> None:
    rows = await made.registry.rows(
        "SELECT t::text AS text FROM identity.scim_tokens t UNION ALL SELECT encode(response, 'escape') FROM"
        " identity.idempotency UNION ALL SELECT encode(payload, 'escape') FROM identity.outbox"
    )
    assert len(rows) > 4
    assert not any(made.acme.token in row["text"] for row in rows)
    request = pb.ListScimTokensRequest(organization_id=str(ACME))
    await made.acme.get("/Users")
    with entered(context(ACME, "")):
        (listed,) = (await made.rpc.ListScimTokens(request, None)).scim_tokens
    assert listed.name == "okta"
    assert listed.HasField("last_used_at")


async def test_a_repeated_request_makes_one_token_and_shows_it_once(made: Provisioning) -> None:
    request = pb.CreateScimTokenRequest(organization_id=str(ACME), name="entra", request_id=str(uuid4()))
    told = {"actor": f"user:{ADMIN}", "responsible_person": ADMIN, "role": "ADMIN", "aal": 2, "rpc": "create"}
    answers = []
    for _ in range(2):
        with entered(context(ACME, "identity.scim_token.create", **told)):
            answers.append(await made.rpc.CreateScimToken(request, None))
    first, second = answers
    assert first.token
    assert not second.token
    assert first.scim_token == second.scim_token
    kept = await made.registry.rows("SELECT response FROM identity.idempotency")
    assert len(kept) == 1
    assert first.token.encode() not in kept[0]["response"]


async def test_deactivation_ends_the_membership_and_all_that_rests_on_it_in_one_transaction(
    made: Provisioning, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = await linked(made, NEW, "new@acme.example", emails=[{"value": "new@acme.example", "type": "work"}])
    member = await made.registry.member(NEW)
    assert (member.state, member.role) == ("ACTIVE", Role.VIEWER)
    path = f"/Users/{user['id']}"

    async def fail(work: UnitOfWork, member: Any) -> int:
        raise RuntimeError("no")

    with monkeypatch.context() as broken:
        broken.setattr(endings, "ENDINGS", (*endings.ENDINGS, ("things", fail)))
        answer = await made.acme.patch(path, {"op": "replace", "path": "active", "value": "False"}, expect=500)
        assert answer.document["schemas"] == [ERROR]
    assert (await made.registry.member(NEW)).state == "ACTIVE"
    assert (await made.acme.get(path))["active"] is True
    await made.acme.patch(path, {"op": "replace", "path": "active", "value": "False"})
    assert (await made.registry.member(NEW)).state == "REMOVED"
    assert ("MEMBER", f"{ACME}/user:{NEW}") in await made.registry.revoked()
    (event,) = await made.registry.events("identity.member.remove")
    assert event["metadata"]["reason"] == "directory"
    assert event["actor"] == f"scim:{made.acme.token_id}"
    txids = {row["txid"] for row in await made.registry.rows(
        "SELECT txid FROM identity.outbox WHERE action IN ('identity.member.remove', 'identity.scim.provision')"
        " ORDER BY counter DESC LIMIT 2")}  # fmt: skip
    assert len(txids) == 1
    await made.acme.patch(path, {"op": "replace", "path": "active", "value": True})
    assert (await made.registry.member(NEW)).state == "ACTIVE"
    await made.acme.ask("DELETE", path, expect=204)
    assert (await made.registry.member(NEW)).state == "REMOVED"
    (login,) = await made.registry.rows("SELECT state FROM identity.linked_identities")
    assert login["state"] == "REMOVED"


async def test_who_was_a_member_before_goes_by_their_address_and_gets_nothing_by_it(made: Provisioning) -> None:
    await prove(made)
    user = await made.acme.made("Users", userName="x", emails=[{"value": "CLEO@acme.example"}])
    await made.acme.made("Groups", displayName="g", members=[{"value": user["id"]}])
    await roles(made, ("g", "ADMIN"))
    assert (await made.registry.member(CLERK)).role is Role.VIEWER
    path = f"/Users/{user['id']}"
    await made.acme.patch(path, {"op": "replace", "value": {"active": False}})
    assert (await made.registry.member(CLERK)).state == "REMOVED"
    await made.acme.patch(path, {"op": "replace", "value": {"active": True}})
    assert (await made.registry.member(CLERK)).state == "REMOVED"


async def prove(made: Provisioning, name: str = "acme.example") -> None:
    """Make a domain the organization's."""
    domain = await made.registry.decide(lambda work: sso_domains.add_domain(work, name))
    await made.registry.decide(lambda work: sso_domains.verify_domain(work, domain.domain_id))


async def test_an_address_ends_nothing_outside_of_a_proven_domain_and_never_the_owner(made: Provisioning) -> None:
    gone = {"op": "replace", "value": {"active": False}}
    clerk = await made.acme.made("Users", userName="x", emails=[{"value": "cleo@acme.example"}])
    await made.acme.patch(f"/Users/{clerk['id']}", gone)
    assert (await made.registry.member(CLERK)).state == "ACTIVE"
    await prove(made)
    owner = await made.acme.made("Users", userName="y", emails=[{"value": "ada@acme.example"}])
    answer = await made.acme.patch(f"/Users/{owner['id']}", gone, expect=400)
    assert "owner stays" in refusal(answer, 400, "mutability")
    assert (await made.registry.member(ADMIN)).state == "ACTIVE"


async def test_deactivation_ends_what_the_person_has_by_other_logins(made: Provisioning) -> None:
    user = await linked(made, NEW, "new@acme.example")
    clerk = await made.registry.member(CLERK)
    member = await made.registry.member(NEW)
    await made.registry.decide(lambda work: persons.link_member(work, clerk.member_id, member.member_id))
    await made.acme.patch(f"/Users/{user['id']}", {"op": "replace", "value": {"active": False}})
    assert [(await made.registry.member(each)).state for each in (NEW, CLERK, SECOND)] == [
        "REMOVED", "REMOVED", "ACTIVE"]  # fmt: skip


async def test_a_token_ends_with_what_its_maker_was(made: Provisioning) -> None:
    member = await made.registry.member(SECOND)
    for change in (
        lambda work: members.update_member(work, member.member_id, Role.VIEWER, member.etag),
        lambda work: members.remove_member(work, member.member_id),
    ):
        token = await new_token(made.rpc, ACME, SECOND)
        theirs = replace(made.acme, token=token.token)
        await theirs.get("/Users")
        await made.registry.decide(change)
        refusal(await theirs.ask("GET", "/Users"), 401, None)
        event = (await made.registry.events("identity.scim_token.revoke"))[-1]
        assert event["target"] == f"scimTokens/{token.scim_token.token_id}"
    assert (await made.registry.events("identity.member.remove"))[-1]["metadata"]["ended"]["scim_tokens"] == "1"
    await made.acme.get("/Users")  # Another Admin's goes on.


async def test_no_absent_address_or_name_is_somebody(made: Provisioning) -> None:
    await made.acme.made("Users", userName="-")
    for email, name in (("nobody@acme.example", ""), ("", "nobody"), ("", "")):
        link = partial(membership.link_person, user_id=NEW, email=email, name=name)
        assert await made.registry.decide(link, NEW) is None


async def test_who_was_removed_doesnt_come_back_by_coming_and_no_admin_comes_with_one_factor(
    made: Provisioning,
) -> None:
    await prove(made)
    gone = await made.registry.member(CLERK)
    await made.registry.decide(lambda work: members.remove_member(work, gone.member_id))
    await made.acme.made("Users", userName="cleo@acme.example")
    user = await made.acme.made("Users", userName="new@acme.example")
    await made.acme.made("Groups", displayName="g", members=[{"value": user["id"]}])
    await roles(made, ("g", "ADMIN"))

    async def come(who: UUID, email: str, aal: int) -> bool:
        with entered(context(None, "", actor="spiffe://recoup/gateway", peer="gateway")):
            return await join_provisioned(
                made.registry.store, ACME, who, email, str(uuid4()), aal=aal, now=made.registry.clock.now()
            )

    assert not await come(CLERK, "cleo@acme.example", 2)
    assert (await made.registry.member(CLERK)).state == "REMOVED"
    assert not await come(NEW, "new@acme.example", 1)
    assert await made.registry.rows("SELECT FROM identity.linked_identities") == []
    assert await come(NEW, "new@acme.example", 2)
    assert (await made.registry.member(NEW)).role is Role.ADMIN


async def test_the_last_admin_stays(made: Provisioning) -> None:
    first = await linked(made, ADMIN, "ada@acme.example")
    second = await linked(made, SECOND, "bob@acme.example")
    await made.acme.patch(f"/Users/{second['id']}", {"op": "replace", "value": {"active": False}})
    path = f"/Users/{first['id']}"
    for answer in (
        await made.acme.patch(path, {"op": "replace", "value": {"active": False}}, expect=400),
        await made.acme.ask("DELETE", path),
        await made.acme.ask("PUT", path, {"schemas": [USER], "userName": "ada@acme.example", "active": False}),
    ):
        assert "last Admin stays" in refusal(answer, 400, "mutability")
    assert (await made.acme.get(path))["active"] is True
    assert (await made.registry.member(ADMIN)).state == "ACTIVE"
    group = await made.acme.made("Groups", displayName="Viewers")
    await roles(made, ("Viewers", "VIEWER"))
    demoted = {"op": "add", "path": "members", "value": [{"value": first["id"]}]}
    refusal(await made.acme.patch(f"/Groups/{group['id']}", demoted, expect=400), 400, "mutability")
    assert "members" not in await made.acme.get(f"/Groups/{group['id']}")


async def test_roles_follow_groups_the_first_of_the_list_counts(made: Provisioning) -> None:
    user = await linked(made, CLERK, "cleo@acme.example")
    entry = [{"value": user["id"]}]
    admins = await made.acme.made("Groups", displayName="Cloud Admins", members=entry)
    await made.acme.made("Groups", displayName="auditors", members=entry)
    assert (await made.registry.member(CLERK)).role is Role.VIEWER
    assert (await roles(made, ("AUDITORS", "AUDITOR"), ("cloud admins", "FINOPS"))).changed_members == 1
    assert (await made.registry.member(CLERK)).role is Role.AUDITOR
    await roles(made, ("Cloud Admins", "FINOPS"), ("auditors", "AUDITOR"))
    assert (await made.registry.member(CLERK)).role is Role.FINOPS
    assert ("MEMBER", f"{ACME}/user:{CLERK}") in await made.registry.revoked()
    path = f"/Groups/{admins['id']}"
    await made.acme.patch(path, {"op": "replace", "path": "displayName", "value": "Others"}, expect=204)
    assert (await made.registry.member(CLERK)).role is Role.AUDITOR
    await roles(made)
    assert (await made.registry.member(CLERK)).role is Role.VIEWER
    await roles(made, ("others", "FINANCE"))
    await made.acme.ask("DELETE", path, expect=204)
    assert (await made.registry.member(CLERK)).role is Role.VIEWER
    (event, *_) = await made.registry.events("identity.scim_roles.update")
    assert event["metadata"]["before"] == []
    with pytest.raises(Invalid):
        await roles(made, ("a", "VIEWER"), ("A", "VIEWER"))


async def test_who_signs_in_is_linked_only_where_it_is_clear_who_they_are(made: Provisioning) -> None:
    async def link(email: str, name: str = "") -> Any:
        return await made.registry.decide(lambda work: membership.link_person(work, NEW, email, name), NEW)

    await made.acme.made("Users", userName="new@acme.example", active=False)
    assert await link("new@acme.example") is None  # Deactivated.
    await made.acme.made("Users", userName="a", emails=[{"value": "same@acme.example"}])
    await made.acme.made("Users", userName="b", emails=[{"value": "same@acme.example"}])
    assert await link("same@acme.example") is None  # Two of them.
    assert await link("") is None
    assert await link("nobody@acme.example") is None
    assert await made.registry.rows("SELECT FROM identity.linked_identities") == []
    await made.acme.made("Users", userName="NameID-7")
    member = await link("", "nameid-7")
    assert (member.user_id, member.role, member.state) == (NEW, Role.VIEWER, "ACTIVE")
    assert await link("", "nameid-7") is None  # Linked already.
    (event,) = await made.registry.events("identity.scim.link")
    assert event["metadata"]["after"] == {"user_id": str(NEW)}


async def test_who_comes_with_a_proven_address_joins_inside_a_proven_domain_alone(made: Provisioning) -> None:
    await made.acme.made("Users", userName="new@acme.example")
    store, now = made.registry.store, made.registry.clock.now()

    async def come(email: str, organization: UUID = ACME) -> bool:
        with entered(context(None, "", actor="spiffe://recoup/gateway", peer="gateway")):
            return await join_provisioned(store, organization, NEW, email, str(uuid4()), aal=1, now=now)

    assert not await come("new@acme.example")  # The domain isn't proven.
    domain = await made.registry.decide(lambda work: sso_domains.add_domain(work, "acme.example"))
    assert not await come("new@acme.example")  # Named, and still not proven.
    await made.registry.decide(lambda work: sso_domains.verify_domain(work, domain.domain_id))
    assert not await come("")  # The session proves no address.
    assert not await come("not an address")
    assert not await come("other@acme.example")
    assert not await come("new@acme.example", GLOBEX)
    await made.registry.decide(lambda work: sso_domains.recheck_domain(work, domain.domain_id, found=False))
    now += GRACE + timedelta(minutes=1)
    assert not await come("NEW@acme.example")  # The record is gone for too long.
    now -= GRACE
    assert await made.registry.rows("SELECT FROM identity.linked_identities") == []
    assert await come("NEW@acme.example")
    member = await made.registry.member(NEW)
    assert (member.role, member.state) == (Role.VIEWER, "ACTIVE")
    (event,) = await made.registry.events("identity.scim.link")
    assert event["actor"] == f"user:{NEW}"
    parse_payload(
        *(
            await made.registry.rows(
                "SELECT payload, event_id, organization_id FROM identity.outbox WHERE action = 'identity.scim.link'"
            )
        )[0]
    )
    assert not await come("new@acme.example")


async def test_a_bulk_job_does_each_operation_alone_and_refers_to_what_it_made(made: Provisioning) -> None:
    def post(name: str, bulk_id: str) -> dict[str, Any]:
        data = {"schemas": [USER], "userName": name}
        return {"method": "POST", "path": "/Users", "bulkId": bulk_id, "data": data}

    group = {"schemas": [GROUP], "displayName": "g", "members": [{"value": "bulkId:one"}]}
    rename = {"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"], "Operations": [
        {"op": "replace", "path": "title", "value": "x"}]}  # fmt: skip
    operations = [
        post("a", "one"),
        {"method": "POST", "path": "/Groups", "bulkId": "g", "data": group},
        post("A", "twin"),
        {"method": "PATCH", "path": "/Users/bulkId:one", "data": rename},
        {"method": "POST", "path": "/Groups", "bulkId": "h", "data": {**group, "displayName": "h", "members": [
            {"value": "bulkId:nobody"}]}},
        {"method": "DELETE", "path": "/Users/bulkId:one", "version": 'W/"9"'},
    ]  # fmt: skip
    answer = await made.acme.ask("POST", "/Bulk", {"schemas": [BULK], "Operations": operations}, expect=200)
    done = answer.document["Operations"]
    assert [each["status"] for each in done] == ["201", "201", "409", "200", "400", "412"]
    assert done[2]["response"]["scimType"] == "uniqueness"
    assert done[3]["version"] == 'W/"2"'
    assert (await made.acme.get("/Users"))["totalResults"] == 1
    job = {"schemas": [BULK], "failOnErrors": 1, "Operations": [post("a", "x"), post("b", "y"), post("c", "z")]}
    answer = await made.acme.ask("POST", "/Bulk", job, expect=200)
    assert [each["status"] for each in answer.document["Operations"]] == ["409"]
    assert (await made.acme.get("/Users"))["totalResults"] == 1


async def test_the_log_takes_every_event_of_a_directory(made: Provisioning) -> None:
    """One that it refused would hold up all that follow it."""
    user = await linked(made, NEW, "new@acme.example")
    await made.acme.made("Groups", displayName="g", members=[{"value": user["id"]}])
    await made.acme.patch(f"/Users/{user['id']}", {"op": "replace", "value": {"active": False}})
    rows = await made.registry.rows("SELECT * FROM identity.outbox WHERE payload LIKE '%scim:%'::bytea")
    assert len(rows) >= 4
    for row in rows:
        parse_payload(row["payload"], row["event_id"], row["organization_id"])


async def test_the_status_says_how_it_goes(made: Provisioning) -> None:
    await linked(made, NEW, "new@acme.example")
    await made.acme.made("Users", userName="b", active=False)
    await made.acme.made("Groups", displayName="g")
    with entered(context(ACME, "")):
        found = await made.rpc.GetScimStatus(pb.GetScimStatusRequest(organization_id=str(ACME)), None)
    assert (found.users, found.active_users, found.linked_users, found.groups) == (2, 1, 1, 1)
    assert found.HasField("last_seen_at")
    assert found.HasField("last_sync_at")
