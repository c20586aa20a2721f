"""Organizations: how the platform begins and suspends them, who owns them, leaving, and everybody's default."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from uuid import UUID, uuid4

import pytest

from services._mesh.context import entered
from services._mesh.errors import AlreadyExists, Denied, Invalid, NotFound, WrongState
from services._mesh.ids import PLATFORM
from services._mesh.uow import UnitOfWork
from services.identity.__main__ import permission_table
from services.identity.model.membership import Member, Organization, Role
from services.identity.store.organizations import find_organization
from services.identity.usecases import endings, joining, members, organizations, own_membership, ownership, platform
from services.identity.usecases.organizations import NewOrganization, OrganizationChange
from services.identity.usecases.platform import NewTenant
from tests.support.identity import ADMIN, CLERK, GLOBAL_ADMIN, SECOND, Registry, registry
from tests.support.postgres import TestDatabase
from tests.support.things import ACME, GLOBEX, context, linked_passport

pytestmark = pytest.mark.services("identity")
TABLE = permission_table()
OPERATOR = UUID(int=0x81)
FIRST = "first@initech.example"


@pytest.fixture
async def made(database: TestDatabase) -> AsyncIterator[Registry]:
    async with registry(database) as found:
        yield found


def tenant(slug: str = "initech", time_zone: str = "", address: str = FIRST) -> NewTenant:
    return NewTenant(slug, "Initech", time_zone, "", address, 0)


async def owner(made: Registry, organization: UUID = ACME) -> UUID | None:
    async with made.store.read(organization) as connection:
        found = await find_organization(connection, organization)
    assert found is not None
    return found.owner_member_id


async def test_the_platform_creates_an_organization_by_inviting_its_first_admin(made: Registry) -> None:
    new = uuid4()
    organization, invitation, secret = await made.decide(
        lambda work: platform.create_organization(work, tenant()), OPERATOR, new, "identity.organization.create"
    )
    assert (organization.time_zone, organization.reporting_currency) == ("UTC", "USD")
    assert invitation.role is Role.ADMIN
    assert await owner(made, new) is None
    found = await joining.find_invitation(made.store, secret, new)
    user = uuid4()

    async def accept() -> Member:
        return await made.decide(
            lambda work: joining.accept_invitation(work, TABLE, found.invitation_id, FIRST), user, new, role="ADMIN"
        )

    with pytest.raises(WrongState, match="may not invite"):  # Nobody of the platform's, or nobody any more.
        await accept()
    of_platform = ((OPERATOR, "op@platform.example", Role.ADMIN),)
    await organizations.create_organization(
        made.store, NewOrganization(PLATFORM, "platform", "Platform", "UTC", "USD", of_platform)
    )
    member = await accept()
    assert await owner(made, new) == member.member_id
    created = (await made.events("identity.organization.create", new))[0]
    assert created["actor"] == f"user:{OPERATOR}"
    assert created["metadata"] == {"before": {}, "after": {"slug": "initech", "state": "ACTIVE"}}
    # The platform's Admin is nobody in it.
    with pytest.raises(AssertionError):
        await made.member(OPERATOR, new)


async def test_a_short_name_is_taken_once(made: Registry) -> None:
    for wrong, problem in (
        (tenant("acme"), AlreadyExists),
        (tenant("platform"), Invalid),
        (tenant("x", "Mars"), Invalid),
    ):
        with pytest.raises(problem):
            await made.decide(partial(platform.create_organization, given=wrong), OPERATOR, uuid4())
    with pytest.raises(Invalid, match="ASCII"):
        await made.decide(
            lambda work: platform.create_organization(work, tenant(address="\u00e9@x.example")), OPERATOR, uuid4()
        )
    assert len(await made.rows("SELECT FROM identity.organizations")) == 2


async def test_of_two_edits_of_one_etag_one_is_made(made: Registry) -> None:
    async with made.store.read(ACME) as connection:
        found = await find_organization(connection, ACME)
    assert found is not None
    begun = asyncio.Barrier(2)

    async def rename(name: str) -> Organization:
        async def decide(work: UnitOfWork) -> Organization:
            await begun.wait()
            return await organizations.update_organization(work, OrganizationChange(name, "", "", found.etag))

        return await made.decide(decide, action="identity.organization.update")

    ended = await asyncio.gather(rename("One"), rename("Two"), return_exceptions=True)
    assert sorted(type(each).__name__ for each in ended) == ["Conflict", "Organization"]
    (event,) = await made.events("identity.organization.update")
    assert event["metadata"]["before"] == {"display_name": "Acme Inc."}


async def test_a_suspended_organization_rests_until_it_is_resumed(made: Registry) -> None:
    suspended = await made.decide(
        lambda work: platform.suspend_organization(work, "unpaid"), OPERATOR, action="identity.organization.suspend"
    )
    assert suspended.state == "SUSPENDED"
    assert await made.revoked() == [("ORGANIZATION", str(ACME))]
    with pytest.raises(WrongState):
        await made.decide(lambda work: platform.suspend_organization(work, "again"))
    resumed = await made.decide(lambda work: platform.resume_organization(work, "paid"), OPERATOR)
    assert resumed.state == "ACTIVE"
    with pytest.raises(WrongState):
        await made.decide(lambda work: platform.resume_organization(work, "again"))
    (event,) = await made.events("identity.organization.suspend")
    assert event["metadata"]["before"] == {"state": "ACTIVE"}
    assert event["metadata"]["after"] == {"state": "SUSPENDED"}
    assert event["metadata"]["reason"] == "unpaid"


async def test_what_cannot_be_suspended(made: Registry) -> None:
    with pytest.raises(Invalid, match="nobody could resume it"):
        await made.decide(lambda work: platform.suspend_organization(work, "x"), OPERATOR, PLATFORM)
    with pytest.raises(NotFound):
        await made.decide(lambda work: platform.suspend_organization(work, "x"), OPERATOR, uuid4())


async def test_nobody_joins_a_suspended_organization(made: Registry) -> None:
    from services.identity.usecases.invitations import create_invitation

    _, secret = await made.decide(lambda work: create_invitation(work, FIRST, Role.VIEWER, 0))
    await made.decide(lambda work: platform.suspend_organization(work, "unpaid"), OPERATOR)
    found = await joining.find_invitation(made.store, secret, None)
    with pytest.raises(WrongState, match="suspended"):
        await made.decide(lambda work: joining.accept_invitation(work, TABLE, found.invitation_id, FIRST), uuid4())


async def test_the_owner_is_the_first_admin_and_stays_until_they_hand_over(made: Registry) -> None:
    first, second, clerk = [await made.member(user) for user in (ADMIN, SECOND, CLERK)]
    assert await owner(made) == first.member_id
    for change in (
        lambda work: members.remove_member(work, first.member_id),
        lambda work: members.update_member(work, first.member_id, Role.VIEWER, first.etag),
        lambda work: endings.end_membership(work, first, "removed"),
    ):
        with pytest.raises(WrongState) as caught:
            await made.decide(change, SECOND)
        assert caught.value.reason_name == "OWNER_STAYS"
    with pytest.raises(WrongState):
        await made.decide(lambda work: own_membership.leave_organization(work, "acme"))
    with pytest.raises(Denied) as denied:
        await made.decide(lambda work: ownership.transfer_ownership(work, second.member_id), SECOND)
    assert denied.value.reason_name == "OWNER_ONLY"
    for wrong in (clerk.member_id, first.member_id):
        with pytest.raises(WrongState):
            await made.decide(partial(ownership.transfer_ownership, member_id=wrong))
    changed = await made.decide(lambda work: ownership.transfer_ownership(work, second.member_id))
    assert changed.owner_member_id == await owner(made) == second.member_id
    await made.decide(lambda work: own_membership.leave_organization(work, "acme"), action="identity.member.leave")
    event = (await made.events("identity.ownership.transfer"))[-1]
    assert event["metadata"]["before"] == {"member_id": str(first.member_id)}
    assert event["metadata"]["after"] == {"member_id": str(second.member_id)}


async def test_a_directory_that_ends_the_owner_leaves_another(made: Registry) -> None:
    first, second = await made.member(ADMIN), await made.member(SECOND)
    await made.decide(lambda work: endings.end_membership(work, first, "directory", hands_over=True))
    assert await owner(made) == second.member_id
    assert (await made.member(ADMIN)).state == "REMOVED"


async def test_the_platform_replaces_an_owner_who_is_out_of_reach(made: Registry) -> None:
    second, clerk = await made.member(SECOND), await made.member(CLERK)
    with pytest.raises(WrongState):
        await made.decide(lambda work: ownership.reassign_ownership(work, clerk.member_id, "asked"), OPERATOR)
    with pytest.raises(NotFound):
        await made.decide(lambda work: ownership.reassign_ownership(work, uuid4(), "asked"), OPERATOR)
    await made.decide(
        lambda work: ownership.reassign_ownership(work, second.member_id, "case 7"),
        OPERATOR,
        action="identity.ownership.reassign",
    )
    assert await owner(made) == second.member_id
    assert (await made.events("identity.ownership.reassign"))[0]["metadata"]["reason"] == "case 7"


async def test_leaving_ends_ones_own_membership_alone(made: Registry) -> None:
    with pytest.raises(Invalid, match="short name"):
        await made.decide(lambda work: own_membership.leave_organization(work, "globex"), CLERK)
    with pytest.raises(Denied, match="second factor"):
        await made.decide(lambda work: own_membership.leave_organization(work, "acme"), SECOND, aal=1)
    await made.decide(lambda work: own_membership.leave_organization(work, "acme"), CLERK, role="VIEWER", aal=1)
    assert [(await made.member(user)).state for user in (ADMIN, SECOND, CLERK)] == ["ACTIVE", "ACTIVE", "REMOVED"]
    assert await made.revoked() == [("MEMBER", f"{ACME}/user:{CLERK}")]
    (event,) = await made.events("identity.member.leave")
    assert event["metadata"]["after"] == {"role": "VIEWER", "state": "REMOVED"}
    with pytest.raises(NotFound):
        await made.decide(lambda work: own_membership.leave_organization(work, "acme"), CLERK)
    # A token has no membership of its own to leave.
    with pytest.raises(NotFound):
        await made.decide(lambda work: own_membership.leave_organization(work, "acme"), actor=f"token:{uuid4()}")


async def test_a_login_sees_its_own_organizations_and_a_bound_one_its_own(made: Registry) -> None:
    """Whoever acme says is one person with a globex Admin sees nothing of globex by that."""

    async def seen(user: UUID, person: UUID, bound: UUID | None) -> tuple[list[str], UUID | None]:
        passport = replace(linked_passport(person), actor=f"user:{user}", rests_on=(f"user:{user}",))
        call = context(None, actor=f"user:{user}", responsible_person=person)
        with entered(replace(call, passport=replace(passport, organization_id=bound))):
            mine = await organizations.list_my_organizations(made.store)
            return [each.slug for each, _ in mine], await own_membership.my_default_organization(made.store)

    assert await seen(CLERK, GLOBAL_ADMIN, ACME) == (["acme"], ACME)
    assert await seen(CLERK, GLOBAL_ADMIN, None) == (["acme"], ACME)
    await made.decide(lambda work: members.add_member(work, CLERK, "c@x.example", Role.VIEWER), GLOBAL_ADMIN, GLOBEX)
    assert await seen(CLERK, CLERK, ACME) == (["acme"], ACME)
    assert (await seen(CLERK, CLERK, None))[0] == ["acme", "globex"]


async def test_the_default_is_what_the_person_chose_last(made: Registry) -> None:
    async def default(user: UUID) -> UUID | None:
        return await own_membership.default_organization(made.store, user)

    async def choose(organization: UUID) -> None:
        await made.decide(own_membership.set_default_organization, CLERK, organization)

    assert (await default(CLERK), await default(uuid4())) == (ACME, None)  # The only one there is; none.
    await made.decide(
        lambda work: members.add_member(work, CLERK, "cleo@globex.example", Role.VIEWER), GLOBAL_ADMIN, GLOBEX
    )
    assert await default(CLERK) is None
    await choose(GLOBEX)
    assert await default(CLERK) == GLOBEX
    await choose(ACME)
    assert await default(CLERK) == ACME
    # Suspended, it is no choice; left, it is none, and coming back doesn't make it one again.
    await made.decide(lambda work: platform.suspend_organization(work, "x"), OPERATOR)
    assert await default(CLERK) == GLOBEX
    await made.decide(lambda work: platform.resume_organization(work, "x"), OPERATOR)
    await made.decide(lambda work: own_membership.leave_organization(work, "acme"), CLERK)
    assert await default(CLERK) == GLOBEX
    await made.decide(lambda work: members.add_member(work, CLERK, "cleo@acme.example", Role.VIEWER))
    assert await default(CLERK) == GLOBEX
    with pytest.raises(NotFound):
        await made.decide(own_membership.set_default_organization, SECOND, GLOBEX)
    # It isn't an edit of what Admins see.
    before = await made.member(CLERK)
    await choose(ACME)
    assert (await made.member(CLERK)).etag == before.etag
