"""Roles that are limited to some resources, and approvers who are new: what a gate makes of their passports."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from recoup.services import SERVICES
from services._mesh.access import Gate
from services._mesh.clock import Clock
from services._mesh.descriptors import LimitRule, MethodRule, Scope, method_rules
from services._mesh.errors import Denied
from services._mesh.passports import Kind, Passport, sign_passport
from services._mesh.resource_limits import ResourceLimits
from services._mesh.tokens import TokenInvalid
from services._mesh.validation import RequestValidator
from tests.support.things import keys

RULES = [
    rule
    for services in SERVICES.values()
    for service in services
    for rule in method_rules(service)
    if rule.scope is Scope.ORGANIZATION
]
CLOCK = Clock()
LIMITS = ResourceLimits((UUID(int=7),), (("team", "web"),))


class _Fresh:
    def require_fresh(self) -> None:
        """It is."""


def gate(rule: MethodRule) -> Gate:
    checks: Any = type("Checks", (), {"validator": RequestValidator(), "revocations": _Fresh(), "clock": CLOCK})
    callers: Any = None
    return Gate(rule, callers, checks)


def passport(rule: MethodRule, **more: Any) -> Passport:
    now = int(CLOCK.wall_seconds())
    facts: dict[str, Any] = {
        "audience": "tests", "actor": "user:x", "responsible_person": UUID(int=1), "organization_id": UUID(int=2),
        "role": "x", "permissions": frozenset({rule.permission}), "permissions_version": 1, "session_id": "s",
        "aal": 2, "auth_time": now, "act": (), "presenter": "p", "jti": "j", "issued_at": now, "expires_at": now + 60,
        "kind": Kind.HUMAN, **more,
    }  # fmt: skip
    return Passport(**facts)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name.rpartition(".")[2])
def test_a_limited_role_reaches_what_says_that_it_keeps_within_limits(rule: MethodRule) -> None:
    gated = gate(rule)
    gated.authorize(passport(rule))
    for act, kept in (
        ((), {LimitRule.NEUTRAL, LimitRule.HONOURED}),
        (("actions",), {LimitRule.NEUTRAL, LimitRule.HONOURED, LimitRule.THROUGH_SERVICE}),
    ):
        limited = passport(rule, limits=LIMITS, act=act)
        if rule.limits in kept:
            gated.authorize(limited)
        else:
            with pytest.raises(Denied) as caught:
                gated.authorize(limited)
            assert caught.value.reason_name == "ROLE_LIMITED"


def test_what_changes_who_may_do_what_is_never_for_a_limited_role() -> None:
    """Or else who is limited could lift it. Tokens and browser sessions are within their creator's limits."""
    for rule in RULES:
        # Of an exception the scanner has looked whether its finding is within the limits; nobody else asks for one.
        if rule.name == "recoup.identity.v1.ExceptionService/CreateException":
            assert rule.limits is LimitRule.THROUGH_SERVICE
        elif (
            rule.name.startswith("recoup.identity.")
            and rule.audit_action
            and not re.search("(Token|Browser)Service/", rule.name)
        ):
            assert rule.limits is LimitRule.UNSPECIFIED, rule.name


def test_a_limited_role_without_the_permission_lacks_it() -> None:
    rule = next(rule for rule in RULES if rule.limits is LimitRule.HONOURED)
    with pytest.raises(Denied) as caught:
        gate(rule).authorize(passport(rule, limits=LIMITS, permissions=frozenset()))
    assert caught.value.reason_name == "PERMISSION_MISSING"


def test_a_fresh_approver_is_told_what_they_wait_for() -> None:
    (rule,) = [rule for rule in RULES if rule.method == "ApproveAction"]
    waiting = passport(rule, permissions=frozenset(), withheld=frozenset({rule.permission}))
    with pytest.raises(Denied, match="confirm") as caught:
        gate(rule).authorize(waiting)
    assert (caught.value.reason_name, caught.value.metadata) == ("APPROVER_FRESH", {"permission": rule.permission})
    with pytest.raises(Denied, match="identity provider") as caught:
        gate(rule).authorize(replace(waiting, awaits_provider=True))
    assert (caught.value.reason_name, caught.value.metadata) == ("PROVIDER_FRESH", {"permission": rule.permission})
    # Not even beside the permission itself.
    with pytest.raises(Denied):
        gate(rule).authorize(replace(waiting, permissions=frozenset({rule.permission})))


def test_limits_and_what_is_withheld_travel_in_the_passport(tmp_path: Any) -> None:
    from services._mesh import passports, tokens

    key, _ = keys(tmp_path, "identity")
    made = passport(RULES[0], limits=LIMITS, withheld=frozenset({"a.b.approve"}), awaits_provider=True)
    parsed = passports.parse(tokens.peek(sign_passport(key, made), passports.TYP).claims)
    assert (parsed.limits, parsed.withheld, parsed.awaits_provider) == (LIMITS, frozenset({"a.b.approve"}), True)
    plain = passports.parse(tokens.peek(sign_passport(key, passport(RULES[0])), passports.TYP).claims)
    assert (plain.limits, plain.withheld, plain.awaits_provider) == (None, frozenset(), False)
    # A claim that says nothing, or nonsense, opens nothing.
    nonsense: list[Any] = [{}, {"c": [], "t": []}, {"c": ["x"], "t": []}, {"c": [], "t": [["a"]]}, {"c": [7], "t": []}]
    for claim in (*nonsense, [], "x", 0):
        with pytest.raises(TokenInvalid):
            passports._limits(claim)
