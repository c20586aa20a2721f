"""Requesting, approving, rejecting and cancelling actions, and reading them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from services._mesh.context import current
from services._mesh.errors import Denied, Reason, WrongState
from services._mesh.ids import uuid7
from services._mesh.jobs import Planner
from services._mesh.uow import Store, UnitOfWork
from services.actions.clients.peers import Bills, Scanner
from services.actions.model import kinds
from services.actions.model.action import Action, Approval, Whole, with_what_is_kept
from services.actions.model.plan import APPROVAL_PERIOD, WINDOWS_DAYS, PlanInput, checkpoint_windows, freeze_plan
from services.actions.model.request import Finding, FrozenBaseline, NotActionable, Scope, actionable, is_too_old
from services.actions.model.states import OPEN_STATES, WITHDRAWABLE_STATES, ActionState
from services.actions.store import actions, checkpoints

EXECUTE, CHECKPOINT, EXPIRE = "execute", "checkpoint", "expire"
# Whoever was let in isn't shown more for longer than a passport is good for.
_LOOK_SECONDS, _MOST_LOOKS = 1.0, 300


@dataclass(frozen=True, slots=True)
class Gathered:
    """What a request rests on, read from peers before anything is written."""

    finding: Finding
    scope: Scope
    baseline: FrozenBaseline


async def gather_request(scanner: Scanner, bills: Bills, finding_id: UUID, now: datetime) -> Gathered:
    """Read the finding, what its connection allows, and the baseline up to yesterday.

    Raises NotFound, WrongState (STATE_WRONG, PLAN_STALE, FINDING_NOT_ACTIONABLE, BASELINE_INSUFFICIENT).
    """
    finding = await scanner.get_finding(finding_id)
    if finding.state != "OPEN":
        raise WrongState(
            Reason.ERROR_REASON_STATE_WRONG,
            f"The finding is {finding.state}: only an open one is acted on.",
            {"state": finding.state, "allowed": "OPEN"},
        )
    if is_too_old(finding, now):
        raise WrongState(
            Reason.ERROR_REASON_PLAN_STALE,
            "The finding was last seen too long ago. Scan the connection again.",
            {"difference": f"last seen at {finding.last_seen_at.isoformat()}"},
        )
    scope = await scanner.get_scope(finding.connection_id, finding.resource.account)
    _, estimate = _actionable(finding, scope)
    baseline = await bills.get_baseline(finding.resource, now.date() - timedelta(days=1))
    if baseline.currency != estimate.currency:
        message = f"The bill is in {baseline.currency}, the estimate in {estimate.currency}: they can't be compared."
        raise _not_actionable(NotActionable("CURRENCY_MISMATCH", message))
    return Gathered(finding, scope, baseline)


def _actionable(finding: Finding, scope: Scope) -> tuple[kinds.ActionKind, Any]:
    try:
        return actionable(finding, scope)
    except NotActionable as error:
        raise _not_actionable(error) from error


def _not_actionable(error: NotActionable) -> WrongState:
    return WrongState(Reason.ERROR_REASON_FINDING_NOT_ACTIONABLE, error.message, {"cause": error.cause})


async def request_action(work: UnitOfWork, planner: Planner, gathered: Gathered) -> Whole:
    """Freeze and hash a plan; it waits for an approver from now on. Raises AlreadyExists (ACTION_OPEN)."""
    action_id, context = uuid7(), current()
    plan = freeze_plan(_plan_input(work, gathered, action_id))
    person = _person("actions.action.request")
    event_id = work.emit(
        "actions.action.request",
        f"actions/{action_id}",
        {
            "plan_hash": plan.plan_hash,
            "action_type": plan.content["action_type"],
            "finding_id": str(gathered.finding.finding_id),
            "resource": gathered.finding.resource.id,
        },
    )
    assert gathered.finding.estimate is not None
    made = Action(
        organization_id=work.organization_id,
        action_id=action_id,
        finding_id=gathered.finding.finding_id,
        connection_id=gathered.finding.connection_id,
        credential_id=gathered.scope.credential_id,
        plan=plan,
        estimate=gathered.finding.estimate,
        state=ActionState.REQUESTED,
        requested_by=context.actor,
        requester_person=person,
        requester_user=context.user_behind(),
        requester_role=context.role,
        requested_at=work.now,
        request_event_id=event_id,
        approve_before=work.now + APPROVAL_PERIOD,
        quarantined_until=None,
        executed_at=None,
        problem="",
        version=1,
    )
    await actions.insert_action(work.connection, made, gathered.baseline.document, gathered.finding.tags)
    await work.enqueue(planner.plan(work.organization_id, EXPIRE, action_id, made.approve_before, plan=plan.plan_hash))
    return Whole(made, (), (), ())


def _person(permission: str) -> UUID:
    """Who answers for the call. Raises Denied for a caller that nobody answers for."""
    person = current().responsible_person
    if person is None:
        message = "Nobody answers for this call; sign in as a person."
        raise Denied(Reason.ERROR_REASON_PERMISSION_MISSING, message, {"permission": permission})
    return person


def _plan_input(work: UnitOfWork, gathered: Gathered, action_id: UUID) -> PlanInput:
    finding = gathered.finding
    kind, estimate = _actionable(finding, gathered.scope)
    return PlanInput(
        organization_id=str(work.organization_id),
        action_id=str(action_id),
        action_type=kind.action_type,
        finding_id=str(finding.finding_id),
        detection_id=finding.detection_id,
        connection_id=str(finding.connection_id),
        credential_id=str(gathered.scope.credential_id),
        resource=finding.resource,
        preconditions=kinds.preconditions(finding.evidence),
        evidence=kinds.basis(finding.evidence),
        parameters=kinds.parameters(kind, finding.evidence),
        estimate=estimate,
        baseline_digest=gathered.baseline.digest,
        removes_resource=kind.removes_resource,
        quarantine_hours=kind.quarantine_hours,
        made_at=work.now,
    )


async def approve_action(work: UnitOfWork, planner: Planner, action_id: UUID, plan_hash: str, comment: str) -> Whole:
    """Approve the plan with the hash that was displayed, and plan its execution and its checkpoints.

    Raises NotFound, WrongState (STATE_WRONG, PLAN_HASH_MISMATCH), Denied (REQUESTER_IS_APPROVER).
    """
    action = await _requested(work, action_id)
    current().require_human("actions.action.approve")
    requesters = {action.requester_person, action.requester_user}
    if requesters & current().persons() or current().is_caller(action.requested_by):
        raise Denied(
            Reason.ERROR_REASON_REQUESTER_IS_APPROVER,
            "Who requested an action can't approve it. Ask somebody else who may.",
            {"action_id": str(action_id)},
        )
    await _refuse_second_thoughts(work, action_id)
    if plan_hash != action.plan.plan_hash:
        raise WrongState(
            Reason.ERROR_REASON_PLAN_HASH_MISMATCH,
            "That isn't the hash of this action's plan. Read the action again, and approve what you see.",
            {"plan_hash": action.plan.plan_hash},
        )
    await _decide(work, action, "APPROVED", "actions.action.approve", comment)
    approved = await actions.mark_action(work.connection, action, ActionState.APPROVED, problem="")
    await work.enqueue(planner.plan(work.organization_id, EXECUTE, action_id, work.now, plan=plan_hash))
    await _plan_checkpoints(work, planner, approved)
    return await _whole(work, approved)


async def _refuse_second_thoughts(work: UnitOfWork, action_id: UUID) -> None:
    """A decision that counts no longer isn't made again by the same person: whoever else approves looks anew."""
    earlier = await actions.list_approvals(work.connection, [action_id])
    if any(each.person in current().persons() or current().is_caller(each.decided_by) for each in earlier):
        raise WrongState(
            Reason.ERROR_REASON_STATE_WRONG,
            "Your earlier decision counts no longer. Ask somebody else, or cancel the action and request it anew.",
            {"state": "DECIDED_BEFORE", "allowed": "somebody else's decision"},
        )


