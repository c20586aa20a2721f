"""Every RPC × every role × every way to be somebody else, generated from the descriptors.

An RPC is covered the day it is written: without a factory in `valid_requests.py`, or without a rule, these tests fail.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import grpc
import pytest

from recoup.identity.v1 import identity_service_pb2, identity_service_pb2_grpc
from recoup_local.issuer import ORGANIZATIONS, ROLES, find_person, organization_id
from services._mesh.descriptors import MethodRule, Scope, faults, method_rules
from services._mesh.ids import PLATFORM
from services.gateway import transcode
from tests.isolation.rpcs import (
    HOLDERS,
    JOBS,
    LISTS,
    PLATFORM_HOLDERS,
    ROUTES,
    RULES,
    SERVED,
    TENANT,
    WHOLE,
    ask,
    short,
)
from tests.isolation.straight import Straight
from tests.isolation.valid_requests import FACTORIES, Case
from tests.support.mesh import TestMesh

pytestmark = pytest.mark.xdist_group("story")

CONFIG = Path(__file__).resolve().parents[2] / "deploy" / "config"
PEERS = [(process, rule) for process, rule in RULES.values() if rule.scope is Scope.PEER]
PEERS += [(process, rule) for process in ("scanner", "pricing", "actions", "audit") for rule in method_rules(JOBS)]
GRANTED = [(process, rule) for process, rule in PEERS if rule.needs_grant]
PROCESSES = (
    *("gateway", "identity", "scanner", "scanner-worker", "pricing", "pricing-worker", "actions", "actions-worker"),
    *("audit", "audit-worker", "audit-signer", "broker", "client/tests", "notifier"),
)


# How a service says what the edge answers, for callers who were let in.
ALLOWED = {
    (200, ""): grpc.StatusCode.OK,
    (409, "RESOURCE_EXISTS"): grpc.StatusCode.ALREADY_EXISTS,
    (404, "RESOURCE_NOT_FOUND"): grpc.StatusCode.NOT_FOUND,
    (400, "FIELD_INVALID"): grpc.StatusCode.INVALID_ARGUMENT,
    (400, "STATE_WRONG"): grpc.StatusCode.FAILED_PRECONDITION,
}


def roles_that_may(rule: MethodRule) -> Iterator[str]:
    return iter(sorted(HOLDERS[rule.permission]))


def test_every_rule_is_sound_and_every_rpc_has_a_case() -> None:
    assert faults([*(service for _, service in SERVED), JOBS]) == []
    unrouted = {n for n, (_, rule) in RULES.items() if rule.scope is Scope.ORGANIZATION} - set(ROUTES)
    assert unrouted == {"recoup.audit.v1.AuditService/ProveEvents"}  # for actions alone, see below
    assert {n for n, (_, rule) in RULES.items() if rule.scope is Scope.PLATFORM} == set(WHOLE)
    assert set(TENANT) | set(WHOLE) == set(FACTORIES)


@pytest.mark.parametrize("name", TENANT, ids=short)
@pytest.mark.parametrize("role", ROLES)
def test_a_role_may_what_its_permissions_say(made: TestMesh, cases: dict[str, Case], name: str, role: str) -> None:
    rule = RULES[name][1]
    status, reason = ask(made.rest("acme", role), name, cases[name])
    if role in HOLDERS[rule.permission]:
        assert (status, reason) == cases[name].answer
    else:
        assert (status, reason) == (403, "PERMISSION_MISSING")


@pytest.mark.parametrize("name", WHOLE, ids=short)
def test_what_is_about_the_whole_installation_is_for_the_platforms_roles_alone(
    made: TestMesh, cases: dict[str, Case], name: str
) -> None:
    permission = RULES[name][1].permission
    assert PLATFORM_HOLDERS[permission]
    for role in ORGANIZATIONS["platform"]:
        expected = cases[name].answer if role in PLATFORM_HOLDERS[permission] else (403, "PERMISSION_MISSING")
        assert ask(made.rest("platform", role), name, cases[name]) == expected, role
    for organization in ("acme", "globex"):
        for role in ROLES:
            assert ask(made.rest(organization, role), name, cases[name]) == (403, "PERMISSION_MISSING"), role


@pytest.mark.parametrize("name", WHOLE, ids=short)
def test_a_customers_passport_opens_nothing_of_the_whole_installation(
    straight: Straight, cases: dict[str, Case], name: str
) -> None:
    """Straight at the service: with any passport but the platform's own."""
    process, rule = RULES[name]
    case, query = cases[name], list((cases[name].query or {}).items())
    body = b"" if case.body is None else json.dumps(case.body).encode()
    variables = {"organization_id": str(PLATFORM)} if "{organization_id}" in ROUTES[name].template else {}
    request = transcode.build_request(ROUTES[name], {**variables, **case.variables}, query, body, 32)
    allowed = ALLOWED[case.answer]
    for organization, role, code in (
        ("platform", next(iter(PLATFORM_HOLDERS[rule.permission])), allowed),
        ("acme", "ADMIN", grpc.StatusCode.PERMISSION_DENIED),
        ("acme", "AUDITOR", grpc.StatusCode.PERMISSION_DENIED),
    ):
        bearer = (("authorization", f"Bearer {straight.passport(organization, role, process)}"),)
        assert straight.code(process, "client/tests", rule, request, bearer) is code, organization


