"""Decisions about actions on a real PostgreSQL: who may, in which state, and what is never left waiting."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import orjson
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError

from services._mesh.context import entered
from services._mesh.errors import (
    AlreadyExists,
    DeadlinePassed,
    Denied,
    NotFound,
    Problem,
    Reason,
    Unavailable,
    WrongState,
)
from services._mesh.grants import Grant
from services._mesh.ids import uuid7
from services._mesh.jobs import Job, Planner
from services._mesh.passports import Kind
from services._mesh.resource_limits import UNLIMITED
from services._mesh.uow import Store, UnitOfWork
from services.actions import wire
from services.actions.model.action import Approval, Step, Whole
from services.actions.model.plan import Estimate, ResourceKey
from services.actions.model.request import Finding, FrozenBaseline, Scope
from services.actions.model.standing import Decider, NowStanding, Standings
from services.actions.model.states import OPEN_STATES, ActionState, StepState
from services.actions.store import actions, checkpoints
from services.actions.usecases import receipts, requests
from services.actions.usecases.policies import Policies
from services.actions.usecases.requests import CHECKPOINT, EXECUTE, Gathered
from services.actions.working import checking, executing, outcomes
from tests.support.postgres import TestDatabase
from tests.support.things import ACME, GLOBEX, MovableClock, Unrotated, context, keys, linked_passport

pytestmark = pytest.mark.services("actions")

ANN, BOB = UUID(int=11), UUID(int=12)
BASELINE = orjson.dumps({"currency": "USD"})


@dataclass
class Office:
    """The API of actions at work on one database, and its worker's own role."""

    database: TestDatabase
    clock: MovableClock
    api: Store
    worker: Store
    planner: Planner

    def gathered(self, resource: str = "vol-1") -> Gathered:
        key = ResourceKey("aws", "aws", "1" * 12, "us-east-1", "ec2.volume", resource)
        evidence = {"fact.state": "available", "available_since": "2026-01-01T00:00:00Z"}
        finding = Finding(
            uuid4(), uuid4(), "aws.ebs.unattached", key, "OPEN", "ACTIONABLE", "aws.ebs.delete_volume", evidence,
            Estimate("30", "USD", "v1"), self.clock.now(),
        )  # fmt: skip
        return Gathered(finding, Scope(uuid4(), "ACTIVE", True), FrozenBaseline(BASELINE, "USD"))

    async def request(self, resource: str = "vol-1", person: UUID = ANN) -> Whole:
        with entered(by(person, "actions.action.request")) as call:
            async with self.api.begin(ACME, call) as work:
                return await requests.request_action(work, self.planner, self.gathered(resource))

    async def approve(
        self, made: Whole, person: UUID = BOB, plan_hash: str = "", linked: UUID | None = None, **more: Any
    ) -> Whole:
        wanted = plan_hash or made.action.plan.plan_hash
        if linked is not None:
            more["passport"] = linked_passport(person, linked)
        with entered(by(person, "actions.action.approve", **more)) as call:
            async with self.api.begin(ACME, call) as work:
                return await requests.approve_action(work, self.planner, made.action.action_id, wanted, "")

    async def cancel(self, made: Whole) -> Whole:
        with entered(by(ANN, "actions.action.cancel")) as call:
            async with self.api.begin(ACME, call) as work:
                return await requests.cancel_action(work, made.action.action_id, "")

    async def state(self, made: Whole) -> ActionState:
        async with self.api.read(ACME) as connection:
            return (await actions.get_action(connection, made.action.action_id)).state

    async def jobs(self, subject: UUID) -> list[tuple[str, str]]:
        superuser = await self.database.superuser()
        rows = await superuser.fetch("SELECT kind, status FROM actions.jobs WHERE subject_id = $1", subject)
        await superuser.close()
        return sorted((row["kind"], row["status"]) for row in rows)


def by(person: UUID, action: str, **more: Any) -> Any:
    facts = {"responsible_person": person, "actor": f"user:{person}", "role": "ADMIN", **more}
    return context(ACME, action, **facts)


@pytest.fixture
async def office(database: TestDatabase, tmp_path: Path) -> AsyncIterator[Office]:
    clock, (key, _) = MovableClock(), keys(tmp_path, "actions")
    api, worker = database.role("actions_api"), database.role("actions_worker")
    yield Office(
        database, clock, Store(api, "actions", clock), Store(worker, "actions", clock), Planner(key, "actions", clock)
    )
    for role in (api, worker):
        await role.close()


