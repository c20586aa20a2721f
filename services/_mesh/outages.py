"""Remembers which keys an organization's jobs wait for, so that it is told once and not at each attempt.

In memory and bounded: a worker that starts anew tells it once more.
"""

from __future__ import annotations

from uuid import UUID

from services._mesh.errors import Problem, Reason

# Failures that somebody else than us has to end: their own key service, who disabled the key, or who rotates.
_TOLD = frozenset(
    {
        Reason.ERROR_REASON_KMS_UNAVAILABLE,
        Reason.ERROR_REASON_KMS_KEY_UNUSABLE,
        Reason.ERROR_REASON_CREDENTIAL_TOO_OLD,
    }
)
_MAX_ORGANIZATIONS = 10_000


class Outages:
    """What each organization waits for."""

    def __init__(self) -> None:
        self._known: dict[UUID, set[str]] = {}

    def begin(self, organization_id: UUID, problem: Problem) -> bool:
        """Whether an organization doesn't know yet that its jobs wait for this. It does from now on."""
        if problem.reason not in _TOLD or name_of(problem) in self._known.get(organization_id, ()):
            return False
        if organization_id not in self._known and len(self._known) >= _MAX_ORGANIZATIONS:
            del self._known[next(iter(self._known))]
        self._known.setdefault(organization_id, set()).add(name_of(problem))
        return True

    def over(self, organization_id: UUID) -> None:
        """One of its jobs was done, or it wasn't told: whatever comes next is news."""
        self._known.pop(organization_id, None)


def name_of(problem: Problem) -> str:
    """A problem's reason with its cause, as last errors have it."""
    cause = problem.metadata.get("cause", "")
    return f"{problem.reason_name} ({cause})" if cause else problem.reason_name
