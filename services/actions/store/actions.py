"""SQL of actions, approvals and steps."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import and_, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from services._mesh.errors import AlreadyExists, NotFound, Reason, WrongState
from services.actions.model.action import Action, Approval, Step
from services.actions.model.plan import PLAN_VERSION, Estimate, load_plan
from services.actions.model.states import OPEN_STATES, ActionState, StepState, predecessors
from services.actions.tables import actions, approval_voids, approvals, jobs, steps

# All but the baseline, which is large and needed only to measure and to prove.
_ACTION_COLUMNS = [column for column in actions.c if column.name not in ("baseline", "tags")]


_AS_THEY_ARE = (
    *("organization_id", "action_id", "finding_id", "connection_id", "credential_id", "requested_by"),
    *("requester_person", "requester_role", "requested_at", "request_event_id", "approve_before"),
    *("quarantined_until", "executed_at", "problem", "version", "requester_user"),
)


async def insert_action(connection: AsyncConnection, made: Action, baseline: bytes, tags: Mapping[str, str]) -> None:
    """Insert an action on a resource with these tags. Raises AlreadyExists (ACTION_OPEN) while it has an open one."""
    key = made.plan.resource
    values = {
        "organization_id": made.organization_id,
        "action_id": made.action_id,
        "finding_id": made.finding_id,
        "connection_id": made.connection_id,
        "credential_id": made.credential_id,
        "action_type": made.kind.action_type,
        **key.document(),
        "state": made.state.value,
        "plan_version": PLAN_VERSION,
        "plan_hash": made.plan.plan_hash,
        "plan": made.plan.document,
        "baseline": baseline,
        "tags": dict(tags),
        "estimate": made.estimate.amount,
        "currency": made.estimate.currency,
        "price_version": made.estimate.price_version,
        "requested_by": made.requested_by,
        "requester_person": made.requester_person,
        "requester_user": made.requester_user,
        "requester_role": made.requester_role,
        "requested_at": made.requested_at,
        "request_event_id": made.request_event_id,
        "approve_before": made.approve_before,
        "problem": "",
        "version": 1,
    }
    try:
        async with connection.begin_nested():
            await connection.execute(insert(actions).values(values))
    except IntegrityError as error:
        found = await _find_open(connection, key.document())
        if found is None:
            raise
        raise AlreadyExists(
            Reason.ERROR_REASON_ACTION_OPEN,
            "The resource has an open action. Wait for its end, or cancel it.",
            {"action_id": str(found)},
        ) from error


async def _find_open(connection: AsyncConnection, key: Mapping[str, str]) -> UUID | None:
    query = select(actions.c.action_id).where(
        actions.c.state.in_([state.value for state in OPEN_STATES]),
        *(actions.c[name] == value for name, value in key.items()),
    )
    found: UUID | None = (await connection.execute(query)).scalar()
    return found


async def get_action(connection: AsyncConnection, action_id: UUID, *, lock: bool = False) -> Action:
    """An action of the transaction's organization. Raises NotFound."""
    query = select(*_ACTION_COLUMNS).where(actions.c.action_id == action_id)
    row = (await connection.execute(query.with_for_update() if lock else query)).one_or_none()
    if row is None:
        raise NotFound("action")
    return _action(row)


async def get_tags(connection: AsyncConnection, action_id: UUID) -> Mapping[str, str]:
    """The tags of an action's resource when it was requested; none where they weren't noted. Raises NotFound."""
    row = (await connection.execute(select(actions.c.tags).where(actions.c.action_id == action_id))).one_or_none()
    if row is None:
        raise NotFound("action")
    return dict(row.tags or {})


async def get_baseline(connection: AsyncConnection, action_id: UUID) -> bytes:
    """The frozen baseline document of an action. Raises NotFound."""
    row = (await connection.execute(select(actions.c.baseline).where(actions.c.action_id == action_id))).one_or_none()
    if row is None:
        raise NotFound("action")
    return bytes(row.baseline)


async def list_actions(
    connection: AsyncConnection, before: UUID | None, limit: int, narrowed: Mapping[str, Any]
) -> list[Action]:
    """Actions, newest first (their ids are UUIDv7), before `before`."""
    query = select(*_ACTION_COLUMNS).order_by(actions.c.action_id.desc()).limit(limit)
    for name, value in narrowed.items():
        query = query.where(actions.c[name] == value)
    if before is not None:
        query = query.where(actions.c.action_id < before)
    return [_action(row) for row in await connection.execute(query)]


async def mark_action(connection: AsyncConnection, action: Action, state: ActionState, **values: Any) -> Action:
    """Move an action to another state. Raises WrongState when it isn't in one that this may follow."""
    allowed = [each.value for each in predecessors(state)]
    changed = (
        update(actions)
        .where(actions.c.action_id == action.action_id, actions.c.state.in_(allowed))
        .values(state=state.value, version=actions.c.version + 1, **values)
        .returning(*_ACTION_COLUMNS)
    )
    row = (await connection.execute(changed)).one_or_none()
    if row is None:
        raise wrong_state(action, allowed)
    return _action(row)


