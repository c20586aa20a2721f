"""Approved work is granted to a worker only while those who asked for it and approved it could still do so.

Real claims, and identity's own answer over gRPC, on one database.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import asyncpg
import grpc
import pytest

from recoup.identity.v1 import identity_service_pb2_grpc
from services._mesh.context import entered
from services._mesh.errors import Denied, Problem, Unavailable, WrongState
from services._mesh.grants import CredentialScope
from services._mesh.jobs import JobDesk, Lease, Planner
from services._mesh.resource_limits import ResourceLimits
from services._mesh.uow import Store, UnitOfWork
from services.actions.clients.peers import Identity
from services.actions.model.action import Whole
from services.actions.model.states import ActionState
from services.actions.store import actions
from services.actions.usecases import requests
from services.actions.usecases.policies import Policies
from services.actions.usecases.requests import EXECUTE
from services.actions.working import outcomes
from services.identity.__main__ import permission_table
from services.identity.model.membership import Role
from services.identity.rpc.identity import IdentityRpc
from services.identity.store import members as members_store
from services.identity.usecases import members, roles
from services.identity.usecases.organizations import NewOrganization, create_organization
from tests.integration.test_actions import ANN, BOB, Office, by, intended
from tests.support.postgres import TestDatabase
from tests.support.things import ACME, MovableClock, Unrotated, context, keys, serving

pytestmark = pytest.mark.services("actions", "identity")

ADA, CLEO, DAN, EVE, FAY = (UUID(int=number) for number in (0x71, 0x73, 0x74, 0x75, 0x76))
TABLE = permission_table()
READS, SNAPSHOT, DELETE = "ec2:DescribeVolumes", "ec2:CreateSnapshot", "ec2:DeleteVolume"


@dataclass
class Doorway:
    """Identity's answer, which may not come."""

    channel: grpc.aio.Channel
    is_down: bool = False
    asked: list[int] = field(default_factory=list)

    async def check_standing(self, organization_id: UUID, deciders: Any) -> Any:
        self.asked.append(len(deciders))
        if self.is_down:
            raise Unavailable(0, "identity doesn't answer.")  # type: ignore[arg-type]
        return await Identity(self.channel).check_standing(organization_id, deciders)


@dataclass
class Scene:
    """Actions, with a desk where a worker claims, and identity beside it."""

    office: Office
    desk: JobDesk
    identity: Store
    doorway: Doorway

    async def claim(self, made: Whole) -> set[str]:
        """Claim the execution as the worker does, and give it back; the AWS actions that it was granted."""
        job_id = await self.one(
            "SELECT job_id FROM actions.jobs WHERE subject_id = $1 AND kind = 'execute' ORDER BY created_at DESC",
            made.action.action_id,
        )
        with entered(context(None, peer="actions-worker", peer_thumbprint="x5t")):
            lease: Lease = await self.desk.claim(job_id)
        await self.one("UPDATE actions.jobs SET status = 'READY', lease_until = NULL WHERE job_id = $1", job_id)
        ((scope, _),) = lease.credential_grants
        return granted(scope)

    async def refused(self, made: Whole) -> Problem:
        with pytest.raises(Problem) as caught:
            await self.claim(made)
        return caught.value

    async def one(self, statement: str, *values: object) -> Any:
        superuser = await self.office.database.superuser()
        found = await superuser.fetchval(statement, *values)
        await superuser.close()
        return found

    async def told(self, action: str) -> int:
        return int(await self.one("SELECT count(*) FROM actions.outbox WHERE action = $1", action))

    async def read(self, made: Whole) -> Whole:
        async with self.office.api.read(ACME) as connection:
            action = await actions.get_action(connection, made.action.action_id)
            approvals = await actions.list_approvals(connection, [made.action.action_id])
        return Whole(action, approvals, (), ())

    async def decide(self, what: Any) -> None:
        call = context(ACME, actor=f"user:{ADA}", responsible_person=ADA, role="ADMIN", aal=2)
        with entered(call):
            async with self.identity.begin(ACME, call) as work:
                await what(work)

    async def remove(self, user: UUID) -> None:
        async def end(work: UnitOfWork) -> None:
            await members.remove_member(work, (await self.member(work, user)).member_id)

        await self.decide(end)

    async def demote(self, user: UUID, role: Role, limits: ResourceLimits | None = None) -> None:
        async def give(work: UnitOfWork) -> None:
            before = await self.member(work, user)
            await roles.give_role(work, before, role, None, limits or ResourceLimits())

        await self.decide(give)

    async def member(self, work: UnitOfWork, user: UUID) -> Any:
        found = await members_store.find_member_of_user(work.connection, ACME, user)
        assert found is not None
        return await members_store.get_active_member(work.connection, ACME, found.member_id)