@pytest.mark.parametrize("name", TENANT, ids=short)
def test_the_platforms_members_reach_nothing_of_a_customers(made: TestMesh, cases: dict[str, Case], name: str) -> None:
    for role in ORGANIZATIONS["platform"]:
        foreign = ask(made.rest("platform", role), name, cases[name], organization=str(organization_id("acme")))
        assert foreign == (404, "RESOURCE_NOT_FOUND"), role


async def test_nobody_gets_a_passport_for_the_platform_who_isnt_of_it(made: TestMesh) -> None:
    async with made.channel("identity", "client/tests") as channel:
        stub = identity_service_pb2_grpc.IdentityServiceStub(channel)
        for role in ROLES:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.IssuePassport(
                    identity_service_pb2.IssuePassportRequest(
                        session_token=made.mesh.token("acme", role),
                        audience="audit",
                        organization_id=str(organization_id("platform")),
                    ),
                    timeout=10,
                )
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("name", TENANT + WHOLE, ids=short)
def test_no_or_a_bad_session_is_401(made: TestMesh, cases: dict[str, Case], name: str) -> None:
    issuer, rule = made.mesh.installation.issuer, RULES[name][1]
    stranger = made.rest("acme", "Admin")  # With other credentials each time; what they have themselves isn't sent.
    if rule.scope is Scope.PLATFORM:
        person = find_person("platform", next(iter(PLATFORM_HOLDERS[rule.permission])))
    else:
        person = find_person("acme", next(roles_that_may(rule)))
    for token, reason in (
        ("", "CREDENTIAL_MISSING"),
        (issuer.token(person, seconds=-600), "CREDENTIAL_EXPIRED"),
        (issuer.token(person)[:-6] + "AAAAAA", "CREDENTIAL_INVALID"),
        (issuer.token(person, role="service_role"), "CREDENTIAL_INVALID"),
        (issuer.token(person, is_anonymous=True), "CREDENTIAL_INVALID"),
        (issuer.token(person, exp=None), "CREDENTIAL_INVALID"),
    ):
        found = ask(stranger, name, cases[name], token=token)
        # Strangers are slowed down by address; being slowed down isn't being let in.
        assert found in ((401, reason), (429, "RATE_LIMITED")), reason


@pytest.mark.parametrize("name", TENANT, ids=short)
def test_another_organization_in_the_path_is_404(made: TestMesh, cases: dict[str, Case], name: str) -> None:
    for role in roles_that_may(RULES[name][1]):
        foreign = ask(made.rest("globex", role), name, cases[name], organization=str(organization_id("acme")))
        nowhere = ask(made.rest("globex", role), name, cases[name], organization=str(uuid4()))
        assert foreign == nowhere == (404, "RESOURCE_NOT_FOUND")


