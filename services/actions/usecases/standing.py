"""Looks, before a worker is granted a change, whether those who requested and approved it could still do so.

Whatever is found, nothing that was sent to the cloud is left unknown: a change on its way is read to its end, and a
person can cancel. There is no job that takes a change back, so that nothing here could keep one from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, NoReturn

from services._mesh.errors import PASSING, NotFound, Reason, WrongState
from services._mesh.jobs import Planner
from services._mesh.uow import Store, UnitOfWork
from services.actions.clients.peers import Identity
from services.actions.model.action import Action, Approval, Step, with_what_is_kept
from services.actions.model.standing import Decider, asked_by, deciders, lost
from services.actions.model.states import RUNNABLE_STATES, ActionState, StepState
from services.actions.store import actions
from services.actions.usecases.requests import EXECUTE, EXPIRE

_HELD = "held: whether who requested and who approved it may still do so can't be known, since identity doesn't answer"


class StandingCheck:
    """Asks identity at each claim and renewal; nothing is remembered from one to the next."""

    def __init__(self, store: Store, planner: Planner, identity: Identity) -> None:
        self._store, self._planner, self._identity = store, planner, identity

    async def may_change(
        self, action: Action, approvals: Sequence[Approval], steps: Sequence[Step], tags: Mapping[str, str]
    ) -> bool:
        """Whether a worker may be granted the next change; while an open one is found out, only readings are.

        Where an approval counts no longer, the action waits for another one, or ends if something was done already.
        Raises Unavailable while identity doesn't answer, NotFound (organization), WrongState (STATE_WRONG) for an
        action that was stopped.
        """
        asked = deciders(action, approvals)
        try:
            answer = await self._identity.check_standing(action.organization_id, asked)
        except PASSING:
            await self._hold(action)
            raise
        if not answer.is_active:
            raise NotFound("organization")
        pairs = zip(asked, answer.found, strict=True)
        whys = {decider: why for decider, now in pairs if (why := lost(action, tags, decider, now))}
        if len(asked) == 1:
            whys[asked[0]] = whys.get(asked[0], "no approval of it counts")
        if not whys:
            await self._go_on(action)
        elif not any(step.is_open for step in steps):
            await self._stop(action, approvals, whys)
        return not whys

    async def _hold(self, action: Action) -> None:
        """Say that the action waits, once."""
        if action.problem == _HELD:
            return
        async with self._store.begin(action.organization_id, interim=True) as work:
            now = await actions.get_action(work.connection, action.action_id, lock=True)
            if now.state in RUNNABLE_STATES and now.problem != _HELD:
                await actions.note_problem(work.connection, now, _HELD)
                work.emit("actions.action.hold", action.target, _about(action, (), _HELD), "FAILED")

    async def _go_on(self, action: Action) -> None:
        if action.problem != _HELD:
            return
        async with self._store.begin(action.organization_id, interim=True) as work:
            now = await actions.get_action(work.connection, action.action_id, lock=True)
            if now.problem == _HELD:
                await actions.note_problem(work.connection, now, "")
                work.emit("actions.action.resume", action.target, {"plan_hash": action.plan.plan_hash})

    async def _stop(self, action: Action, approvals: Sequence[Approval], whys: Mapping[Decider, str]) -> NoReturn:
        """Take the work from whoever has it, and say why. Raises WrongState."""
        why = "; ".join(whys.values())
        async with self._store.begin(action.organization_id, interim=True) as work:
            # The job first, as a worker takes it: what that has committed by now is seen, and it commits nothing more.
            await work.cancel_jobs(EXECUTE, action.action_id)
            now = await actions.get_action(work.connection, action.action_id, lock=True)
            steps = await actions.list_steps(work.connection, [action.action_id])
            if now.state in RUNNABLE_STATES and not any(step.is_open for step in steps):
                void = [each for each in approvals if each.decided_by in {decider.actor for decider in whys}]
                begun = any(step.state is StepState.CONFIRMED for step in steps)
                if begun or asked_by(action) in whys or now.state is ActionState.UNKNOWN:
                    await self._withdraw(work, now, void, with_what_is_kept(f"withdrawn: {why}", steps))
                else:
                    await self._reopen(work, now, void, f"needs another approval: {why}")
            else:  # A change was begun meanwhile: the job stays, and finds out first what became of that.
                raise _stopped("a change was begun meanwhile")
        raise _stopped(why)

    async def _withdraw(self, work: UnitOfWork, action: Action, void: Sequence[Approval], problem: str) -> None:
        """Nothing irreversible was done; what was done can be left, and somebody else may request the action anew."""
        event_id = work.emit("actions.action.withdraw", action.target, _about(action, void, problem), "FAILED")
        await actions.insert_voids(work.connection, action, void, work.now, event_id)
        await actions.mark_action(work.connection, action, ActionState.CANCELLED, problem=problem)

    async def _reopen(self, work: UnitOfWork, action: Action, void: Sequence[Approval], problem: str) -> None:
        """Nothing was done yet: the action waits for an approval again, as long as it would have waited at first."""
        event_id = work.emit("actions.action.reopen", action.target, _about(action, void, problem), "FAILED")
        await actions.insert_voids(work.connection, action, void, work.now, event_id)
        await actions.mark_action(work.connection, action, ActionState.REQUESTED, problem=problem)
        # Not the moment of the first one, which was cancelled: the same work at the same moment is one job.
        due_at = max(action.approve_before, work.now) + timedelta(seconds=1)
        job = self._planner.plan(work.organization_id, EXPIRE, action.action_id, due_at, plan=action.plan.plan_hash)
        await work.enqueue(job)


def _about(action: Action, void: Sequence[Approval], problem: str) -> dict[str, Any]:
    events = [str(each.event_id) for each in void]
    return {"plan_hash": action.plan.plan_hash, "problem": problem, "void_approval_event_ids": events}


def _stopped(why: str) -> WrongState:
    return WrongState(
        Reason.ERROR_REASON_STATE_WRONG,
        f"The action was stopped: {why}.",
        {"state": "STOPPED", "allowed": "what those who may still decide want"},
    )
