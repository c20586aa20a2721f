"""Executes an approved plan, one change to the cloud a turn.

The intent is committed before a change is sent, its outcome after it was read back. A change whose outcome isn't known
is found out by reading; it is never sent again on a guess. Everything before the last irreversible step can be left
alone without harm.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from botocore.exceptions import BotoCoreError, ClientError

from services._mesh.aws import Failure, classify
from services._mesh.aws_settings import AwsSettings
from services._mesh.claimed import ClaimedJob
from services._mesh.clock import Clock
from services._mesh.credentials import CredentialDesk
from services._mesh.errors import PASSING, Conflict, NotFound, Problem, Reason, Unavailable, WrongState
from services.actions.clients.aws import CHANGE_SECONDS, Ec2, NotSent, Threads
from services.actions.config import ExecutionSettings
from services.actions.model.action import Action, Step, progress
from services.actions.model.plan import differences
from services.actions.model.states import RUNNABLE_STATES, ActionState, StepState
from services.actions.store import actions
from services.actions.working import outcomes

# A change may be attempted so often, whatever kept the earlier attempts from being applied.
MAX_ATTEMPTS = 8
LONGEST_PAUSE = timedelta(minutes=5)


@dataclass(frozen=True)
class Tools:
    """What the worker works with."""

    desk: CredentialDesk
    threads: Threads
    aws: AwsSettings
    execution: ExecutionSettings
    clock: Clock


@dataclass(frozen=True)
class Turn:
    """What one lease is about: the action, its attempts so far, and the cloud."""

    tools: Tools
    job: ClaimedJob
    action: Action
    steps: list[Step]
    cloud: Ec2


async def execute(tools: Tools, job: ClaimedJob) -> None:
    """Go on with an execution by one step; the job comes again until the action has reached its end."""
    begun = await _begin(job)
    if begun is None:
        return
    action, steps = begun
    try:
        with cloud_problems(action):
            cloud = await open_cloud(tools, job, action, "act")
            await _go_on(Turn(tools, job, action, steps, cloud))
    except (*PASSING, Conflict):
        raise  # They pass by themselves, or the lease is somebody else's.
    except Problem as problem:
        await _outlast(job, action, problem)


async def _outlast(job: ClaimedJob, action: Action, problem: Problem) -> None:
    """While a change is on its way or accepted, no refusal ends its job: what became of it must be found out."""
    async with job.begin() as work:
        steps = await actions.list_steps(work.connection, [action.action_id])
        if progress(action.kind, steps).open is None:
            if not isinstance(problem, NotFound):
                raise problem
            await outcomes.failed(work, job, action, "its connection can't be used any more: it was disabled")
            return
        await outcomes.obstructed(work, action, problem)
        await job.postpone(work, work.now + LONGEST_PAUSE)


async def open_cloud(tools: Tools, job: ClaimedJob, action: Action, purpose: str) -> Ec2:
    """EC2 in the resource's account and region, with the session that the broker opens for this job."""
    credential = job.credential(purpose, action.plan.resource.account)
    session = await tools.desk.open(credential.grant, credential.credential_id)
    return Ec2(tools.threads, tools.aws, session, action.plan.resource.region, tools.clock)


async def _begin(job: ClaimedJob) -> tuple[Action, list[Step]] | None:
    """The action with its attempts, on its way; None where there is nothing to do now."""
    async with job.begin() as work:
        action = await actions.get_action(work.connection, job.subject_id, lock=True)
        if action.state not in RUNNABLE_STATES:
            await job.finish(work)
            return None
        until = action.quarantined_until
        if action.state is ActionState.QUARANTINED and until is not None and work.now < until:
            await job.postpone(work, until)
            return None
        if action.state in (ActionState.APPROVED, ActionState.QUARANTINED):
            if work.now >= action.plan.valid_until:
                await outcomes.stale(work, job, action, "the plan is too old by now")
                return None
            action = await actions.mark_action(work.connection, action, ActionState.EXECUTING)
            work.emit("actions.action.execute", action.target, {"plan_hash": action.plan.plan_hash})
        return action, await actions.list_steps(work.connection, [action.action_id])


async def _go_on(turn: Turn) -> None:
    """Whatever the attempts say comes next."""
    found = progress(turn.action.kind, turn.steps)
    if found.open is None:
        await _make_change(turn, found.attempts + 1)
    elif found.open.result_id:
        await _await_completion(turn, found.open)
    else:
        await _find_out(turn, found.open)


async def _make_change(turn: Turn, attempt: int) -> None:
    """Re-check what the plan rests on, record the intent, send the change once."""
    following = progress(turn.action.kind, turn.steps).step
    assert following is not None  # An action whose steps are all confirmed isn't runnable.
    problem = await _what_changed(turn)
    async with turn.job.begin() as work:
        if problem or work.now >= turn.action.plan.valid_until:
            await outcomes.stale(work, turn.job, turn.action, problem or "the plan is too old by now")
            return
        if attempt > MAX_ATTEMPTS:
            await outcomes.failed(work, turn.job, turn.action, f"{following.name} didn't get through in time")
            return
        if turn.tools.clock.wall_now() > _not_after(turn):
            await turn.job.postpone(work, work.now)
            return
        step = await outcomes.intend(work, turn.action, following.name, attempt)
    await _send(turn, step)


