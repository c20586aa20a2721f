"""Evaluates IAM policy documents: identity, session and trust policies with wildcards and conditions.

Pure. What it can't evaluate counts against the caller: an unknown condition operator never fulfils an
Allow and always fulfils a Deny. NotPrincipal is refused when a policy is read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

Context = Mapping[str, str]


class MalformedPolicyError(ValueError):
    """The text is not a policy document that this evaluator reads."""


@dataclass(frozen=True)
class Condition:
    """One operator with one key and its values (any of which may match)."""

    operator: str
    key: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Statement:
    """One statement; `principals` is empty in identity policies."""

    allow: bool
    actions: tuple[str, ...]
    not_actions: bool
    resources: tuple[str, ...]
    not_resources: bool
    principals: tuple[str, ...]
    conditions: tuple[Condition, ...]


@dataclass(frozen=True)
class Policy:
    """A parsed policy document."""

    statements: tuple[Statement, ...]

    def mentions_resource_tags(self) -> bool:
        """Whether a condition needs the tags of the resource acted on."""
        keys = (item.key.lower() for statement in self.statements for item in statement.conditions)
        return any("resourcetag/" in key for key in keys)


def parse_policy(text: str) -> Policy:
    """Reads a JSON policy document. Raises MalformedPolicyError."""
    try:
        document = json.loads(text)
        statements = _listed(document["Statement"])
        if document.get("Version", "2008-10-17") not in ("2012-10-17", "2008-10-17"):
            raise MalformedPolicyError("unknown policy Version")
        return Policy(tuple(_statement(item) for item in statements))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MalformedPolicyError(f"not a policy document: {error}") from error


def allows(policies: Iterable[Policy], action: str, resource: str, context: Context) -> bool:
    """Whether the union of the policies allows the action: some Allow matches and no Deny does."""
    allowed = False
    for policy in policies:
        for statement in policy.statements:
            if _covers(statement, action, resource) and _fulfils(statement, context):
                if not statement.allow:
                    return False
                allowed = True
    return allowed


def trusts(policy: Policy, action: str, principal_arns: Iterable[str], context: Context) -> bool:
    """Whether a trust policy lets one of the caller's principal ARNs do `action` (e.g. sts:AssumeRole)."""
    names = tuple(principal_arns)
    trusted = False
    for statement in policy.statements:
        # AWS takes no wildcards inside a trust policy's principal, only "*" alone.
        named = any(pattern == "*" or pattern in names for pattern in statement.principals)
        if named and _acts(statement, action) and _fulfils(statement, context):
            if not statement.allow:
                return False
            trusted = True
    return trusted


def _statement(item: dict[str, Any]) -> Statement:
    if item["Effect"] not in ("Allow", "Deny"):
        raise MalformedPolicyError("Effect must be Allow or Deny")
    if "NotPrincipal" in item:
        raise MalformedPolicyError("NotPrincipal is not supported")
    conditions = tuple(
        Condition(operator, key, tuple(_text(value) for value in _listed(values)))
        for operator, keys in item.get("Condition", {}).items()
        for key, values in keys.items()
    )
    return Statement(
        allow=item["Effect"] == "Allow",
        actions=_strings(item["NotAction"] if "NotAction" in item else item["Action"]),
        not_actions="NotAction" in item,
        resources=_strings(item.get("NotResource", item.get("Resource", "*"))),
        not_resources="NotResource" in item,
        principals=_principals(item.get("Principal", {})),
        conditions=conditions,
    )


def _principals(value: object) -> tuple[str, ...]:
    if value == "*":
        return ("*",)
    if not isinstance(value, dict):
        raise MalformedPolicyError("Principal must be * or an object")
    return _strings(value.get("AWS", []))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _strings(value: Any) -> tuple[str, ...]:
    items = _listed(value)
    if not all(isinstance(item, str) for item in items):
        raise MalformedPolicyError("expected a string or a list of strings")
    return tuple(items)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _acts(statement: Statement, action: str) -> bool:
    matched = any(_like(pattern.lower(), action.lower()) for pattern in statement.actions)
    return matched != statement.not_actions


def _covers(statement: Statement, action: str, resource: str) -> bool:
    if not _acts(statement, action):
        return False
    return any(_like(pattern, resource) for pattern in statement.resources) != statement.not_resources


def _fulfils(statement: Statement, context: Context) -> bool:
    lowered = {key.lower(): value for key, value in context.items()}
    results = [_condition(item, lowered) for item in statement.conditions]
    if None in results:
        return not statement.allow
    return all(results)


def _condition(condition: Condition, context: Context) -> bool | None:
    """True or False, or None for an operator that isn't known here."""
    operator, key = condition.operator, condition.key.lower()
    if operator == "Null":
        return any((value == "true") == (key not in context) for value in condition.values)
    if operator.endswith("IfExists"):
        if key not in context:
            return True
        operator = operator.removesuffix("IfExists")
    negated = "Not" in operator
    test = _OPERATORS.get(operator.replace("Not", ""))
    if test is None:
        return None
    if key not in context:
        return negated
    return any(test(value, context[key]) for value in condition.values) != negated


@lru_cache(maxsize=4096)
def _pattern(pattern: str) -> re.Pattern[str]:
    return re.compile("".join({"*": ".*", "?": "."}.get(c, re.escape(c)) for c in pattern), re.DOTALL)


def _like(pattern: str, value: str) -> bool:
    return _pattern(pattern).fullmatch(value) is not None


_OPERATORS: dict[str, Callable[[str, str], bool]] = {
    "StringEquals": lambda wanted, actual: wanted == actual,
    "StringLike": _like,
    "StringEqualsIgnoreCase": lambda wanted, actual: wanted.lower() == actual.lower(),
    "ArnEquals": _like,
    "ArnLike": _like,
    "Bool": lambda wanted, actual: wanted.lower() == actual.lower(),
}