async def test_the_open_states_of_the_model_are_those_of_the_index(office: Office) -> None:
    superuser = await office.database.superuser()
    definition = await superuser.fetchval("SELECT indexdef FROM pg_indexes WHERE indexname = 'actions_open'")
    await superuser.close()
    assert set(re.findall(r"'([A-Z]+)'", definition)) == {state.value for state in OPEN_STATES}


async def test_one_open_action_a_resource(office: Office) -> None:
    first = await office.request()
    with pytest.raises(AlreadyExists) as refused:
        await office.request()
    assert refused.value.metadata == {"action_id": str(first.action.action_id)}
    await office.request("vol-2")
    await office.cancel(first)
    assert (await office.request()).action.state is ActionState.REQUESTED


async def test_an_approval_plans_execution_and_checkpoints_and_ends_the_waiting(office: Office) -> None:
    made = await office.request()
    approved = await office.approve(made)
    assert approved.action.state is ActionState.APPROVED
    assert await office.jobs(made.action.action_id) == [("execute", "READY"), ("expire", "CANCELLED")]
    assert [c.days for c in approved.checkpoints] == [7, 14, 30]
    for checkpoint in approved.checkpoints:
        assert await office.jobs(checkpoint.checkpoint_id) == [(CHECKPOINT, "READY")]
    await office.cancel(approved)
    assert await office.jobs(made.action.action_id) == [("execute", "CANCELLED"), ("expire", "CANCELLED")]
    for checkpoint in approved.checkpoints:
        assert await office.jobs(checkpoint.checkpoint_id) == [(CHECKPOINT, "CANCELLED")]


async def test_who_may_not_approve(office: Office) -> None:
    made = await office.request()
    with pytest.raises(Denied) as own:
        await office.approve(made, ANN)
    assert own.value.reason_name == "REQUESTER_IS_APPROVER"
    with pytest.raises(WrongState) as other:
        await office.approve(made, BOB, "0" * 64)
    assert other.value.reason_name == "PLAN_HASH_MISMATCH"
    office.clock.ahead += timedelta(days=7)
    with pytest.raises(WrongState, match="time to decide is over"):
        await office.approve(made)
    assert await office.state(made) is ActionState.REQUESTED


async def test_nobody_approves_under_another_login_what_they_requested(office: Office) -> None:
    """Bob is Ann, linked before or after she asked: the id that stands there is one of theirs."""
    made = await office.request()
    with pytest.raises(Denied) as caught:
        await office.approve(made, BOB, linked=ANN)
    assert caught.value.reason_name == "REQUESTER_IS_APPROVER"
    assert (await office.approve(made, BOB, linked=uuid4())).action.state is ActionState.APPROVED


async def test_nobody_approves_after_an_unlink_what_they_requested(office: Office) -> None:
    """Under a login that was Ann's then, and is nobody else's now; or under one that it was linked to since."""
    login = uuid4()
    with entered(by(ANN, "actions.action.request", actor=f"user:{login}")) as call:
        async with office.api.begin(ACME, call) as work:
            made = await requests.request_action(work, office.planner, office.gathered())
    for person, linked in ((login, None), (BOB, login)):
        with pytest.raises(Denied) as caught:
            await office.approve(made, person, linked=linked)
        assert caught.value.reason_name == "REQUESTER_IS_APPROVER"
    assert (await office.approve(made, BOB)).action.state is ActionState.APPROVED


async def test_nobody_approves_after_an_unlink_what_their_token_requested(office: Office) -> None:
    """The token was made by a login that was Ann's then, and is nobody else's now: in the data too."""
    login, token = uuid4(), f"token:{uuid4()}"
    passport = replace(linked_passport(ANN, login), actor=token, kind=Kind.MACHINE, rests_on=(f"user:{login}",))
    with entered(by(ANN, "actions.action.request", actor=token, passport=passport)) as call:
        async with office.api.begin(ACME, call) as work:
            made = await requests.request_action(work, office.planner, office.gathered())
    for person, linked in ((login, None), (BOB, login), (ANN, None)):
        with pytest.raises(Denied) as caught:
            await office.approve(made, person, linked=linked)
        assert caught.value.reason_name == "REQUESTER_IS_APPROVER"
        approval = Approval(made.action.action_id, f"user:{person}", person, "ADMIN", "APPROVED",
                            made.action.plan.plan_hash, "", office.clock.now(), uuid7())  # fmt: skip
        with pytest.raises(IntegrityError, match=r"another_person|approvals_check"):
            async with office.api.begin(ACME, interim=True) as work:
                await actions.insert_approval(work.connection, made.action, approval, {person, linked or person})
    assert (await office.approve(made, BOB)).action.state is ActionState.APPROVED


