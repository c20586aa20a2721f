"""Looks at checkpoints: whether the resource is gone, what the bill says, and has the receipt signed.

A checkpoint whose billing period is still open is decided provisionally, and decided anew once it has closed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from uuid import UUID

from services._mesh.claimed import ClaimedJob
from services._mesh.errors import PASSING, Conflict, Problem, WrongState
from services._mesh.uow import UnitOfWork
from services.actions.clients.peers import Bills, Measured, OwnApi
from services.actions.model.action import Action, Checkpoint, first_of_next_month
from services.actions.model.plan import ResourceKey, checkpoint_windows
from services.actions.model.states import OPEN_STATES, ActionState, StepState
from services.actions.store import actions, checkpoints
from services.actions.working.executing import Tools, cloud_problems, open_cloud

# The bill of a day comes about a day later; looking more often would cost and tell nothing.
LOOK_AGAIN = timedelta(days=1)
# As long as the method waits for a bill (verifier/METHOD.md, "Decision").
PATIENCE = timedelta(days=45)
SNAPSHOT_TYPE = "ec2.snapshot"


@dataclass(frozen=True)
class Sight:
    """What a look at a checkpoint starts from."""

    action: Action
    checkpoint: Checkpoint
    baseline: bytes
    leakage: Sequence[ResourceKey]
    from_day: date


async def check(tools: Tools, bills: Bills, api: OwnApi, job: ClaimedJob) -> None:
    """Decide a checkpoint as soon as the bill allows, and have its receipt signed.

    Nothing that is refused to us ends it: what was executed must be measured, however late.
    """
    sight = await _begin(job)
    if sight is None:
        return
    try:
        await _look(tools, bills, api, job, sight)
    except (*PASSING, Conflict):
        raise  # They pass by themselves, or the lease is somebody else's.
    except Problem as problem:
        await _put_off(job, sight, problem)


async def _look(tools: Tools, bills: Bills, api: OwnApi, job: ClaimedJob, sight: Sight) -> None:
    checkpoint = sight.checkpoint
    if checkpoint.decision:  # Safe to repeat: makes up for a receipt that a crash has left out.
        await api.issue_receipt(job.grant, sight.action, checkpoint.days)
    if not checkpoint.decision or checkpoint.provisional:
        found = await _measure(tools, bills, job, sight)
        if found.decision == "PENDING" or (checkpoint.decision and found.provisional):
            await _look_again(job, found)
            return
        checkpoint = await _decide(job, sight, found)
    receipt_id = await api.issue_receipt(job.grant, sight.action, checkpoint.days)
    await _settle(job, replace(checkpoint, receipt_id=UUID(receipt_id)), _open_periods(checkpoint))


async def _put_off(job: ClaimedJob, sight: Sight, problem: Problem) -> None:
    """Look again tomorrow; why is said once for each cause."""
    checkpoint = sight.checkpoint
    told = f"couldn't be looked at: {problem.message} It is tried again every day."
    async with job.begin() as work:
        if not checkpoint.decision and checkpoint.explanation != told:
            await checkpoints.mark_checkpoint(work.connection, checkpoint.checkpoint_id, explanation=told)
            metadata = {"days": str(checkpoint.days), "reason": problem.reason_name}
            work.emit("actions.checkpoint.obstruct", sight.action.target, metadata, "FAILED")
        await job.postpone(work, work.now + LOOK_AGAIN)


async def _begin(job: ClaimedJob) -> Sight | None:
    """What is to be measured; None where the action isn't executed, or the window isn't over."""
    async with job.begin() as work:
        checkpoint = await checkpoints.get_checkpoint(work.connection, job.subject_id)
        action = await actions.get_action(work.connection, checkpoint.action_id)
        if action.state in OPEN_STATES:
            await job.postpone(work, work.now + LOOK_AGAIN)
        elif action.executed_at is None:
            await job.finish(work)
        elif work.now < (due_at := _due_at(action, checkpoint.days)):
            await job.postpone(work, due_at)
        else:
            return await _sight(work, action, checkpoint)
    return None


def _due_at(action: Action, days: int) -> datetime:
    assert action.executed_at is not None
    return next(w.earliest_due_at for w in checkpoint_windows(action.executed_at) if w.days == days)


async def _sight(work: UnitOfWork, action: Action, checkpoint: Checkpoint) -> Sight:
    steps = await actions.list_steps(work.connection, [action.action_id])
    snapshots = [s.result_id for s in steps if s.name == "create_snapshot" and s.state is StepState.CONFIRMED]
    leakage = [replace(action.plan.resource, type=SNAPSHOT_TYPE, id=snapshot) for snapshot in snapshots]
    baseline = await actions.get_baseline(work.connection, action.action_id)
    assert checkpoint.from_day is not None
    return Sight(action, checkpoint, baseline, leakage, checkpoint.from_day)


async def _measure(tools: Tools, bills: Bills, job: ClaimedJob, sight: Sight) -> Measured:
    """Read the cloud, then have the bill measured.

    A cloud that has refused us for so long that the method has no patience left is no longer waited for: then nothing
    is confirmed.
    """
    try:
        confirmed_at = await _seen_gone(tools, job, sight)
    except WrongState:
        assert sight.checkpoint.to_day is not None
        if tools.clock.now().date() <= sight.checkpoint.to_day + PATIENCE:
            raise
        confirmed_at = None
    return await bills.measure(
        job.grant, sight.action, sight.baseline, sight.from_day, sight.checkpoint.days, confirmed_at, sight.leakage
    )


async def _seen_gone(tools: Tools, job: ClaimedJob, sight: Sight) -> datetime | None:
    """When the resource was seen to be gone, which is now; None where it is there. Raises Problem."""
    with cloud_problems(sight.action):
        cloud = await open_cloud(tools, job, sight.action, "verify")
        facts = await cloud.observe(sight.action.plan.resource)
    return tools.clock.now() if facts is None else None


async def _look_again(job: ClaimedJob, found: Measured) -> None:
    async with job.begin() as work:
        await job.postpone(work, _next_look(work.now, found.open_periods if found.decision != "PENDING" else ()))


def _next_look(now: datetime, open_periods: Sequence[str]) -> datetime:
    """Tomorrow; where only the end of a billing period is waited for, not before that month is over."""
    ends = [first_of_next_month(date.fromisoformat(f"{period}-01")) for period in open_periods]
    return max([now + LOOK_AGAIN, *ends])


async def _decide(job: ClaimedJob, sight: Sight, found: Measured) -> Checkpoint:
    checkpoint = sight.checkpoint
    async with job.begin() as work:
        event_id = work.emit(
            "actions.checkpoint.decide",
            sight.action.target,
            {
                "days": str(checkpoint.days),
                "decision": found.decision,
                "measurement_sha256": found.digest,
                "provisional": "true" if found.provisional else "false",
            },
        )
        decided = {
            "decision": found.decision,
            "economic": found.economic,
            "cash": found.cash,
            "currency": found.currency or checkpoint.currency,
            "provisional": found.provisional,
            "explanation": found.explanation,
            "measurement": found.document,
            "measurement_digest": found.digest,
            "decided_at": work.now,
            "decide_event_id": event_id,
            "revision": checkpoint.revision + 1,
        }
        await checkpoints.mark_checkpoint(work.connection, checkpoint.checkpoint_id, **decided)
        return await checkpoints.get_checkpoint(work.connection, checkpoint.checkpoint_id)


def _open_periods(checkpoint: Checkpoint) -> tuple[str, ...]:
    """The months of a provisional checkpoint's window: any of them may be the open one."""
    if not checkpoint.provisional or checkpoint.to_day is None:
        return ()
    return (f"{checkpoint.to_day:%Y-%m}",)


async def _settle(job: ClaimedJob, checkpoint: Checkpoint, open_periods: Sequence[str]) -> None:
    """Done with it, or to be looked at again once the billing period may have closed."""
    async with job.begin() as work:
        if checkpoint.provisional:
            await job.postpone(work, _next_look(work.now, open_periods))
            return
        await _close(work, checkpoint.action_id)
        await job.finish(work)


async def _close(work: UnitOfWork, action_id: UUID) -> None:
    """Close an action whose checkpoints are all final."""
    action = await actions.get_action(work.connection, action_id, lock=True)
    planned = await checkpoints.list_checkpoints(work.connection, [action_id])
    if action.state is ActionState.EXECUTED and all(each.is_final for each in planned):
        await actions.mark_action(work.connection, action, ActionState.CLOSED)
        work.emit("actions.action.close", action.target, {"plan_hash": action.plan.plan_hash})