async def note_problem(connection: AsyncConnection, action: Action, problem: str) -> None:
    """Say why an action isn't going on, without moving it."""
    await connection.execute(
        update(actions)
        .where(actions.c.action_id == action.action_id)
        .values(problem=problem[:2000], version=actions.c.version + 1)
    )


def wrong_state(action: Action, allowed: Sequence[str]) -> WrongState:
    """The WrongState of an action that isn't where it would have to be."""
    return WrongState(
        Reason.ERROR_REASON_STATE_WRONG,
        f"The action is {action.state.value}; it would have to be {' or '.join(allowed)}.",
        {"state": action.state.value, "allowed": ", ".join(allowed)},
    )


def _action(row: Any) -> Action:
    return Action(
        plan=load_plan(bytes(row.plan), row.plan_hash),
        estimate=Estimate(f"{row.estimate:f}", row.currency, row.price_version),
        state=ActionState(row.state),
        **{name: getattr(row, name) for name in _AS_THEY_ARE},
    )


async def is_worked_on(connection: AsyncConnection, action_id: UUID) -> bool:
    """Whether a job of the action's execution is alive: whoever has it finds out what is in doubt."""
    query = select(jobs.c.job_id).where(
        jobs.c.subject_id == action_id, jobs.c.kind == "execute", jobs.c.status.in_(["READY", "LEASED"])
    )
    return (await connection.execute(query)).first() is not None


async def insert_approval(
    connection: AsyncConnection, action: Action, made: Approval, persons: Collection[UUID]
) -> None:
    """Insert a person's decision; `persons` are all users that they are.

    The table itself refuses the requester's approval, a machine's, and one of another plan.
    """
    await connection.execute(
        insert(approvals).values(
            organization_id=action.organization_id,
            action_id=action.action_id,
            person=made.person,
            persons=sorted(persons),
            requester_person=action.requester_person,
            decided_by=made.decided_by,
            role=made.role,
            decision=made.decision,
            plan_hash=made.plan_hash,
            comment=made.comment,
            decided_at=made.decided_at,
            event_id=made.event_id,
        )
    )


async def insert_voids(
    connection: AsyncConnection, action: Action, void: Sequence[Approval], now: datetime, event_id: UUID
) -> None:
    """Say of decisions, which stay as they are, that they count no longer."""
    for each in void:
        await connection.execute(
            insert(approval_voids).values(
                organization_id=action.organization_id,
                action_id=action.action_id,
                person=each.person,
                voided_at=now,
                event_id=event_id,
            )
        )


async def list_approvals(connection: AsyncConnection, action_ids: Sequence[UUID]) -> list[Approval]:
    """The decisions about actions, the oldest first."""
    decided = (approvals.c.organization_id, approvals.c.action_id, approvals.c.person)
    voided = (approval_voids.c.organization_id, approval_voids.c.action_id, approval_voids.c.person)
    query = (
        select(approvals, approval_voids.c.voided_at)
        .select_from(approvals.outerjoin(approval_voids, and_(*(a == b for a, b in zip(decided, voided, strict=True)))))
        .where(approvals.c.action_id.in_(action_ids))
        .order_by(approvals.c.decided_at, approvals.c.person)
    )
    return [
        Approval(
            row.action_id,
            row.decided_by,
            row.person,
            row.role,
            row.decision,
            row.plan_hash,
            row.comment,
            row.decided_at,
            row.event_id,
            row.voided_at,
        )
        for row in await connection.execute(query)
    ]


async def insert_step(connection: AsyncConnection, action: Action, made: Step) -> None:
    """Record the intent of one attempt. The table refuses a second open one."""
    await connection.execute(
        insert(steps).values(
            organization_id=action.organization_id,
            action_id=made.action_id,
            place=made.place,
            attempt=made.attempt,
            name=made.name,
            state=made.state.value,
            result_id=made.result_id,
            error_code=made.error_code,
            intended_at=made.intended_at,
            intent_event_id=made.intent_event_id,
        )
    )


async def mark_step(connection: AsyncConnection, step: Step, **values: Any) -> None:
    """Change columns of one attempt that is still open. Raises WrongState when its outcome is known already."""
    changed = await connection.execute(
        update(steps)
        .where(
            steps.c.action_id == step.action_id,
            steps.c.place == step.place,
            steps.c.attempt == step.attempt,
            steps.c.state.in_([StepState.INTENDED.value, StepState.UNKNOWN.value]),
        )
        .values(**values)
    )
    if changed.rowcount != 1:
        raise WrongState(
            Reason.ERROR_REASON_STATE_WRONG,
            "The step's outcome is known already.",
            {"state": step.state.value, "allowed": "INTENDED, UNKNOWN"},
        )


async def list_steps(connection: AsyncConnection, action_ids: Sequence[UUID]) -> list[Step]:
    """The attempts of actions, in the order in which they were made."""
    query = (
        select(steps)
        .where(steps.c.action_id.in_(action_ids))
        .order_by(steps.c.action_id, steps.c.place, steps.c.attempt)
    )
    return [
        Step(
            row.action_id,
            row.place,
            row.attempt,
            row.name,
            StepState(row.state),
            row.result_id,
            row.error_code,
            row.intended_at,
            row.confirmed_at,
            row.intent_event_id,
            row.outcome_event_id,
        )
        for row in await connection.execute(query)
    ]
