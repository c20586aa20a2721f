"""What the worker of actions may do, decided anew at each claim and renewal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from services._mesh.clock import Clock
from services._mesh.credentials import CredentialKeeper
from services._mesh.errors import NotFound
from services._mesh.grants import CredentialScope
from services._mesh.jobs import Authority, Job, Planner
from services._mesh.uow import Store
from services.actions.clients.peers import Identity
from services.actions.model.action import Action, Approval, progress
from services.actions.model.kinds import READS, Statement, StepSpec, step_statements
from services.actions.model.states import RUNNABLE_STATES, ActionState
from services.actions.store import actions, checkpoints
from services.actions.usecases.standing import StandingCheck


class Policies:
    """The authority of each kind of job. The plan's hash must be the one that the approval's warrant names."""

    def __init__(
        self, store: Store, planner: Planner, identity: Identity, keeper: CredentialKeeper, clock: Clock
    ) -> None:
        self._reader, self._identity, self._keeper, self._clock = store, identity, keeper, clock
        self._standing = StandingCheck(store, planner, identity)

    async def execute(self, job: Job) -> Authority:
        """The act role may make the next change of the plan, on its one resource, and read around it."""
        async with self._reader.read(job.organization_id) as connection:
            action = await actions.get_action(connection, job.subject_id)
            tags = await actions.get_tags(connection, job.subject_id)
            steps = await actions.list_steps(connection, [job.subject_id])
            approvals = [a for a in await actions.list_approvals(connection, [job.subject_id]) if a.counts]
        if action.state not in RUNNABLE_STATES:
            raise actions.wrong_state(action, sorted(state.value for state in RUNNABLE_STATES))
        may_change = await self._standing.may_change(action, approvals, steps, tags)
        found = progress(action.kind, steps)
        # While an attempt is open, its outcome is read; a session that could send again isn't given out.
        is_read_only = not may_change or found.open is not None
        if found.step is None or is_read_only or self._is_held(action, found.step, approvals):
            statements: tuple[Statement, ...] = (READS,)
        else:
            statements = step_statements(action.kind, found.step, action.plan.resource)
        scope = await self._scope(action, "act", statements)
        return Authority(credentials=(scope,), plan=action.plan.plan_hash)

    def _is_held(self, action: Action, step: StepSpec, approvals: Sequence[Approval]) -> bool:
        """Whether the quarantine keeps a step back.

        It counts from the approval, which no worker can write: what a worker says of itself may only make it longer.
        """
        if not (step.irreversible and action.kind.quarantine_hours):
            return False
        approved_at = max((a.decided_at for a in approvals), default=None)
        ends = [action.quarantined_until] if action.quarantined_until else []
        if approved_at is not None:
            ends.append(approved_at + timedelta(hours=action.kind.quarantine_hours))
        return not ends or self._clock.now() < max(ends)

    async def checkpoint(self, job: Job) -> Authority:
        """The scan role may look whether the resource is gone; pricing may measure; the API may sign the receipt."""
        await self._require_active(job.organization_id)
        async with self._reader.read(job.organization_id) as connection:
            checkpoint = await checkpoints.get_checkpoint(connection, job.subject_id)
            action = await actions.get_action(connection, checkpoint.action_id)
        was_executed = action.state in (ActionState.EXECUTED, ActionState.CLOSED)
        credentials = (await self._scope(action, "verify", (READS,)),) if was_executed else ()
        return Authority(audience=("pricing", "actions"), credentials=credentials, plan=action.plan.plan_hash)

    async def expire(self, job: Job) -> Authority:
        """Nothing outside of our own database."""
        async with self._reader.read(job.organization_id) as connection:
            action = await actions.get_action(connection, job.subject_id)
        return Authority(plan=action.plan.plan_hash)

    async def _require_active(self, organization_id: UUID) -> None:
        if not await self._identity.is_active(organization_id):
            raise NotFound("organization")

    async def _scope(self, action: Action, purpose: str, statements: tuple[Statement, ...]) -> CredentialScope:
        """The credential in use in the place of the plan's own: what may be done with it is the same."""
        found = await self._keeper.in_use(action.organization_id, action.credential_id)
        return CredentialScope(
            credential_id=found.credential_id,
            refused_from=found.refused_from,
            purpose=purpose,
            account=action.plan.resource.account,
            region=action.plan.resource.region,
            statements=tuple({"actions": list(s.actions), "resources": list(s.resources)} for s in statements),
        )