async def _what_changed(turn: Turn) -> str:
    """What of the plan's conditions is no longer so, in words; empty when all of it is."""
    action = turn.action
    facts = await turn.cloud.observe(action.plan.resource)
    if facts is None:
        return "the resource is gone"
    found = differences(action.plan.preconditions, facts)
    told = "; ".join(f"{name} was {before!r} and is {now!r}" for name, (before, now) in found.items())
    return told or await _what_is_missing(turn)


async def _what_is_missing(turn: Turn) -> str:
    """What an earlier step made and this one relies on, such as the snapshot, and isn't there any more."""
    for step in turn.steps:
        if step.state is StepState.CONFIRMED and turn.action.kind.step(step.name).waits:
            try:
                if not await turn.cloud.is_complete(step.name, step.result_id, turn.action.plan):
                    return f"{step.result_id} isn't complete any more"
            except ValueError as error:
                return str(error)
    return ""


def _not_after(turn: Turn) -> datetime:
    """Until when a change may be begun: it must have ended before anybody else may take the lease."""
    return turn.job.lease_until - timedelta(seconds=CHANGE_SECONDS)


async def _send(turn: Turn, step: Step) -> None:
    action = turn.action
    try:
        result_id = await turn.cloud.apply(step.name, str(action.action_id), action.plan, _not_after(turn))
    except NotSent:
        await _change_failed(turn, step, Failure.UNREACHABLE, "NotSent")
        return
    except Exception as error:  # classify() raises again what isn't the cloud's: the step stays in doubt then.
        await _change_failed(turn, step, *classify(error))
        return
    async with turn.job.begin() as work:
        step = await outcomes.accepted(work, action, step, result_id)
    await _await_completion(turn, step)


async def _change_failed(turn: Turn, step: Step, failure: Failure, code: str) -> None:
    async with turn.job.begin() as work:
        if failure is Failure.AMBIGUOUS:
            await outcomes.doubt(work, turn.action, step, code)
            await turn.job.postpone(work, work.now + _settle(turn))
            return
        await outcomes.refused(work, turn.action, step, code)
        if failure in (Failure.THROTTLED, Failure.UNREACHABLE):
            await turn.job.postpone(work, work.now + _settle(turn) * step.attempt)
        else:
            await outcomes.failed(work, turn.job, turn.action, f"the cloud refused {step.name} ({code})")


async def _await_completion(turn: Turn, step: Step) -> None:
    """Read back a change that the cloud accepted; confirm it once it is complete, or look again later."""
    try:
        done = await turn.cloud.is_complete(step.name, step.result_id, turn.action.plan)
    except ValueError as error:
        async with turn.job.begin() as work:
            await outcomes.refused(work, turn.action, step, "ResultUnusable")
            await outcomes.failed(work, turn.job, turn.action, str(error))
        return
    async with turn.job.begin() as work:
        if done:
            await outcomes.confirmed(work, turn.job, turn.action, turn.steps, step)
        else:
            await turn.job.postpone(work, work.now + _pause(turn, work.now - step.intended_at))


def _pause(turn: Turn, waited: timedelta) -> timedelta:
    """How long to wait before looking again: a quarter of what was waited for already, within bounds."""
    shortest = timedelta(seconds=turn.tools.execution.poll_seconds)
    return min(max(shortest, waited / 4), LONGEST_PAUSE)


async def _find_out(turn: Turn, step: Step) -> None:
    """A change was perhaps sent: read whether it was applied. "No" counts only once the cloud had time to show it."""
    result_id = await turn.cloud.find_effect(step.name, str(turn.action.action_id), turn.action.plan.resource)
    if result_id is not None:
        async with turn.job.begin() as work:
            step = await outcomes.accepted(work, turn.action, step, result_id)
        await _await_completion(turn, step)
        return
    async with turn.job.begin() as work:
        if work.now < step.intended_at + _settle(turn):
            await outcomes.doubt(work, turn.action, step, step.error_code or "NoAnswer")
            await turn.job.postpone(work, step.intended_at + _settle(turn))
        else:
            await outcomes.not_applied(work, turn.action, step)
            await turn.job.postpone(work, work.now)


def _settle(turn: Turn) -> timedelta:
    return timedelta(seconds=turn.tools.execution.settle_seconds)


@contextmanager
def cloud_problems(action: Action) -> Iterator[None]:
    """What a failed reading means: nothing was changed by it, so the job may come again. Raises Problem."""
    try:
        yield
    except (ClientError, BotoCoreError, TimeoutError, OSError) as error:
        failure, code = classify(error)
        metadata = {"code": code, "account": action.plan.resource.account, "operation": "ec2:Describe"}
        if failure is Failure.THROTTLED:
            raise Unavailable(Reason.ERROR_REASON_CLOUD_THROTTLED, "AWS throttles us.", metadata) from error
        if failure in (Failure.UNREACHABLE, Failure.AMBIGUOUS):
            raise Unavailable(Reason.ERROR_REASON_CLOUD_UNREACHABLE, "AWS doesn't answer.", metadata) from error
        message = f"AWS refuses the reading ({code})."
        raise WrongState(Reason.ERROR_REASON_CLOUD_REFUSED, message, metadata) from error