def granted(scope: CredentialScope) -> set[str]:
    return {action for statement in scope.statements for action in statement["actions"]}


@pytest.fixture
async def scene(database: TestDatabase, tmp_path: Path) -> AsyncIterator[Scene]:
    clock, (key, trust) = MovableClock(), keys(tmp_path, "actions")
    logins = [database.role(name) for name in ("actions_api", "actions_worker", "actions_dispatcher", "identity_api")]
    api, worker, dispatcher, registry = logins
    identity = Store(registry, "identity", clock)
    people = ((ADA, Role.ADMIN), (ANN, Role.FINOPS), *((user, Role.APPROVER) for user in (BOB, CLEO, DAN, EVE, FAY)))
    named = tuple((user, f"{user.int}@acme.example", role) for user, role in people)
    await create_organization(identity, NewOrganization(ACME, "acme", "Acme", "UTC", "USD", named))
    rpc = IdentityRpc(SimpleNamespace(permissions=TABLE), identity, clock, None)  # type: ignore[arg-type]
    office = Office(
        database, clock, Store(api, "actions", clock), Store(worker, "actions", clock), Planner(key, "actions", clock)
    )
    serve = serving(
        lambda server: identity_service_pb2_grpc.add_IdentityServiceServicer_to_server(rpc, server), "actions"
    )
    async with serve as channel:
        doorway = Doorway(channel)
        policies = Policies(office.api, office.planner, doorway, Unrotated(), clock)  # type: ignore[arg-type]
        desk = JobDesk(
            office.api, dispatcher, key, trust, clock, {EXECUTE: policies.execute}, issuer="actions", profile="local"
        )
        yield Scene(office, desk, identity, doorway)
    for login in logins:
        await login.close()


async def test_who_asked_and_who_approved_are_asked_after_in_one_call(scene: Scene) -> None:
    made = await scene.office.approve(await scene.office.request())
    assert SNAPSHOT in await scene.claim(made)
    assert scene.doorway.asked == [2]


async def test_an_approval_ends_with_the_standing_of_who_gave_it(scene: Scene) -> None:
    """Before anything was done, the action waits for somebody else's approval again, by an event."""
    elsewhere = ResourceLimits((UUID(int=9),))
    ways = {
        "removed": (BOB, scene.remove(BOB)),
        "demoted": (DAN, scene.demote(DAN, Role.VIEWER)),
        "limited to other connections": (EVE, scene.demote(EVE, Role.APPROVER, elsewhere)),
        "a fresh approver": (FAY, scene.demote(FAY, Role.FINOPS)),
    }
    for number, (how, (approver, happens)) in enumerate(ways.items(), 1):
        made = await scene.office.approve(await scene.office.request(how), approver)
        await happens
        problem = await scene.refused(made)
        assert (type(problem), problem.metadata["state"]) == (WrongState, "STOPPED"), how
        found = await scene.read(made)
        assert found.action.state is ActionState.REQUESTED, how
        assert "needs another approval" in found.action.problem
        assert [each.counts for each in found.approvals] == [False]
        assert await scene.told("actions.action.reopen") == number
        jobs = await scene.office.jobs(made.action.action_id)
        assert jobs == [("execute", "CANCELLED"), ("expire", "CANCELLED"), ("expire", "READY")]
        # The same person's word doesn't bring it back, whatever they are by now; somebody else's does.
        with pytest.raises(WrongState, match="earlier"):
            await scene.office.approve(made, approver)
        with pytest.raises(Denied):
            await scene.office.approve(made, ANN)
        again = await scene.office.approve(made, CLEO)
        assert (again.action.state, again.action.problem) == (ActionState.APPROVED, "")
        assert [each.days for each in again.checkpoints] == [7, 14, 30]
        assert SNAPSHOT in await scene.claim(made)
    await void_for_good(scene)


