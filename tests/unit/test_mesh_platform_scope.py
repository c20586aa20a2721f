"""PLATFORM scope: who may reach what is about the whole installation, and which access rules are unsound."""

from __future__ import annotations

import dataclasses
import tomllib
from typing import Any
from uuid import UUID

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import ServiceDescriptor

from recoup.mesh.v1 import access_pb2
from recoup_local.issuer import ROLES, find_person, organization_id, people_file
from services._mesh.access import Gate
from services._mesh.descriptors import faults, method_rules
from services._mesh.errors import Denied
from services._mesh.ids import PLATFORM
from services._mesh.passports import Passport
from services._mesh.validation import RequestValidator
from services.identity.__main__ import permission_table
from services.identity.bootstrap import read
from services.identity.model.permissions import require_platform_named

ACME = UUID("3dcd07a2-aef7-54d0-b11c-6638c1b15e53")
READ = "tests.whole.read"
PASSPORT = Passport(
    audience="tests",
    actor="user:somebody",
    responsible_person=ACME,
    organization_id=PLATFORM,
    role="AUDITOR",
    permissions=frozenset({READ}),
    permissions_version=1,
    session_id="s",
    aal=1,
    auth_time=0,
    act=(),
    presenter="x",
    jti="j",
    issued_at=0,
    expires_at=1,
)


def service(name: str, **holders: list[int]) -> ServiceDescriptor:
    """A service with one RPC of PLATFORM scope, whose permission the given roles hold."""
    file = descriptor_pb2.FileDescriptorProto(name=f"tests/{name}.proto", package=f"tests.{name}", syntax="proto3")
    file.message_type.add(name="Asked")
    made = file.service.add(name="Whole")
    made.options.Extensions[access_pb2.permissions].permission.add(name=READ, **holders)
    method = made.method.add(name="ReadWhole", input_type=f".tests.{name}.Asked", output_type=f".tests.{name}.Asked")
    access = method.options.Extensions[access_pb2.access]
    access.scope, access.permission, access.effect = access_pb2.SCOPE_PLATFORM, READ, access_pb2.EFFECT_READ
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return pool.FindServiceByName(f"tests.{name}.Whole")


def gate(name: str) -> Gate:
    checks: Any = type("Checks", (), {"validator": RequestValidator()})
    (rule,) = method_rules(service(name, platform_roles=[access_pb2.ROLE_AUDITOR]))
    callers: Any = None
    return Gate(rule, callers, checks)


def test_a_rule_of_platform_scope_is_sound_when_the_platforms_roles_alone_hold_its_permission() -> None:
    assert faults([service("sound", platform_roles=[access_pb2.ROLE_AUDITOR])]) == []
    shared = service("shared", platform_roles=[access_pb2.ROLE_AUDITOR], roles=[access_pb2.ROLE_ADMIN])
    assert [fault.partition(" ")[2] for fault in faults([shared])] == [
        f"has PLATFORM scope, but roles of an organization hold '{READ}'"
    ]
    assert [fault.partition(" ")[2] for fault in faults([service("nobodys")])] == [
        f"has PLATFORM scope, but no role of the platform organization holds '{READ}'"
    ]


def test_only_a_passport_for_the_platform_organization_opens_it() -> None:
    whole = gate("whole")
    whole.authorize(PASSPORT)
    # Not even a passport that names the permission: which organization it is for counts.
    for organization in (ACME, None):
        with pytest.raises(Denied, match="members of the platform organization") as caught:
            whole.authorize(dataclasses.replace(PASSPORT, organization_id=organization))
        assert (caught.value.reason_name, caught.value.metadata) == ("PERMISSION_MISSING", {"permission": READ})
    with pytest.raises(Denied, match="doesn't hold"):
        whole.authorize(dataclasses.replace(PASSPORT, permissions=frozenset()))


def test_members_of_the_platform_hold_what_is_theirs_and_nothing_of_a_customers() -> None:
    table = permission_table()
    for role in ("SECURITY", "AUDITOR"):
        assert "audit.log.read" in table.held(PLATFORM, role, "audit")
    every = [table.held(ACME, role, "audit") for role in ROLES]
    assert any(every)
    assert not any("audit.log.read" in held for held in every)
    assert "audit.event.read" in table.held(ACME, "AUDITOR", "audit")
    for process in ("scanner", "pricing", "actions"):
        for role in ("ADMIN", "SECURITY", "AUDITOR"):
            assert table.held(PLATFORM, role, process) == frozenset()
            assert table.held(ACME, role, process)
    assert table.held(None, "AUDITOR", "audit") == frozenset()


def test_the_platforms_name_and_id_come_together() -> None:
    require_platform_named(PLATFORM, "platform")
    require_platform_named(ACME, "acme")
    for wrong, slug in ((ACME, "platform"), (PLATFORM, "acme")):
        with pytest.raises(ValueError, match=str(PLATFORM)):
            require_platform_named(wrong, slug)


def test_the_local_people_have_a_platform_auditor() -> None:
    organizations = {each.slug: each for each in read(tomllib.loads(people_file()))}
    auditor = find_person("platform", "Auditor")
    assert organizations["platform"].organization_id == organization_id("platform") == PLATFORM
    assert auditor.user_id in {user_id for user_id, _, _ in organizations["platform"].members}
    for slug in ("acme", "globex"):
        assert auditor.user_id not in {user_id for user_id, _, _ in organizations[slug].members}
    with pytest.raises(KeyError, match="Admin, Security, Auditor"):
        find_person("platform", "FinOps")