async def test_no_machine_decides(office: Office) -> None:
    made = await office.request()
    for actor in ("token:1", "service:1", "spiffe://recoup/actions"):
        with pytest.raises(Denied) as caught:
            await office.approve(made, BOB, actor=actor)
        assert caught.value.reason_name == "HUMAN_SESSION_REQUIRED"
    assert await office.state(made) is ActionState.REQUESTED


async def test_two_people_are_two_in_the_data_itself(office: Office) -> None:
    """As each login of the service: nobody writes an approval of their own request, or a machine's, or changes one."""
    made = (await office.request()).action
    values = "($1, $2, $3, $4, $5, 'ADMIN', 'APPROVED', $6, '', now(), $2, $7)"
    approvals = {
        "their own": (ANN, ANN, f"user:{ANN}", []),
        "under another login": (BOB, ANN, f"user:{BOB}", [BOB, ANN]),
        "of somebody else's request": (ANN, BOB, f"user:{ANN}", []),
        "a token's": (BOB, ANN, "token:1", [BOB]),
        "a process's": (BOB, ANN, "spiffe://recoup/actions", [BOB]),
    }
    logins = ("actions_api", "actions_worker", "actions_dispatcher", "actions_relay")
    for login in (*logins, "actions_migrate"):
        connection = await office.database.login(login)
        changes = [f"UPDATE actions.actions SET requester_person = '{BOB}'", "DELETE FROM actions.approvals"]
        for statement in (*changes, "UPDATE actions.approvals SET person = requester_person"):
            with pytest.raises(asyncpg.PostgresError):
                await within(connection, statement)
        for what, (person, requester, decided_by, persons) in approvals.items():
            with pytest.raises(asyncpg.PostgresError) as caught:
                await within(
                    connection, f"INSERT INTO actions.approvals VALUES {values}",
                    ACME, made.action_id, person, requester, decided_by, made.plan.plan_hash, persons,
                )  # fmt: skip
            refusal = asyncpg.IntegrityConstraintViolationError if login == "actions_api" else asyncpg.PostgresError
            assert isinstance(caught.value, refusal), (login, what)
        await connection.close()
    # What the API may write, so that each of these was refused for what it was.
    connection = await office.database.login("actions_api")
    good = (ACME, made.action_id, BOB, ANN, f"user:{BOB}", made.plan.plan_hash, [BOB])
    with pytest.raises(asyncpg.PostgresError, match="without its event"):
        await within(connection, f"INSERT INTO actions.approvals VALUES {values}", *good)
    await connection.close()


async def within(connection: asyncpg.Connection, statement: str, *values: object) -> None:
    async with connection.transaction():
        await connection.execute(f"SET LOCAL app.organization_id = '{ACME}'")
        await connection.execute(statement, *values)


async def test_another_organization_finds_nothing(office: Office) -> None:
    made = await office.request()
    with pytest.raises(NotFound):
        async with office.api.begin(GLOBEX, context(GLOBEX), interim=True) as work:
            await requests.cancel_action(work, made.action.action_id, "")


async def intended(office: Office, made: Whole) -> Step:
    """An execution on its way, with an attempt whose outcome isn't known."""
    async with office.worker.begin(ACME) as work:
        action = await actions.mark_action(work.connection, made.action, ActionState.EXECUTING)
        return await outcomes.intend(work, action, "create_snapshot", 1)


async def test_an_execution_that_is_given_up_in_doubt_can_be_ended_by_a_person(office: Office) -> None:
    made = await office.approve(await office.request())
    await intended(office, made)
    with pytest.raises(WrongState):
        await office.cancel(made)
    async with office.api.begin(ACME) as work:
        await work.cancel_jobs(EXECUTE, made.action.action_id)
        await outcomes.give_up(work, Job(uuid4(), ACME, EXECUTE, made.action.action_id, 5), "LEASE_EXPIRED")
    assert await office.state(made) is ActionState.UNKNOWN
    ended = await office.cancel(made)
    assert ended.action.state is ActionState.CANCELLED