async def void_for_good(scene: Scene) -> None:
    """No login of the service takes it back that an approval is void."""
    for login in ("actions_api", "actions_worker"):
        connection = await scene.office.database.login(login)
        for statement in ("DELETE FROM actions.approval_voids", "UPDATE actions.approval_voids SET person = person"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
        await connection.close()


async def test_what_was_asked_by_somebody_who_left_is_withdrawn(scene: Scene) -> None:
    """In person, or by a token of theirs: a token stands with whoever answers for it."""
    made = await scene.office.approve(await scene.office.request())
    with entered(by(ANN, "actions.action.request", actor=f"token:{UUID(int=5)}")) as call:
        async with scene.office.api.begin(ACME, call) as work:
            other = await requests.request_action(work, scene.office.planner, scene.office.gathered("vol-2"))
    await scene.office.approve(other)
    assert SNAPSHOT in await scene.claim(other)
    await scene.remove(ANN)
    for each, actor in ((made, f"user:{ANN}"), (other, f"token:{UUID(int=5)}")):
        assert isinstance(await scene.refused(each), WrongState)
        found = await scene.read(each)
        assert found.action.state is ActionState.CANCELLED
        assert f"{actor} isn't a member any more" in found.action.problem
    assert await scene.told("actions.action.withdraw") == 2


async def test_an_action_in_its_quarantine_ends_before_the_deletion(scene: Scene) -> None:
    """The snapshot stays, and is named; nothing irreversible was done."""
    made = await scene.office.approve(await scene.office.request())
    step = await intended(scene.office, made)
    async with scene.office.worker.begin(ACME) as work:
        await actions.mark_step(work.connection, step, state="CONFIRMED", result_id="snap-1", confirmed_at=work.now)
        action = await actions.get_action(work.connection, made.action.action_id)
        until = work.now + timedelta(hours=24)
        await actions.mark_action(work.connection, action, ActionState.QUARANTINED, quarantined_until=until)
        work.emit("actions.action.quarantine", made.action.target)
    scene.office.clock.ahead += timedelta(hours=25)
    assert DELETE in await scene.claim(made)
    await scene.remove(BOB)
    assert isinstance(await scene.refused(made), WrongState)
    found = await scene.read(made)
    assert found.action.state is ActionState.CANCELLED
    assert "kept: snap-1" in found.action.problem
    assert [each.counts for each in found.approvals] == [False]


async def test_what_was_sent_is_found_out_whoever_left(scene: Scene) -> None:
    """A change on its way is read to its end, with readings only; what stands afterwards is decided then."""
    made = await scene.office.approve(await scene.office.request())
    step = await intended(scene.office, made)
    await scene.remove(BOB)
    held = await scene.claim(made)
    assert READS in held
    assert not held & {SNAPSHOT, DELETE}
    async with scene.office.worker.begin(ACME) as work:
        await outcomes.not_applied(work, made.action, step)
    assert isinstance(await scene.refused(made), WrongState)
    assert (await scene.read(made)).action.state is ActionState.REQUESTED


async def test_while_identity_is_away_the_action_waits_and_says_so_once(scene: Scene) -> None:
    made = await scene.office.approve(await scene.office.request())
    scene.doorway.is_down = True
    for _ in range(3):
        assert isinstance(await scene.refused(made), Unavailable)
    held = (await scene.read(made)).action
    assert (held.state, "identity doesn't answer" in held.problem) == (ActionState.APPROVED, True)
    assert await scene.told("actions.action.hold") == 1
    scene.doorway.is_down = False
    assert SNAPSHOT in await scene.claim(made)
    assert (await scene.read(made)).action.problem == ""
    assert await scene.told("actions.action.resume") == 1
    # Whoever waits can be withdrawn from, without anybody's leave but their own.
    scene.doorway.is_down = True
    assert (await scene.office.cancel(made)).action.state is ActionState.CANCELLED
