"""Access rules about the session: a person's own, and recently authenticated. And which of such rules are unsound."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import ServiceDescriptor

from recoup.mesh.v1 import access_pb2
from services._mesh.access import Gate
from services._mesh.clock import Clock
from services._mesh.descriptors import faults, method_rules
from services._mesh.errors import Denied
from services._mesh.passports import Kind, Passport
from services._mesh.validation import RequestValidator
from tests.unit.test_mesh_platform_scope import ACME, PASSPORT

DO = "tests.thing.do"
NOW = 1_800_000_000
RECENT = dataclasses.replace(
    PASSPORT, organization_id=ACME, permissions=frozenset({DO}), kind=Kind.HUMAN, aal=2, auth_time=NOW - 900
)


def service(name: str, **access: int) -> ServiceDescriptor:
    """A service with one RPC under the given rule."""
    file = descriptor_pb2.FileDescriptorProto(name=f"tests/{name}.proto", package=f"tests.{name}", syntax="proto3")
    file.message_type.add(name="Asked").field.add(name="organization_id", number=1, type=9, label=1)
    made = file.service.add(name="Things")
    made.options.Extensions[access_pb2.permissions].permission.add(name=DO, roles=[access_pb2.ROLE_ADMIN])
    method = made.method.add(name="DoThing", input_type=f".tests.{name}.Asked", output_type=f".tests.{name}.Asked")
    rule = method.options.Extensions[access_pb2.access]
    rule.scope, rule.permission, rule.effect = access_pb2.SCOPE_ORGANIZATION, DO, access_pb2.EFFECT_READ
    for field, value in access.items():
        setattr(rule, field, value)
    if rule.scope == access_pb2.SCOPE_PEER:
        rule.permission = ""
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return pool.FindServiceByName(f"tests.{name}.Things")


def gate(name: str, **access: int) -> Gate:
    # The injected clock is weeks ahead, as it may be: it has no say in this.
    clock = Clock(
        now=lambda: datetime.fromtimestamp(NOW + 30 * 86_400, UTC), wall=lambda: datetime.fromtimestamp(NOW, UTC)
    )
    checks: Any = type("Checks", (), {"validator": RequestValidator(), "clock": clock})
    (rule,) = method_rules(service(name, **access))
    callers: Any = None
    return Gate(rule, callers, checks)


def refusal(of: Gate, passport: Passport) -> Denied:
    with pytest.raises(Denied) as caught:
        of.authorize(passport)
    return caught.value


def test_what_is_for_people_is_closed_to_machines_whatever_they_hold() -> None:
    for_people = gate("people", session=access_pb2.SESSION_RULE_HUMAN)
    for_people.authorize(RECENT)
    found = refusal(for_people, dataclasses.replace(RECENT, kind=Kind.MACHINE))
    assert (found.reason_name, found.metadata) == ("HUMAN_SESSION_REQUIRED", {"session": "human"})
    # Without the permission nobody learns what else would be asked.
    assert refusal(for_people, dataclasses.replace(RECENT, permissions=frozenset())).reason_name == "PERMISSION_MISSING"
    gate("anybodys").authorize(dataclasses.replace(RECENT, kind=Kind.MACHINE))


def test_a_passport_that_doesnt_say_so_isnt_a_persons() -> None:
    assert PASSPORT.kind is Kind.MACHINE


def test_authentication_is_recent_by_the_wall_clock() -> None:
    recent = gate("recent", session=access_pb2.SESSION_RULE_HUMAN, max_auth_age_seconds=900)
    recent.authorize(RECENT)
    found = refusal(recent, dataclasses.replace(RECENT, auth_time=NOW - 901))
    assert (found.reason_name, found.metadata) == (
        "REAUTHENTICATION_REQUIRED",
        {"max_auth_age_seconds": "900", "auth_age_seconds": "901"},
    )
    assert "15 minutes" in found.message
    gate("whenever", session=access_pb2.SESSION_RULE_HUMAN).authorize(dataclasses.replace(RECENT, auth_time=0))


def test_rules_that_cant_be_kept_are_faults() -> None:
    human = access_pb2.SESSION_RULE_HUMAN
    assert faults([service("kept", session=human, max_auth_age_seconds=900)]) == []
    peers = faults([service("peers", session=human, scope=access_pb2.SCOPE_PEER)])
    assert any("is for a person's session, which PEER scope doesn't carry" in fault for fault in peers)
    (aged,) = faults([service("aged", max_auth_age_seconds=900)])
    assert "asks for recent authentication without being for a person's session" in aged
