"""What becomes of a step and of its action, each with its event, in the transaction that the caller commits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from services._mesh.claimed import ClaimedJob
from services._mesh.errors import Problem
from services._mesh.jobs import Job
from services._mesh.uow import UnitOfWork
from services.actions.model.action import Action, Step, progress, with_what_is_kept
from services.actions.model.plan import checkpoint_windows
from services.actions.model.states import RUNNABLE_STATES, ActionState, StepState
from services.actions.store import actions, checkpoints


async def intend(work: UnitOfWork, action: Action, name: str, attempt: int) -> Step:
    """Record that a change is about to be sent."""
    place = [step.name for step in action.kind.steps].index(name)
    event_id = _emit(work, action, "actions.step.intend", name, attempt)
    step = Step(action.action_id, place, attempt, name, StepState.INTENDED, "", "", work.now, None, event_id, None)
    await actions.insert_step(work.connection, action, step)
    return step


async def accepted(work: UnitOfWork, action: Action, step: Step, result_id: str) -> Step:
    """The cloud said yes, or shows the change: it isn't sent again, whatever happens."""
    _emit(work, action, "actions.step.accept", step.name, step.attempt, result_id=result_id)
    await actions.mark_step(work.connection, step, state=StepState.INTENDED.value, result_id=result_id)
    await _leave_doubt(work, action)
    return replace(step, state=StepState.INTENDED, result_id=result_id)


async def _leave_doubt(work: UnitOfWork, action: Action) -> None:
    now = await actions.get_action(work.connection, action.action_id, lock=True)
    if now.state is ActionState.UNKNOWN:
        await actions.mark_action(work.connection, now, ActionState.EXECUTING, problem="")


async def confirmed(work: UnitOfWork, job: ClaimedJob, action: Action, steps: Sequence[Step], step: Step) -> None:
    """The change shows in the cloud: go on to the next step, into quarantine, or to the end."""
    event_id = _emit(work, action, "actions.step.confirm", step.name, step.attempt, result_id=step.result_id)
    await actions.mark_step(
        work.connection, step, state=StepState.CONFIRMED.value, confirmed_at=work.now, outcome_event_id=event_id
    )
    done = [*(each for each in steps if each.name != step.name), replace(step, state=StepState.CONFIRMED)]
    following = progress(action.kind, done).step
    if following is None:
        await _executed(work, job, action)
    elif following.irreversible and action.kind.quarantine_hours:
        until = work.now + timedelta(hours=action.kind.quarantine_hours)
        await actions.mark_action(work.connection, action, ActionState.QUARANTINED, quarantined_until=until)
        metadata = {"plan_hash": action.plan.plan_hash, "until": until.isoformat(), "next": following.name}
        work.emit("actions.action.quarantine", action.target, metadata)
        await job.postpone(work, until)
    else:
        await job.postpone(work, work.now)


async def _executed(work: UnitOfWork, job: ClaimedJob, action: Action) -> None:
    await actions.mark_action(work.connection, action, ActionState.EXECUTED, executed_at=work.now, problem="")
    windows = {window.days: window for window in checkpoint_windows(work.now)}
    for checkpoint in await checkpoints.list_checkpoints(work.connection, [action.action_id]):
        window = windows[checkpoint.days]
        await checkpoints.mark_checkpoint(
            work.connection, checkpoint.checkpoint_id, from_day=window.from_day, to_day=window.to_day
        )
    work.emit("actions.action.complete", action.target, {"plan_hash": action.plan.plan_hash})
    await job.finish(work)


async def refused(work: UnitOfWork, action: Action, step: Step, code: str) -> None:
    """The cloud refused the change, or what it made is of no use: certainly not applied as meant."""
    event_id = _emit(work, action, "actions.step.refuse", step.name, step.attempt, "FAILED", code=code)
    await actions.mark_step(
        work.connection, step, state=StepState.REFUSED.value, error_code=code, outcome_event_id=event_id
    )


async def not_applied(work: UnitOfWork, action: Action, step: Step) -> None:
    """A change in doubt turned out not to have been applied, by reading: another attempt may be made."""
    event_id = _emit(work, action, "actions.step.miss", step.name, step.attempt, "FAILED")
    await actions.mark_step(
        work.connection, step, state=StepState.REFUSED.value, error_code="NotApplied", outcome_event_id=event_id
    )
    await _leave_doubt(work, action)


