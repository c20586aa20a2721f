"""Break-glass at the gate: what an elevation adds opens the RPCs that say so, and no others."""

from __future__ import annotations

import dataclasses
from typing import Any
from uuid import UUID

import pytest

from recoup.audit.v1 import audit_service_pb2, erasure_service_pb2
from recoup.services import SERVICES
from services._mesh.access import Gate
from services._mesh.descriptors import MethodRule, Scope, method_rules
from services._mesh.errors import Denied
from services._mesh.ids import PLATFORM
from services._mesh.passports import Elevation, Passport
from services._mesh.validation import RequestValidator
from services.identity.__main__ import break_glass_reach

ACME = UUID(int=1)
RELEASE = "audit.hold.release"
TAKEN = Elevation(elevation_id=UUID(int=2), permissions=frozenset({RELEASE}), expires_at=1)
PASSPORT = Passport(
    audience="audit", actor="user:somebody", responsible_person=ACME, organization_id=ACME, role="ADMIN",
    permissions=frozenset(), permissions_version=1, session_id="s", aal=2, auth_time=0, act=(), presenter="x",
    jti="j", issued_at=0, expires_at=1,
)  # fmt: skip


def release() -> MethodRule:
    service = erasure_service_pb2.DESCRIPTOR.services_by_name["ErasureService"]
    return next(rule for rule in method_rules(service) if rule.method == "ReleaseLegalHold")


def gate(rule: MethodRule) -> Gate:
    revocations: Any = type("Fresh", (), {"require_fresh": lambda self: None})()
    checks: Any = type("Checks", (), {"validator": RequestValidator(), "revocations": revocations})
    callers: Any = None
    return Gate(dataclasses.replace(rule, human_only=False, max_auth_age_seconds=0), callers, checks)


def test_it_opens_what_says_so_and_nothing_else_with_the_same_permission() -> None:
    rule, elevated = release(), dataclasses.replace(PASSPORT, elevation=TAKEN)
    gate(rule).authorize(elevated)
    closed = dataclasses.replace(rule, break_glass=False)
    other = dataclasses.replace(TAKEN, permissions=frozenset({"audit.hold.place"}))
    for opened, passport in (
        (rule, PASSPORT),
        (closed, elevated),
        (rule, dataclasses.replace(PASSPORT, elevation=other)),
    ):
        with pytest.raises(Denied, match="doesn't hold"):
            gate(opened).authorize(passport)
    with pytest.raises(Denied, match="second factor"):
        gate(rule).authorize(dataclasses.replace(elevated, aal=1))
    assert (PASSPORT.authority, elevated.authority) == ("passport:j", f"elevation:{UUID(int=2)}.j")


def test_it_reaches_no_approval_and_nothing_that_decides_who_may_do_what() -> None:
    reachable = {rule.name for services in SERVICES.values() for s in services for rule in method_rules(s)
                 if rule.break_glass}  # fmt: skip
    assert not {name for name in reachable if name.startswith("recoup.identity.")}
    assert not {name for name in reachable if "Approve" in name or "Reject" in name}
    reach = break_glass_reach()
    assert reach.within(ACME, "audit", [RELEASE, "audit.log.read"]) == {RELEASE}
    assert reach.within(PLATFORM, "audit", [RELEASE, "audit.log.read"]) == {"audit.log.read"}
    assert reach.within(ACME, "scanner", [RELEASE]) == frozenset()
    whole = audit_service_pb2.DESCRIPTOR.services_by_name["AuditService"]
    assert all(rule.scope is Scope.PLATFORM for rule in method_rules(whole) if rule.break_glass)