async def test_an_execution_that_has_sent_nothing_can_be_withdrawn(office: Office) -> None:
    made = await office.approve(await office.request())
    async with office.worker.begin(ACME) as work:
        await actions.mark_action(work.connection, made.action, ActionState.EXECUTING)
        work.emit("actions.action.execute", made.action.target)
    assert (await office.cancel(made)).action.state is ActionState.CANCELLED


async def test_what_a_person_ended_no_worker_brings_back(office: Office) -> None:
    """With all that the worker's own role may write: the row's state, and the job's."""
    made = await office.cancel(await office.approve(await office.request()))
    with pytest.raises(DBAPIError, match="stays so"):
        async with office.worker.begin(ACME) as work:
            await work.execute(text("UPDATE actions.actions SET state = 'EXECUTING'"))
            work.emit("actions.action.execute", made.action.target)
    superuser = await office.database.superuser()
    warrants = await superuser.fetch("SELECT warrant FROM actions.jobs WHERE kind IN ('execute', 'checkpoint')")
    await superuser.close()
    assert [row["warrant"] for row in warrants] == [""] * 4


@dataclass
class Active:
    """An identity service for which every organization is in use, or none."""

    active: bool = True

    async def is_active(self, organization_id: UUID) -> bool:
        return self.active

    async def check_standing(self, organization_id: UUID, deciders: Sequence[Decider]) -> Standings:
        return Standings(self.active, [NowStanding("HELD", UNLIMITED) for _ in deciders])


async def test_nothing_is_granted_to_an_organization_that_is_not_in_use(office: Office) -> None:
    made = await office.approve(await office.request())
    subjects = {EXECUTE: made.action.action_id, CHECKPOINT: made.checkpoints[0].checkpoint_id}
    for kind, subject in subjects.items():
        job = Job(uuid4(), ACME, kind, subject, 1)
        given: Any = Unrotated()
        policies = {on: Policies(office.api, office.planner, Active(on), given, office.clock) for on in (True, False)}  # type: ignore[arg-type]
        decide = {on: getattr(each, kind) for on, each in policies.items()}
        assert (await decide[True](job)).plan == made.action.plan.plan_hash
        with pytest.raises(NotFound, match="organization"):
            await decide[False](job)


async def test_no_session_for_a_deletion_before_its_quarantine_is_over(office: Office) -> None:
    """The quarantine counts from the approval, whatever a worker has written about itself."""
    made = await office.approve(await office.request())
    policies = Policies(office.api, office.planner, Active(), Unrotated(), office.clock)  # type: ignore[arg-type]
    job = Job(uuid4(), ACME, EXECUTE, made.action.action_id, 1)

    async def granted() -> set[str]:
        (scope,) = (await policies.execute(job)).credentials
        return {action for statement in scope.statements for action in statement["actions"]}

    assert "ec2:CreateSnapshot" in await granted()
    step = await intended(office, made)
    assert "ec2:CreateSnapshot" not in await granted()  # An open attempt is read, not sent again.
    async with office.worker.begin(ACME) as work:
        await actions.mark_step(work.connection, step, state="CONFIRMED", result_id="snap-1", confirmed_at=work.now)
        past = work.now - timedelta(days=9)
        action = await actions.get_action(work.connection, made.action.action_id)
        await actions.mark_action(work.connection, action, ActionState.QUARANTINED, quarantined_until=past)
        work.emit("actions.action.quarantine", made.action.target)
    office.clock.ahead += timedelta(hours=23)
    assert "ec2:DeleteVolume" not in await granted()
    office.clock.ahead += timedelta(hours=1, minutes=1)
    assert "ec2:DeleteVolume" in await granted()


async def test_while_somebody_finds_it_out_a_doubt_cannot_be_withdrawn(office: Office) -> None:
    made = await office.approve(await office.request())
    step = await intended(office, made)
    async with office.worker.begin(ACME) as work:
        await outcomes.doubt(work, made.action, step, "NoAnswer")
    with pytest.raises(WrongState):
        await office.cancel(made)
    assert (EXECUTE, "READY") in await office.jobs(made.action.action_id)