async def doubt(work: UnitOfWork, action: Action, step: Step, code: str) -> None:
    """Whether the change was applied isn't known. Said once, however often it is looked at."""
    if step.state is StepState.UNKNOWN:
        return
    _emit(work, action, "actions.step.doubt", step.name, step.attempt, "FAILED", code=code)
    await actions.mark_step(work.connection, step, state=StepState.UNKNOWN.value, error_code=code)
    now = await actions.get_action(work.connection, action.action_id, lock=True)
    if now.state is not ActionState.UNKNOWN:
        problem = f"{step.name} was sent without an answer ({code}); what became of it is being found out by reading"
        await actions.mark_action(work.connection, now, ActionState.UNKNOWN, problem=problem)


async def obstructed(work: UnitOfWork, action: Action, problem: Problem) -> None:
    """Say what keeps us from finding out; said once for each cause, however often it is met."""
    told = f"can't be looked at: {problem.message} It is tried again every few minutes."
    now = await actions.get_action(work.connection, action.action_id, lock=True)
    if now.problem != told:
        await actions.note_problem(work.connection, now, told)
        metadata = {"plan_hash": action.plan.plan_hash, "reason": problem.reason_name}
        work.emit("actions.action.obstruct", action.target, metadata, "FAILED")


async def stale(work: UnitOfWork, job: ClaimedJob, action: Action, problem: str) -> None:
    """What the plan rests on is no longer so: end it before anything irreversible is done."""
    await _end(work, job, action, ActionState.STALE, "actions.action.stale", problem)


async def failed(work: UnitOfWork, job: ClaimedJob, action: Action, problem: str) -> None:
    """The cloud refused: end it; nothing irreversible was done."""
    await _end(work, job, action, ActionState.FAILED, "actions.action.fail", problem)


async def _end(
    work: UnitOfWork, job: ClaimedJob, action: Action, state: ActionState, audit_action: str, problem: str
) -> None:
    problem = with_what_is_kept(problem, await actions.list_steps(work.connection, [action.action_id]))
    await actions.mark_action(work.connection, action, state, problem=problem)
    work.emit(audit_action, action.target, {"plan_hash": action.plan.plan_hash, "problem": problem}, "FAILED")
    await job.finish(work)


async def give_up(work: UnitOfWork, job: Job, error: str) -> None:
    """Leave nothing waiting for a job that is dead. A change in doubt stays UNKNOWN: a person must look, and cancel."""
    if job.kind == "checkpoint":
        await _give_up_checkpoint(work, job, error)
        return
    if job.kind != "execute":
        return
    action = await actions.get_action(work.connection, job.subject_id, lock=True)
    if action.state not in RUNNABLE_STATES:
        return
    steps = await actions.list_steps(work.connection, [action.action_id])
    if any(step.is_open for step in steps):
        problem = f"given up before its outcome was known ({error}); look at the resource in the cloud, then cancel"
        if action.state is ActionState.UNKNOWN:
            await actions.note_problem(work.connection, action, problem)
        else:
            await actions.mark_action(work.connection, action, ActionState.UNKNOWN, problem=problem)
        audit_action = "actions.action.abandon"
    else:
        problem = with_what_is_kept(f"given up after several attempts ({error})", steps)
        audit_action = "actions.action.fail"
        await actions.mark_action(work.connection, action, ActionState.FAILED, problem=problem)
    work.emit(audit_action, action.target, {"plan_hash": action.plan.plan_hash, "problem": problem}, "FAILED")


async def _give_up_checkpoint(work: UnitOfWork, job: Job, error: str) -> None:
    checkpoint = await checkpoints.get_checkpoint(work.connection, job.subject_id)
    told = f"given up after several attempts ({error})"
    await checkpoints.mark_checkpoint(work.connection, checkpoint.checkpoint_id, explanation=told)
    metadata = {"days": str(checkpoint.days), "problem": told}
    work.emit("actions.checkpoint.abandon", f"actions/{checkpoint.action_id}", metadata, "FAILED")


def _emit(
    work: UnitOfWork, action: Action, audit_action: str, step: str, attempt: int, result: str = "OK", **more: str
) -> Any:
    metadata = {"step": step, "attempt": str(attempt), "plan_hash": action.plan.plan_hash, **more}
    return work.emit(audit_action, action.target, metadata, result)
