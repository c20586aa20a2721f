"""AWS session policies: the text of a grant's statements, and their division where it would be longer than AWS takes.

Each part is a session of its own, with nothing in it that the whole doesn't name. This decides nothing of what may be
asked for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from services._mesh.errors import Denied, Reason
from services._mesh.grants import CredentialScope

# AWS refuses a session policy of more than 2,048 characters (STS AssumeRole, Policy).
MAX_POLICY_CHARACTERS = 2048
Statement = Mapping[str, Sequence[str]]

# Tags come with the call that makes a snapshot, and never later (Amazon EC2 user guide, "Tagging on creation").
_TAGGING = {"StringEquals": {"ec2:CreateAction": "CreateSnapshot"}}


def policy_text(statements: Sequence[Statement]) -> str:
    """The session policy as JSON: these statements and nothing else."""
    policy = {"Version": "2012-10-17", "Statement": [part for s in statements for part in _rendered(s)]}
    return json.dumps(policy, separators=(",", ":"))


def divide(scope: CredentialScope) -> tuple[CredentialScope, ...]:
    """The scope as one or more, whose policies are each short enough; the same ones each time.

    What is on "*" surrounds the changes (reads, as a rule), so it is in each part. A change stays whole with all that
    its call needs; only its list of resources is divided, where all of it is of one kind. Raises Denied (GRANT_INVALID)
    for a statement that is too long and can't be divided.
    """
    if _fits(scope.statements):
        return (scope,)
    around = [s for s in scope.statements if list(s["resources"]) == ["*"]]
    if len(policy_text(around)) > MAX_POLICY_CHARACTERS // 2:
        around = []
    parts: list[list[Statement]] = []
    for piece in (piece for s in scope.statements if s not in around for piece in _pieces(s, around)):
        if parts and _fits([*parts[-1], piece]):
            parts[-1].append(piece)
        else:
            parts.append([*around, piece])
    return tuple(replace(scope, statements=tuple(part)) for part in parts)


def _fits(statements: Sequence[Statement]) -> bool:
    return len(policy_text(statements)) <= MAX_POLICY_CHARACTERS


def _pieces(statement: Statement, around: Sequence[Statement]) -> Iterator[Statement]:
    """The statement, or halves of halves of it, each of which fits beside what is around it."""
    if _fits([*around, statement]):
        yield statement
        return
    actions, resources = list(statement["actions"]), list(statement["resources"])
    named = [arn for arn in resources if not arn.endswith("*")]
    if resources == ["*"] and len(actions) > 1:  # Each is a call by itself.
        halves = [{"actions": half, "resources": resources} for half in _halves(actions)]
    elif len(named) > 1 and len({_kind(arn) for arn in named}) == 1:
        patterns = [arn for arn in resources if arn.endswith("*")]
        halves = [{"actions": actions, "resources": [*half, *patterns]} for half in _halves(named)]
    else:
        raise Denied(
            Reason.ERROR_REASON_GRANT_INVALID,
            f"The session policy for {', '.join(actions[:3])} on {len(resources)} resources is longer than the"
            f" {MAX_POLICY_CHARACTERS} characters that AWS takes, and can't be divided: one call may need all of it."
            " Plan fewer resources.",
        )
    for half in halves:
        yield from _pieces(half, around)


def _halves(items: list[str]) -> tuple[list[str], list[str]]:
    middle = (len(items) + 1) // 2
    return items[:middle], items[middle:]


def _kind(arn: str) -> tuple[str, str]:
    """The service and the type of a resource, such as ec2 and volume."""
    parts = arn.split(":", 5)
    return (parts[2] if len(parts) > 2 else ""), parts[-1].partition("/")[0]


def _rendered(given: Statement) -> Iterator[dict[str, Any]]:
    """A statement of a grant as the policy has it: with the right to set tags apart, since it has a condition."""
    tagging = {"ec2:CreateTags"}.intersection(given["actions"])
    for actions, more in ((set(given["actions"]) - tagging, {}), (tagging, {"Condition": _TAGGING})):
        if actions:
            yield {"Effect": "Allow", "Action": sorted(actions), "Resource": sorted(given["resources"]), **more}
