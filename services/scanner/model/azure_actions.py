"""Whether Azure allows an operation, by the permissions that its roles give. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PermissionSet:
    """What one role assignment gives: operations, and what is taken off them; "*" stands for anything."""

    actions: Sequence[str]
    not_actions: Sequence[str]

    def allows(self, operation: str) -> bool:
        """Names are compared without case (Azure RBAC, "Understand Azure role definitions")."""
        return _matches(operation, self.actions) and not _matches(operation, self.not_actions)


def is_allowed(operation: str, given: Iterable[PermissionSet]) -> bool:
    """Whether any assignment allows it: what one takes off, another may give."""
    return any(each.allows(operation) for each in given)


def _matches(operation: str, patterns: Iterable[str]) -> bool:
    return any(re.fullmatch(re.escape(each).replace(r"\*", ".*"), operation, re.IGNORECASE) for each in patterns)
