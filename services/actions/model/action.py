"""An action with its approvals, steps and checkpoints: frozen values, as they are stored and shown."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from uuid import UUID

from services.actions.model.kinds import KINDS, ActionKind, StepSpec
from services.actions.model.plan import Estimate, Plan
from services.actions.model.states import ActionState, StepState


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One change to one resource, from request to the last checkpoint. `baseline` is read only where it is needed.

    `requester_user` is the user by whose membership it was requested, be it by a token; None before that was noted.
    """

    organization_id: UUID
    action_id: UUID
    finding_id: UUID
    connection_id: UUID
    credential_id: UUID
    plan: Plan
    estimate: Estimate
    state: ActionState
    requested_by: str
    requester_person: UUID
    requester_role: str
    requested_at: datetime
    request_event_id: UUID
    approve_before: datetime
    quarantined_until: datetime | None
    executed_at: datetime | None
    problem: str
    version: int
    requester_user: UUID | None = None

    @property
    def kind(self) -> ActionKind:
        """What is done."""
        return KINDS[str(self.plan.content["action_type"])]

    @property
    def etag(self) -> str:
        """Changes with every edit."""
        return hashlib.sha256(f"{self.action_id}/{self.version}".encode()).hexdigest()[:16]

    @property
    def target(self) -> str:
        """What its events name."""
        return f"actions/{self.action_id}"


@dataclass(frozen=True, slots=True)
class Approval:
    """A decision of one person about one plan hash. Once it is void (`voided_at`), it counts no longer."""

    action_id: UUID
    decided_by: str
    person: UUID
    role: str
    decision: str
    plan_hash: str
    comment: str
    decided_at: datetime
    event_id: UUID
    voided_at: datetime | None = None

    @property
    def counts(self) -> bool:
        """Whether it lets the plan be executed."""
        return self.decision == "APPROVED" and self.voided_at is None


@dataclass(frozen=True, slots=True)
class Step:
    """One attempt at one change to the cloud. An open one has a `result_id` once the cloud has said yes."""

    action_id: UUID
    place: int
    attempt: int
    name: str
    state: StepState
    result_id: str
    error_code: str
    intended_at: datetime
    confirmed_at: datetime | None
    intent_event_id: UUID
    outcome_event_id: UUID | None

    @property
    def is_open(self) -> bool:
        """Whether its outcome isn't known yet."""
        return self.state in (StepState.INTENDED, StepState.UNKNOWN)


def with_what_is_kept(problem: str, steps: Sequence[Step]) -> str:
    """A problem together with what was made and is left in the cloud, such as a snapshot."""
    kept = [step.result_id for step in steps if step.result_id]
    return (f"{problem}; kept: {', '.join(kept)}" if kept else problem)[:2000]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an execution is: which step is next, which attempt of it is open, how many attempts it had."""

    step: StepSpec | None
    open: Step | None
    attempts: int


def progress(kind: ActionKind, steps: Sequence[Step]) -> Progress:
    """How far the steps that were recorded have come."""
    confirmed = frozenset(step.name for step in steps if step.state is StepState.CONFIRMED)
    following = kind.next_step(confirmed)
    tried = [step for step in steps if following is not None and step.name == following.name]
    return Progress(following, next((step for step in tried if step.is_open), None), len(tried))


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The measurement of one window. `revision` counts its decisions: a provisional one is followed by another.

    Amounts are None where the method gives none. `due_at` is when its job looks next; None when there is no job.
    """

    checkpoint_id: UUID
    action_id: UUID
    days: int
    from_day: date | None
    to_day: date | None
    decision: str
    economic: Decimal | None
    cash: Decimal | None
    currency: str
    provisional: bool
    explanation: str
    measurement_digest: str
    decided_at: datetime | None
    decide_event_id: UUID | None
    revision: int
    receipt_id: UUID | None
    due_at: datetime | None

    @property
    def is_final(self) -> bool:
        """Whether nothing will be decided anew."""
        return bool(self.decision) and not self.provisional and self.receipt_id is not None


@dataclass(frozen=True, slots=True)
class Whole:
    """An action with everything that is shown of it."""

    action: Action
    approvals: Sequence[Approval]
    steps: Sequence[Step]
    checkpoints: Sequence[Checkpoint]


def first_of_next_month(day: date) -> datetime:
    """When the billing period of a day is over: it can't be closed before."""
    year, month = (day.year + 1, 1) if day.month == 12 else (day.year, day.month + 1)
    return datetime(year, month, 1, tzinfo=UTC)