async def _requested(work: UnitOfWork, action_id: UUID) -> Action:
    """An action that waits for a decision, locked. Raises NotFound, WrongState.

    Its job is taken first, as a worker does it: who locks in another order than others waits for them in a circle.
    """
    await work.cancel_jobs(EXPIRE, action_id)
    action = await actions.get_action(work.connection, action_id, lock=True)
    if action.state is not ActionState.REQUESTED:
        raise actions.wrong_state(action, ["REQUESTED"])
    if work.now >= action.approve_before:
        raise WrongState(
            Reason.ERROR_REASON_STATE_WRONG,
            "The time to decide is over. Request the action again.",
            {"state": "EXPIRED", "allowed": "REQUESTED"},
        )
    return action


async def _decide(work: UnitOfWork, action: Action, decision: str, audit_action: str, comment: str) -> None:
    context, person = current(), _person("actions.action.approve")
    event_id = work.emit(audit_action, action.target, {"plan_hash": action.plan.plan_hash, "comment": comment})
    made = Approval(
        action.action_id,
        context.actor,
        person,
        context.role,
        decision,
        action.plan.plan_hash,
        comment,
        work.now,
        event_id,
    )
    await actions.insert_approval(work.connection, action, made, context.persons())


async def _plan_checkpoints(work: UnitOfWork, planner: Planner, action: Action) -> None:
    """The approval covers what follows the execution too: a worker can't make jobs.

    A checkpoint that comes before its action was executed puts itself off; those of an earlier approval go on so.
    """
    if await checkpoints.list_checkpoints(work.connection, [action.action_id]):
        return
    planned = [(uuid7(), days) for days in WINDOWS_DAYS]
    await checkpoints.insert_checkpoints(
        work.connection, work.organization_id, action.action_id, planned, action.estimate.currency
    )
    due = {window.days: window.earliest_due_at for window in checkpoint_windows(work.now)}
    for checkpoint_id, days in planned:
        job = planner.plan(work.organization_id, CHECKPOINT, checkpoint_id, due[days], plan=action.plan.plan_hash)
        await work.enqueue(job)


