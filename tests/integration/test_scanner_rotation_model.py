"""The rotation's state machine against a model of a few lines: any order of decisions, steps, kills, and grants in use.

The real use cases and the worker's real steps run on a real database; an example has an organization of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from services._mesh import failpoints
from services._mesh.claimed import ClaimedJob
from services._mesh.errors import WrongState
from services._mesh.jobs import GRANT_SECONDS
from services.scanner.model.connection import Connection
from services.scanner.model.rotation import DRAIN, TRYING, RotationState
from tests.support.postgres import drop, new_database
from tests.support.rotating import Rotations, rotations_on

STEPS = ("probed", "accepted", "read", "promoted", "told", "done")
LEASE = timedelta(seconds=70)


class Killed(BaseException):
    """The process is gone: nothing after this line runs."""


@dataclass
class Expected:
    """What must be so: which credential is in use, which is tried, and until when grants for earlier ones live."""

    in_use: UUID
    state: RotationState | None = None
    candidate: UUID | None = None
    replaced: UUID | None = None
    alive_until: dict[UUID, float] = field(default_factory=dict)
    is_disabled: bool = False

    @property
    def is_open(self) -> bool:
        return self.state in (*TRYING, RotationState.DRAINING)


class Rotating(RuleBasedStateMachine):
    """Whatever happens in whatever order, what is in use is there, and nobody loses what they were granted."""

    loop: asyncio.AbstractEventLoop
    parts: Rotations
    made: Connection
    expected: Expected

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    @initialize()
    def connect(self) -> None:
        self.organization, self.keys = uuid4(), 0
        self.parts.cloud.refused.clear()
        self.parts.feed.told.clear()
        self.made = self.do(self.parts.connect(self.organization))
        self.expected = Expected(self.made.credential_id)

    @rule()
    def begin(self) -> None:
        self.keys += 1
        beginning = self.parts.rotate(self.made, f"AKIA{self.keys:016d}", self.organization)
        if self.expected.is_disabled or self.expected.is_open:
            with pytest.raises(WrongState) as refused:
                self.do(beginning)
            wanted = "STATE_WRONG" if self.expected.is_disabled else "ROTATION_OPEN"
            assert refused.value.reason_name == wanted
            return
        begun = self.do(beginning)
        self.expected.state, self.expected.candidate = RotationState.PROBING, begun.candidate_id
        self.expected.replaced = begun.replaced_id

    @rule()
    def cancel(self) -> None:
        if self.expected.state not in TRYING:
            with pytest.raises(WrongState):
                self.do(self.parts.cancel(self.made, self.organization))
            return
        self.do(self.parts.cancel(self.made, self.organization))
        self.expected.state = RotationState.CANCELLED

    @rule()
    def grant(self) -> None:
        """Work begins with what is in use: its grant must be good for as long as it lives."""
        if not self.expected.is_disabled:
            now = self.parts.clock.wall_seconds()
            self.expected.alive_until[self.expected.in_use] = now + GRANT_SECONDS

    @rule(refused=st.booleans(), killed_at=st.sampled_from((None, None, *STEPS)))
    def step(self, refused: bool, killed_at: str | None) -> None:
        """The worker does the next step of any job that is due, and may be killed at any place of it."""
        self.parts.cloud.refused = {"ec2:DescribeVolumes"} if refused else set()
        for job_id in self.do(self.parts.jobs(organization=self.organization)):
            self.do(self._step(job_id, killed_at))
        self._expect(refused)

    async def _step(self, job_id: UUID, killed_at: str | None) -> None:
        def reach(name: str) -> None:
            if name == f"rotate.{killed_at}":
                raise Killed

        try:
            job: ClaimedJob = await self.parts.claim(job_id)
        except WrongState:  # Not due, or dead.
            return
        failpoints._reached = reach
        try:
            await self.parts.work(job)
        except Killed:
            self.parts.clock.wall_ahead += LEASE
        finally:
            failpoints._reached = failpoints._nothing

    def _expect(self, refused: bool) -> None:
        """Move the model on as far as one step may have come, and no further."""
        if self.expected.state is None:
            return
        found, before = self.do(self.parts.newest(self.made)), self.expected.state
        after = {
            RotationState.PROBING: RotationState.FAILED if refused else RotationState.READING,
            RotationState.READING: RotationState.DRAINING,
            RotationState.DRAINING: RotationState.DONE,
        }
        # One that was killed too often is given up, the one before staying.
        assert found.state in (before, after.get(before), *((RotationState.FAILED,) if before in TRYING else ()))
        if before is RotationState.READING and found.state is RotationState.DRAINING:
            assert self.expected.candidate is not None
            self.expected.in_use = self.expected.candidate
        self.expected.state = found.state

    @rule(seconds=st.sampled_from((30, 120, 330)))
    def wait(self, seconds: int) -> None:
        self.parts.clock.ahead += timedelta(seconds=seconds)
        self.parts.clock.wall_ahead += timedelta(seconds=seconds)

    @precondition(lambda self: self.expected.state is RotationState.DRAINING)
    @rule()
    def only_the_injected_clock_moves(self) -> None:
        self.parts.clock.ahead += DRAIN

    @precondition(lambda self: self.expected.state is not None)
    @rule(chance=st.integers(0, 3))
    def disable(self, chance: int) -> None:
        if chance or self.expected.is_disabled:
            return
        self.do(self.parts.disable(self.made, self.organization))
        self.expected.is_disabled = True
        if self.expected.state in TRYING:
            self.expected.state = RotationState.CANCELLED

    @invariant()
    def what_is_in_use_is_there_and_nothing_granted_is_lost(self) -> None:
        found = self.do(self.parts.get(self.made))
        sealed = self.do(self.parts.sealed(self.organization))
        assert found.credential_id == self.expected.in_use
        if self.expected.is_disabled:  # For good: nothing that was sealed of it outlives it.
            assert sealed == set()
            return
        assert self.expected.in_use in sealed
        now = self.parts.clock.wall_seconds()
        assert all(each in sealed for each, until in self.expected.alive_until.items() if until > now)
        # The one in use, and one more while a rotation is open: no other is kept.
        assert len(sealed) == (2 if self.expected.is_open else 1)
        assert self.expected.in_use not in self.parts.feed.told

    @invariant()
    def the_row_says_what_the_model_says(self) -> None:
        if self.expected.state is not None:
            assert self.do(self.parts.newest(self.made)).state is self.expected.state


def test_any_order_of_decisions_steps_and_kills(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    with asyncio.Runner() as runner:

        async def start() -> tuple[AsyncExitStack, Any, Rotations]:
            stack = AsyncExitStack()
            database = await new_database(("scanner",))
            return stack, database, await stack.enter_async_context(rotations_on(database, tmp_path))

        stack, database, parts = runner.run(start())

        class Machine(Rotating):
            loop = runner.get_loop()

        Machine.parts = parts
        try:
            run_state_machine_as_test(
                Machine,
                settings=settings(
                    max_examples=12, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
                ),
            )
        finally:
            runner.run(stack.aclose())
            runner.run(drop(database))