async def test_an_execution_that_is_given_up_before_any_change_has_failed(office: Office) -> None:
    made = await office.approve(await office.request())
    async with office.api.begin(ACME) as work:
        await outcomes.give_up(work, Job(uuid4(), ACME, EXECUTE, made.action.action_id, 5), "RuntimeError")
    assert await office.state(made) is ActionState.FAILED


async def test_what_keeps_us_from_finding_out_is_said_once(office: Office) -> None:
    made = await office.approve(await office.request())
    await intended(office, made)
    problem = WrongState(62, "AWS refuses the reading.", {})  # type: ignore[arg-type]
    for _ in range(3):
        async with office.worker.begin(ACME) as work:
            await outcomes.obstructed(work, made.action, problem)
    superuser = await office.database.superuser()
    told = await superuser.fetchval("SELECT count(*) FROM actions.outbox WHERE action = 'actions.action.obstruct'")
    await superuser.close()
    assert told == 1


def grant(subject: UUID) -> Grant:
    return Grant(
        issuer="actions", audience=("actions",), presenter="x", organization_id=ACME, kind=CHECKPOINT,
        subject=str(subject), job_id=uuid7(), fence=1, number=1, issued_at=0, expires_at=1,
    )  # fmt: skip


async def test_a_grant_for_one_checkpoint_signs_no_other(office: Office) -> None:
    made = await office.approve(await office.request())
    seven, fourteen, _ = made.checkpoints

    async def issue(work: UnitOfWork) -> Any:
        return await receipts.issue_receipt(work, None, made.action.action_id, 7)  # type: ignore[arg-type]

    async def attempt(subject: UUID) -> Problem:
        call = context(ACME, "", grant=grant(subject))
        with entered(call), pytest.raises(Problem) as refused:
            async with office.api.begin(ACME, call) as work:
                await issue(work)
        return refused.value

    assert (await attempt(fourteen.checkpoint_id)).reason_name == "GRANT_INVALID"
    assert (await attempt(uuid4())).reason_name == "GRANT_INVALID"
    # The right one is let in, and told that there is nothing to sign yet.
    assert (await attempt(seven.checkpoint_id)).reason_name == "RECEIPT_NOT_READY"


async def test_receipts_say_what_they_supersede_and_what_supersedes_them(office: Office) -> None:
    made = await office.approve(await office.request())

    async def issue(work: UnitOfWork, revision: int, supersedes: UUID | None) -> UUID:
        receipt_id = uuid7()
        await checkpoints.insert_receipt(
            work.connection, organization_id=ACME, receipt_id=receipt_id, action_id=made.action.action_id, days=7,
            revision=revision, decision="VERIFIED", currency="USD", provisional=revision == 1, format=1, digest="",
            document=b"{}", measurement=b"{}", envelope=b"{}", event_ids=[], issued_at=work.now, supersedes=supersedes,
        )  # fmt: skip
        work.emit("actions.receipt.issue", f"receipts/{receipt_id}")
        return receipt_id

    async with office.api.begin(ACME) as work:
        first = await issue(work, 1, None)
        second = await issue(work, 2, first)
    async with office.api.read(ACME) as connection:
        listed = [wire.receipt(row) for row in await checkpoints.list_receipts(connection, None, 10, None)]
        read = [wire.receipt(await checkpoints.get_receipt(connection, each)) for each in (second, first)]
    for found in (listed, read):
        assert [(r.receipt_id, r.supersedes, r.superseded_by) for r in found] == [
            (str(second), str(first), ""), (str(first), "", str(second)),
        ]  # fmt: skip
    with pytest.raises(IntegrityError, match="receipts_supersedes"):
        async with office.api.begin(ACME) as work:
            await issue(work, 3, first)


class Witnessed:
    """The log, as far as a receipt needs it: it proves, or says why it doesn't yet."""

    def __init__(self, problem: Problem | None = None) -> None:
        self._problem = problem

    async def prove(self, event_ids: Sequence[UUID]) -> tuple[list[Any], str, str]:
        if self._problem:
            raise self._problem
        return [], "checkpoint", "manifest"