@pytest.mark.parametrize(
    "name", [n for n in TENANT if "_id}" in ROUTES[n].template.replace("{organization_id}", "")], ids=short
)
def test_another_organizations_resource_is_404(made: TestMesh, cases: dict[str, Case], name: str) -> None:
    for role in roles_that_may(RULES[name][1]):
        assert ask(made.rest("globex", role), name, cases[name]) == (404, "RESOURCE_NOT_FOUND")


@pytest.mark.parametrize("name", LISTS, ids=short)
def test_another_organizations_page_token_is_400(made: TestMesh, cases: dict[str, Case], name: str) -> None:
    role = next(roles_that_may(RULES[name][1]))
    ours = made.rest("acme", role)
    route = ROUTES[name]
    first = ours.client.get(
        route.template.replace("{organization_id}", ours.organization_id),
        params={**(cases[name].query or {}), "pageSize": "1"},
    ).json()
    token = first["nextPageToken"] or "bm90LW91cnM"
    if first["nextPageToken"]:
        assert ask(ours, name, cases[name], pageSize="1", pageToken=token)[0] == 200
    assert ask(made.rest("globex", role), name, cases[name], pageToken=token) == (400, "PAGE_TOKEN_INVALID")


@pytest.mark.parametrize("name", TENANT, ids=short)
def test_another_organization_in_the_message_is_not_found(
    straight: Straight, cases: dict[str, Case], name: str
) -> None:
    """Straight at the service, with a good passport of globex and a request that names acme."""
    process, rule = RULES[name]
    variables = {**cases[name].variables, "organization_id": str(organization_id("acme"))}
    body = b"" if cases[name].body is None else json.dumps(cases[name].body).encode()
    query = list((cases[name].query or {}).items())
    request = transcode.build_request(ROUTES[name], variables, query, body, 32)
    role = next(roles_that_may(rule))
    passport = straight.passport("globex", role, process)
    code = straight.code(process, "client/tests", rule, request, (("authorization", f"Bearer {passport}"),))
    assert code is grpc.StatusCode.NOT_FOUND


def test_a_stolen_passport_is_worth_nothing(straight: Straight) -> None:
    """A passport that the gateway presents is bound to the gateway's certificate."""
    passport = straight.passport("acme", "ADMIN", "identity")
    rule = RULES["recoup.identity.v1.IdentityService/GetOrganization"][1]
    request = identity_service_pb2.GetOrganizationRequest(organization_id=str(organization_id("acme")))
    bearer = (("authorization", f"Bearer {passport}"),)
    assert straight.code("identity", "client/tests", rule, request, bearer) is grpc.StatusCode.OK
    assert straight.code("identity", "gateway", rule, request, bearer) is grpc.StatusCode.UNAUTHENTICATED
    wrong_audience = straight.passport("acme", "ADMIN", "scanner")
    bearer = (("authorization", f"Bearer {wrong_audience}"),)
    assert straight.code("identity", "client/tests", rule, request, bearer) is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(("process", "rule"), PEERS, ids=[f"{p}-{short(r.name)}" for p, r in PEERS])
def test_a_peer_that_is_not_on_the_list_is_refused(straight: Straight, process: str, rule: MethodRule) -> None:
    listed = tomllib.loads((CONFIG / f"{process}.toml").read_text())["callers"]["rpc"][rule.name]
    for peer in PROCESSES:
        if peer in listed or ("client/*" in listed and peer.startswith("client/")):
            continue
        code = straight.code(process, peer, rule, rule.request(), ())
        assert code is grpc.StatusCode.PERMISSION_DENIED, peer


@pytest.mark.parametrize(
    ("process", "rule"),
    [(p, r) for p, r in PEERS if r.needs_grant],
    ids=[short(r.name) for _, r in PEERS if r.needs_grant],
)
def test_a_listed_peer_without_a_grant_is_refused(straight: Straight, process: str, rule: MethodRule) -> None:
    for peer in tomllib.loads((CONFIG / f"{process}.toml").read_text())["callers"]["rpc"][rule.name]:
        for metadata in ((), (("recoup-grant", "x.y.z"),)):
            code = straight.code(process, peer, rule, rule.request(), metadata)
            assert code is grpc.StatusCode.PERMISSION_DENIED, peer
