"""Whatever is done to an organization's members, in whatever order and at once: an Admin stays, and owns it.

A state machine over the use cases as their RPCs call them, on a real PostgreSQL: one organization for each run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from services._mesh.errors import Problem
from services._mesh.resource_limits import ResourceLimits
from services._mesh.uow import UnitOfWork
from services.identity.__main__ import permission_table
from services.identity.model.membership import Member, Role
from services.identity.store import members as members_store
from services.identity.usecases import (
    invitations,
    joining,
    members,
    organizations,
    own_membership,
    ownership,
    platform,
    roles,
)
from services.identity.usecases.organizations import NewOrganization
from services.identity.usecases.scim import membership
from tests.support.identity import Registry, registry
from tests.support.postgres import TestDatabase

pytestmark = pytest.mark.services("identity")
TABLE = permission_table()
SLUG = "machine"
Work = Callable[[UnitOfWork], Awaitable[object]]
WHO, ROLE = st.integers(0, 5), st.sampled_from([Role.ADMIN, Role.ADMIN, Role.FINOPS, Role.VIEWER])
RECRUITER = ("identity.member.read", "identity.member.update", "identity.role.assign")


class LastAdmin(RuleBasedStateMachine):
    """Hypothesis calls the rules from a thread of its own; what they do, the test's loop does."""

    registry: Registry
    loop: asyncio.AbstractEventLoop
    done: int = 0

    def run(self, asked: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(asked, self.loop).result(30)

    def attempt(self, by: Member, *what: Work) -> None:
        """Decisions of a member's, all at once; each may be refused, and only for a reason."""

        async def decide(each: Work) -> None:
            try:
                await self.registry.decide(each, by.user_id, self.organization)
                type(self).done += 1
            except Problem:
                pass

        async def all_of_them() -> None:
            await asyncio.gather(*map(decide, what))

        self.run(all_of_them())

    def people(self) -> list[Member]:
        async def read() -> list[Member]:
            async with self.registry.store.read(self.organization) as connection:
                return await members_store.list_members(connection, None, 50)

        found: list[Member] = self.run(read())
        return found

    def member(self, number: int) -> Member:
        found = self.people()
        return found[number % len(found)]

    @initialize()
    def begin(self) -> None:
        self.organization = uuid4()
        self.slug = f"{SLUG}-{self.organization.hex[:12]}"
        people = ((uuid4(), "a@x.example", Role.ADMIN), (uuid4(), "b@x.example", Role.ADMIN))
        given = NewOrganization(self.organization, self.slug, "M", "UTC", "USD", people)
        self.run(organizations.create_organization(self.registry.store, given))

    @rule(by=WHO, role=ROLE)
    def somebody_is_invited_and_comes(self, by: int, role: Role) -> None:
        address, user, made = f"{uuid4().hex[:8]}@x.example", uuid4(), []

        async def invite(work: UnitOfWork) -> None:
            await roles.require_may_give(work, TABLE, role)
            made.append((await invitations.create_invitation(work, address, role, 0))[0])

        self.attempt(self.member(by), invite)
        if made:
            comes = self.person(user)
            self.attempt(comes, lambda w: joining.accept_invitation(w, TABLE, made[0].invitation_id, address))

    def person(self, user: UUID) -> Member:
        return SimpleNamespace(user_id=user)  # type: ignore[return-value]

    @rule(by=WHO, whom=WHO, role=ROLE)
    def a_role_is_changed(self, by: int, whom: int, role: Role) -> None:
        target = self.member(whom)

        async def change(work: UnitOfWork) -> None:
            await roles.require_may_give(work, TABLE, role)
            await roles.require_may_change(work, TABLE, target.member_id)
            await members.update_member(work, target.member_id, role, target.etag)

        self.attempt(self.member(by), change)

    @rule(by=WHO, whom=WHO, custom=st.booleans())
    def a_role_is_assigned(self, by: int, whom: int, custom: bool) -> None:
        target = self.member(whom)

        async def assign(work: UnitOfWork) -> None:
            role = await roles.create_role(work, TABLE, f"r-{uuid4().hex[:8]}", "", RECRUITER) if custom else None
            given = roles.Assignment(
                target.member_id, None if role else Role.APPROVER, role.role_id if role else None,
                ResourceLimits(), target.etag,
            )  # fmt: skip
            await roles.assign_role(work, TABLE, given)

        self.attempt(self.member(by), assign)

    @rule(by=WHO, whom=WHO)
    def a_member_is_removed(self, by: int, whom: int) -> None:
        self.attempt(self.member(by), self.removal(self.member(whom)))

    def removal(self, target: Member) -> Work:
        async def remove(work: UnitOfWork) -> None:
            await roles.require_may_change(work, TABLE, target.member_id)
            await members.remove_member(work, target.member_id)

        return remove

    @rule()
    def all_admins_remove_each_other_at_once(self) -> None:
        admins = [each for each in self.people() if each.role is Role.ADMIN]
        self.attempt(admins[0], *(self.removal(each) for each in admins))

    @rule(who=WHO)
    def a_member_leaves(self, who: int) -> None:
        self.attempt(self.member(who), lambda w: own_membership.leave_organization(w, self.slug))

    @rule(by=WHO, heir=WHO)
    def the_ownership_is_handed_over(self, by: int, heir: int) -> None:
        target = self.member(heir)
        self.attempt(self.member(by), lambda w: ownership.transfer_ownership(w, target.member_id))

    @rule(by=WHO, whom=WHO)
    def a_directory_deactivates(self, by: int, whom: int) -> None:
        gone: Any = SimpleNamespace(user_id=self.member(whom).user_id, email="")
        self.attempt(self.member(by), lambda w: membership.deactivate(w, gone))

    @rule(by=WHO, whom=WHO)
    def a_directory_deactivates_while_they_are_demoted(self, by: int, whom: int) -> None:
        target = self.member(whom)
        gone: Any = SimpleNamespace(user_id=target.user_id, email="")
        viewer: Any = SimpleNamespace(role=Role.VIEWER, custom=None)
        others = [each for each in self.people() if each.member_id != target.member_id][:2]
        self.attempt(
            self.member(by),
            lambda w: membership.deactivate(w, gone),
            *(lambda w, m=each: membership.give(w, m, viewer) for each in others),
        )

    @rule(by=WHO)
    def the_organization_is_suspended_and_resumed(self, by: int) -> None:
        admin = self.member(by)
        self.attempt(admin, lambda w: platform.suspend_organization(w, "unpaid bills"))
        self.attempt(admin, lambda w: platform.resume_organization(w, "paid bills"))

    @invariant()
    def an_admin_stays_and_owns_it(self) -> None:
        admins = {each.member_id for each in self.people() if each.role is Role.ADMIN}
        assert admins, "nobody can let anybody in any more"
        owner = self.run(
            self.registry.rows(
                "SELECT member_id FROM identity.ownerships WHERE organization_id = $1", self.organization
            )
        )
        assert [row["member_id"] in admins for row in owner] == [True], "whoever owns it isn't an Admin of it"


async def test_the_last_admin_stays_whatever_is_done(database: TestDatabase) -> None:
    async with registry(database) as made:
        LastAdmin.registry, LastAdmin.loop, LastAdmin.done = made, asyncio.get_running_loop(), 0
        bounded = settings(
            max_examples=8, stateful_step_count=12, deadline=None, derandomize=True, database=None,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        await asyncio.to_thread(run_state_machine_as_test, LastAdmin, settings=bounded)
        assert LastAdmin.done > 40  # So that not all of it was refused.
