"""Fault rules: which calls they match, how often, and what they do; and the holding of calls until released.

It decides only; the server carries the effects out. The rule's fields are documented in ../README.md.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from recoup_local.cloud.proxy.calls import Call


class BadRuleError(ValueError):
    """A fault rule with unknown fields or wrong types."""


@dataclass(frozen=True)
class FaultRule:
    """What to match (None: anything), from which match on, how many times, and the effect."""

    service: str | None = None
    action: str | None = None
    region: str | None = None
    account: str | None = None
    principal: str | None = None
    resource: str | None = None
    nth: int = 1
    count: int | None = 1
    delay_ms: int = 0
    throttle: bool = False
    status: int | None = None
    error_code: str | None = None
    error_message: str = "injected by the recording proxy"
    drop_before_forward: bool = False
    drop_after_forward: bool = False
    hold: Literal["before", "after"] | None = None

    def matches(self, call: Call, account: str, principal: str) -> bool:
        """Whether the call is one that this rule is about. `resource` must equal a parameter's value."""
        wanted = (
            (self.service, call.service), (self.action, call.action), (self.region, call.region),
            (self.account, account), (self.principal, principal),
        )  # fmt: skip
        if any(rule is not None and rule != actual for rule, actual in wanted):
            return False
        return self.resource is None or self.resource in call.params.values()


_TYPES: dict[str, type | tuple[type, ...]] = {
    "nth": int, "count": (int, type(None)), "delay_ms": int, "throttle": bool, "status": int,
    "drop_before_forward": bool, "drop_after_forward": bool,
}  # fmt: skip


def parse_rule(document: object) -> FaultRule:
    """Reads a rule from decoded JSON; `hold: true` means "after". Raises BadRuleError."""
    if not isinstance(document, dict):
        raise BadRuleError("a rule is a JSON object")
    known = {item.name for item in fields(FaultRule)}
    if unknown := sorted(set(document) - known):
        raise BadRuleError(f"unknown fields: {', '.join(unknown)}")
    values: dict[str, Any] = dict(document)
    if values.get("hold") is True:
        values["hold"] = "after"
    for name, value in values.items():
        kind = _TYPES.get(name, str)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise BadRuleError(f"{name} has the wrong type")
    if values.get("hold", "after") not in ("before", "after"):
        raise BadRuleError('hold is true, "before" or "after"')
    return FaultRule(**values)


@dataclass
class ActiveRule:
    """A rule in force with its counters; `released` is set when it is removed."""

    id: str
    rule: FaultRule
    seen: int = 0
    applied: int = 0
    released: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True)
class Held:
    """A call that waits for its rule's release."""

    rule_id: str
    name: str
    region: str
    access_key_id: str
    params: dict[str, str]
    phase: str

    def as_json(self) -> dict[str, Any]:
        """For the control API."""
        return {
            "rule": self.rule_id, "call": self.name, "region": self.region, "phase": self.phase,
            "access_key_id": self.access_key_id, "params": self.params,
        }  # fmt: skip


class Faults:
    """The rules in force and the calls they hold. Belongs to one event loop."""

    def __init__(self) -> None:
        self._rules: dict[str, ActiveRule] = {}
        self._held: list[Held] = []
        self._changed = asyncio.Condition()
        self._next = 1

    def add(self, rule: FaultRule) -> str:
        """Puts a rule in force and returns its id."""
        rule_id = f"fault-{self._next}"
        self._next += 1
        self._rules[rule_id] = ActiveRule(rule_id, rule)
        return rule_id

    def remove(self, rule_id: str) -> bool:
        """Takes a rule out of force and releases what it holds; False if there is none of that id."""
        active = self._rules.pop(rule_id, None)
        if active is None:
            return False
        active.released.set()
        return True

    def rules(self) -> list[ActiveRule]:
        """The rules in force."""
        return list(self._rules.values())

    def match(self, call: Call, account: str, principal: str) -> ActiveRule | None:
        """The first rule that applies to this call; counts the match."""
        chosen: ActiveRule | None = None
        for active in self._rules.values():
            rule = active.rule
            if not rule.matches(call, account, principal):
                continue
            active.seen += 1
            spent = rule.count is not None and active.applied >= rule.count
            if chosen is None and active.seen >= rule.nth and not spent:
                active.applied += 1
                chosen = active
        return chosen

    async def hold(self, active: ActiveRule, held: Held) -> None:
        """Waits until the rule is removed, showing the call to `waiting` meanwhile."""
        async with self._changed:
            self._held.append(held)
            self._changed.notify_all()
        try:
            await active.released.wait()
        finally:
            self._held.remove(held)

    async def waiting(self, rule_id: str | None, timeout_seconds: float) -> list[Held]:
        """The held calls (of one rule) once there is at least one; [] after the time-out."""

        def matching() -> list[Held]:
            return [held for held in self._held if rule_id in (None, held.rule_id)]

        async with self._changed:
            try:
                async with asyncio.timeout(timeout_seconds):
                    await self._changed.wait_for(lambda: bool(matching()))
            except TimeoutError:
                return []
            return matching()
