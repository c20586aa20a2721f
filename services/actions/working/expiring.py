"""Lets requests expire that nobody decided about in time."""

from __future__ import annotations

from services._mesh.claimed import ClaimedJob
from services.actions.model.states import ActionState
from services.actions.store import actions


async def expire(job: ClaimedJob) -> None:
    """End a request that is still undecided."""
    async with job.begin() as work:
        action = await actions.get_action(work.connection, job.subject_id, lock=True)
        if action.state is ActionState.REQUESTED:
            problem = "nobody decided about it in time"
            await actions.mark_action(work.connection, action, ActionState.EXPIRED, problem=problem)
            work.emit("actions.action.expire", action.target, {"plan_hash": action.plan.plan_hash})
        await job.finish(work)