async def reject_action(work: UnitOfWork, action_id: UUID, comment: str) -> Whole:
    """Reject an action. Raises NotFound, WrongState, Denied."""
    action = await _requested(work, action_id)
    current().require_human("actions.action.approve")
    await _refuse_second_thoughts(work, action_id)
    await _decide(work, action, "REJECTED", "actions.action.reject", comment)
    rejected = await actions.mark_action(work.connection, action, ActionState.REJECTED, problem=comment)
    return await _whole(work, rejected)


async def cancel_action(work: UnitOfWork, action_id: UUID, comment: str) -> Whole:
    """Withdraw an action before anything irreversible was done, or one in doubt that nobody works on any more.

    Raises NotFound, WrongState.
    """
    in_doubt_for_good = not await actions.is_worked_on(work.connection, action_id)
    for kind in (EXPIRE, EXECUTE):
        await work.cancel_jobs(kind, action_id)
    for checkpoint in await checkpoints.list_checkpoints(work.connection, [action_id]):
        await work.cancel_jobs(CHECKPOINT, checkpoint.checkpoint_id)
    action = await actions.get_action(work.connection, action_id, lock=True)
    steps = await actions.list_steps(work.connection, [action_id])
    is_abandoned = action.state is ActionState.UNKNOWN and in_doubt_for_good
    if action.state not in WITHDRAWABLE_STATES and not is_abandoned:
        raise actions.wrong_state(action, sorted(state.value for state in WITHDRAWABLE_STATES))
    if any(step.is_open for step in steps) and not is_abandoned:
        raise WrongState(
            Reason.ERROR_REASON_STATE_WRONG,
            "A change is on its way to the cloud. Wait until its outcome is known, then cancel.",
            {"state": action.state.value, "allowed": "no open step"},
        )
    problem = with_what_is_kept(comment or "withdrawn", steps)
    work.emit("actions.action.cancel", action.target, {"plan_hash": action.plan.plan_hash, "comment": problem})
    cancelled = await actions.mark_action(work.connection, action, ActionState.CANCELLED, problem=problem)
    return await _whole(work, cancelled)


async def _whole(work: UnitOfWork, action: Action) -> Whole:
    (found,) = await _wholes(work.connection, [action])
    return found


async def _wholes(connection: Any, found: Sequence[Action]) -> list[Whole]:
    """Actions with all that belongs to them, in three queries however many they are."""
    ids = [action.action_id for action in found]
    approvals = await actions.list_approvals(connection, ids)
    steps = await actions.list_steps(connection, ids)
    planned = await checkpoints.list_checkpoints(connection, ids)
    return [
        Whole(
            action,
            [each for each in approvals if each.action_id == action.action_id],
            [each for each in steps if each.action_id == action.action_id],
            [each for each in planned if each.action_id == action.action_id],
        )
        for action in found
    ]


async def get_action(reader: Store, action_id: UUID) -> Whole:
    """One action. Raises NotFound."""
    async with reader.read() as connection:
        action = await actions.get_action(connection, action_id)
        (found,) = await _wholes(connection, [action])
    return found


async def watch_action(reader: Store, action_id: UUID) -> AsyncIterator[Whole]:
    """An action as it stands, and again each time that it changed, until it is executed or over. Raises NotFound."""
    last = None
    for _ in range(_MOST_LOOKS):
        found = await get_action(reader, action_id)
        if found != last:
            last = found
            yield found
        if found.action.state not in OPEN_STATES:
            return
        await asyncio.sleep(_LOOK_SECONDS)


async def list_actions(reader: Store, before: UUID | None, limit: int, narrowed: Mapping[str, Any]) -> list[Whole]:
    """Actions, newest first; one more than `limit` shows that there are more."""
    async with reader.read() as connection:
        return await _wholes(connection, await actions.list_actions(connection, before, limit + 1, narrowed))