async def test_a_receipt_is_issued_until_enough_witnesses_have_cosigned_and_then_final(office: Office) -> None:
    made = await office.approve(await office.request())
    receipt_id, event_id = uuid7(), uuid7()
    async with office.api.begin(ACME) as work:
        await checkpoints.insert_receipt(
            work.connection, organization_id=ACME, receipt_id=receipt_id, action_id=made.action.action_id, days=7,
            revision=1, decision="VERIFIED", currency="USD", provisional=False, format=1, digest="", document=b"{}",
            measurement=b"{}", envelope=b"{}", event_ids=[event_id], issued_at=work.now, supersedes=None,
        )  # fmt: skip
        work.emit("actions.receipt.issue", f"receipts/{receipt_id}")

    async def get(problem: Problem | None = None) -> receipts.Proven:
        with entered(by(ANN, "")):
            return await receipts.get_receipt(office.api, Witnessed(problem), receipt_id)  # type: ignore[arg-type]

    pending = Reason.ERROR_REASON_CHECKPOINT_PENDING
    waiting = await get(Unavailable(pending, "Wait.", {"index": "4", "cosigned": "1", "quorum": "2"}))
    assert (waiting.is_final, waiting.bundle, waiting.cosigned, waiting.quorum) == (False, "", 1, 2)
    unsigned = await get(Unavailable(pending, "Wait.", {"index": ""}))
    assert (unsigned.is_final, unsigned.cosigned, unsigned.quorum) == (False, 0, 0)
    down = Unavailable(Reason.ERROR_REASON_DEPENDENCY_UNAVAILABLE, "It's down.")
    with pytest.raises(Unavailable, match="down"):
        await get(down)
    final = await get()
    assert final.is_final
    assert orjson.loads(final.bundle)["key_manifest"] == "manifest"
    # From then on these bytes are served, though the log is away, or hasn't its events any more.
    for problem in (down, Unavailable(pending, "On its way.", {"index": ""})):
        assert (await get(problem)).bundle == final.bundle
    # But for what was erased: another's event is none of its own.
    await receipts.forget_finals(office.api, ACME, [uuid7()])
    assert (await get(down)).is_final
    await receipts.forget_finals(office.api, ACME, [event_id])
    with pytest.raises(Unavailable, match="down"):
        await get(down)


async def test_an_attempt_is_recorded_once_whoever_believes_to_hold_the_lease(office: Office) -> None:
    made = await office.approve(await office.request())
    await intended(office, made)
    with pytest.raises(IntegrityError, match="steps_open"):
        async with office.worker.begin(ACME) as work:
            await outcomes.intend(work, made.action, "create_snapshot", 2)


async def test_what_is_only_slow_is_no_refusal(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """It passes by itself: nothing is written about the action, and the job comes again."""
    made = await office.approve(await office.request())

    async def begin(job: object) -> Any:
        return made.action, []

    async def slow(*_: object) -> Any:
        raise DeadlinePassed(Reason.ERROR_REASON_DEADLINE_TOO_SHORT, "broker didn't answer in time.")

    monkeypatch.setattr(executing, "open_cloud", slow)
    monkeypatch.setattr(checking, "_look", slow)
    for module in (executing, checking):
        monkeypatch.setattr(module, "_begin", begin)
    nothing: Any = None  # Whoever wrote about it would need the job.
    with pytest.raises(DeadlinePassed):
        await executing.execute(nothing, nothing)
    with pytest.raises(DeadlinePassed):
        await checking.check(nothing, nothing, nothing, nothing)


@pytest.mark.parametrize("by", ["api", "worker"])
async def test_a_checkpoint_that_is_given_up_says_so(office: Office, by: str) -> None:
    """The worker gives up after its failures; the API does where leases or the warrant ran out."""
    made = await office.approve(await office.request())
    checkpoint = made.checkpoints[0].checkpoint_id
    store: Store = getattr(office, by)
    async with store.begin(ACME) as work:
        await outcomes.give_up(work, Job(uuid4(), ACME, CHECKPOINT, checkpoint, 5), "RuntimeError")
    async with office.api.read(ACME) as connection:
        found = await checkpoints.get_checkpoint(connection, checkpoint)
    assert "given up" in found.explanation


@pytest.mark.parametrize("state", [StepState.CONFIRMED, StepState.REFUSED])
async def test_an_outcome_that_is_known_is_not_changed(office: Office, state: StepState) -> None:
    made = await office.approve(await office.request())
    step = await intended(office, made)
    async with office.worker.begin(ACME) as work:
        await actions.mark_step(work.connection, step, state=state.value)
        work.emit("actions.step.test", made.action.target)
    with pytest.raises(WrongState):
        async with office.worker.begin(ACME) as work:
            await actions.mark_step(work.connection, step, state=StepState.UNKNOWN.value)
