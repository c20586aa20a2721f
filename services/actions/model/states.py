"""The life of an action: its states and which may follow which.

Owns the one state machine; must not know how a state is stored or shown.
"""

from __future__ import annotations

import enum


class ActionState(enum.StrEnum):
    """Where an action stands; the names are those of `recoup.actions.v1.ActionState`."""

    REQUESTED = "REQUESTED"
    APPROVED = "APPROVED"
    REJECTED = "REJECTED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"
    EXECUTING = "EXECUTING"
    QUARANTINED = "QUARANTINED"
    EXECUTED = "EXECUTED"
    STALE = "STALE"
    FAILED = "FAILED"
    UNKNOWN = "UNKNOWN"
    CLOSED = "CLOSED"


S = ActionState

# Each state with those that may follow it. Back to REQUESTED leads what nothing was done of, once its approval counts
# no longer. UNKNOWN leads back to EXECUTING, and only through a reading, whatever was read; or a person ends it who has
# looked at the cloud, once nobody finds it out any more.
TRANSITIONS: dict[ActionState, frozenset[ActionState]] = {
    S.REQUESTED: frozenset({S.APPROVED, S.REJECTED, S.CANCELLED, S.EXPIRED}),
    S.APPROVED: frozenset({S.REQUESTED, S.EXECUTING, S.CANCELLED, S.STALE, S.FAILED}),
    S.EXECUTING: frozenset({S.REQUESTED, S.QUARANTINED, S.EXECUTED, S.STALE, S.FAILED, S.UNKNOWN, S.CANCELLED}),
    S.QUARANTINED: frozenset({S.EXECUTING, S.CANCELLED, S.STALE, S.FAILED}),
    S.UNKNOWN: frozenset({S.EXECUTING, S.CANCELLED}),
    S.EXECUTED: frozenset({S.CLOSED}),
    S.REJECTED: frozenset(),
    S.CANCELLED: frozenset(),
    S.EXPIRED: frozenset(),
    S.STALE: frozenset(),
    S.FAILED: frozenset(),
    S.CLOSED: frozenset(),
}

# While an action is in one of these, its resource can have no other: the partial unique index names the same list.
OPEN_STATES: frozenset[ActionState] = frozenset({S.REQUESTED, S.APPROVED, S.EXECUTING, S.QUARANTINED, S.UNKNOWN})


# What an execution goes on from.
RUNNABLE_STATES: frozenset[ActionState] = frozenset({S.APPROVED, S.EXECUTING, S.QUARANTINED, S.UNKNOWN})
# What a person may still withdraw from, as long as nothing is on its way to the cloud. Nothing irreversible was done in
# any of them: in every kind that is the last step.
WITHDRAWABLE_STATES: frozenset[ActionState] = frozenset({S.REQUESTED, S.APPROVED, S.EXECUTING, S.QUARANTINED})


def predecessors(target: ActionState) -> list[ActionState]:
    """The states from which `target` may be reached, in declaration order."""
    return [state for state, following in TRANSITIONS.items() if target in following]


class StepState(enum.StrEnum):
    """Where one change to the cloud stands; the names are those of `recoup.actions.v1.StepState`."""

    INTENDED = "INTENDED"
    CONFIRMED = "CONFIRMED"
    REFUSED = "REFUSED"
    UNKNOWN = "UNKNOWN"
