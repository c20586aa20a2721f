"""Members: what ends with a membership, the last Admin, and who is one person."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from services._mesh.errors import AlreadyExists, Denied, NotFound, Problem, WrongState
from services._mesh.uow import UnitOfWork
from services.identity.model.membership import Member, Role, fold_address
from services.identity.model.persons import Login, LoginKind
from services.identity.usecases import endings, members, own_membership, persons
from tests.support.identity import ADMIN, CLERK, GLOBAL_ADMIN, SECOND, Registry, registry
from tests.support.postgres import TestDatabase
from tests.support.things import ACME, GLOBEX

pytestmark = pytest.mark.services("identity")


@pytest.fixture
async def made(database: TestDatabase) -> AsyncIterator[Registry]:
    async with registry(database) as found:
        yield found


async def test_a_membership_ends_with_all_that_rests_on_it(made: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[tuple[UUID, str]] = []

    async def end_things(work: UnitOfWork, member: Member) -> int:
        ended.append((work.organization_id, member.actor))
        return 3

    monkeypatch.setattr(endings, "ENDINGS", (("sessions", endings.end_sessions), ("things", end_things)))
    clerk = await made.member(CLERK)
    await made.decide(lambda work: endings.end_membership(work, clerk, "directory"), action="identity.member.remove")
    assert (await made.member(CLERK)).state == "REMOVED"
    assert ended == [(ACME, f"user:{CLERK}")]
    assert await made.revoked() == [("MEMBER", f"{ACME}/user:{CLERK}")]
    (event,) = await made.events("identity.member.remove")
    assert event["metadata"] == {
        "before": {"role": "VIEWER", "state": "ACTIVE"},
        "after": {"role": "VIEWER", "state": "REMOVED"},
        "user_id": str(CLERK),
        "reason": "directory",
        "ended": {"sessions": "1", "things": "3"},
    }
    with pytest.raises(NotFound):
        await made.decide(lambda work: endings.end_membership(work, clerk, "directory"))


async def test_what_cannot_end_keeps_the_membership(made: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(work: UnitOfWork, member: Member) -> int:
        raise WrongState(1, "not now")  # type: ignore[arg-type]

    monkeypatch.setattr(endings, "ENDINGS", (*endings.ENDINGS, ("things", fail)))
    clerk = await made.member(CLERK)
    with pytest.raises(WrongState):
        await made.decide(lambda work: endings.end_membership(work, clerk, "removed"))
    assert (await made.member(CLERK)).state == "ACTIVE"
    assert await made.revoked() == []


async def test_every_change_tells_before_and_after(made: Registry) -> None:
    clerk = await made.member(CLERK)
    await made.decide(lambda work: members.update_member(work, clerk.member_id, Role.AUDITOR, clerk.etag))
    await made.decide(lambda work: members.remove_member(work, clerk.member_id))
    await made.decide(lambda work: members.add_member(work, CLERK, "cleo@acme.example", Role.FINOPS))
    (updated,) = await made.events("identity.member.update")
    assert (updated["metadata"]["before"], updated["metadata"]["after"]) == ({"role": "VIEWER"}, {"role": "AUDITOR"})
    added = (await made.events("identity.member.add"))[-1]["metadata"]
    assert added["before"] == {"role": "AUDITOR", "state": "REMOVED"}
    assert added["after"] == {"role": "FINOPS", "state": "ACTIVE"}
    # A demoted member's passports are void at once, too.
    assert [kind for kind, key in await made.revoked() if key.endswith(str(CLERK))] == ["MEMBER", "MEMBER"]


async def test_the_last_admin_stays(made: Registry) -> None:
    first, second = await made.member(ADMIN), await made.member(SECOND)
    await made.decide(lambda work: members.update_member(work, second.member_id, Role.VIEWER, second.etag))
    for change in (
        lambda work: members.remove_member(work, first.member_id),
        lambda work: members.update_member(work, first.member_id, Role.FINOPS, first.etag),
        lambda work: endings.end_membership(work, first, "directory", hands_over=True),
        lambda work: own_membership.leave_organization(work, "acme"),
    ):
        with pytest.raises(WrongState) as caught:
            await made.decide(change)
        assert caught.value.metadata["state"] == "LAST_ADMIN"
    assert (await made.member(ADMIN)).role is Role.ADMIN


async def test_two_admins_who_go_at_once_leave_one(made: Registry) -> None:
    """Both transactions are open before either looks at anything. A directory ends an owner's membership, too."""
    for _ in range(5):
        both = [await made.member(ADMIN), await made.member(SECOND)]
        begun = asyncio.Barrier(2)
        ended = await asyncio.gather(_end(made, both[0], SECOND, begun), _end(made, both[1], ADMIN, begun))
        (refused,) = [each for each in ended if each is not None]
        assert refused.metadata["state"] == "LAST_ADMIN"
        gone = both[ended.index(None)]
        await made.decide(partial(members.add_member, user_id=gone.user_id, email=gone.email, role=Role.ADMIN))


async def _end(made: Registry, member: Member, by: UUID, begun: asyncio.Barrier) -> Problem | None:
    async def decide(work: UnitOfWork) -> None:
        await begun.wait()
        await endings.end_membership(work, member, "directory", hands_over=True)

    try:
        await made.decide(decide, by)
    except Problem as problem:
        return problem
    return None


async def test_the_data_itself_keeps_the_last_admin(made: Registry) -> None:
    """For code that forgets to ask: whatever it does, and however many do it at once."""

    async def demote(user: UUID, begun: asyncio.Barrier) -> None:
        async def decide(work: UnitOfWork) -> None:
            await work.execute(
                text("UPDATE identity.members SET role = 'VIEWER' WHERE user_id = :user"), {"user": user}
            )
            work.emit("identity.member.update", "members/x")
            await begun.wait()

        await made.decide(decide)

    begun = asyncio.Barrier(2)
    ended = await asyncio.gather(demote(ADMIN, begun), demote(SECOND, begun), return_exceptions=True)
    (refused,) = [each for each in ended if each is not None]
    assert "the last Admin of an organization stays" in str(refused)


async def test_one_address_is_one_person(made: Registry) -> None:
    twin = uuid4()
    await made.decide(lambda work: members.add_member(work, twin, "CLEO@acme.example", Role.APPROVER))
    assert await person(made, twin) == await person(made, CLERK) == CLERK
    (event,) = await made.events("identity.person.link")
    assert event["metadata"]["why"] == "the same address"
    assert "cleo" not in str(event).lower()
    # The Kelvin sign isn't a k, and globex knows nothing of it.
    other = uuid4()
    await made.decide(lambda work: members.add_member(work, other, "cleo@acme.example\u212a", Role.APPROVER))
    assert await person(made, other) == other
    assert await person(made, twin, GLOBEX) == twin


async def test_linking_joins_whole_persons_and_unlinking_parts_one(made: Registry) -> None:
    third, fourth = uuid4(), uuid4()
    for address, user in (("3@acme.example", third), ("4@acme.example", fourth)):
        await made.decide(partial(members.add_member, user_id=user, email=address, role=Role.VIEWER))
    ids = {user: (await made.member(user)).member_id for user in (CLERK, third, fourth, SECOND)}
    await made.decide(lambda work: persons.link_member(work, ids[third], ids[CLERK]))
    await made.decide(lambda work: persons.link_member(work, ids[fourth], ids[third]))
    await made.decide(lambda work: persons.link_member(work, ids[CLERK], ids[SECOND]))
    assert {await person(made, user) for user in (CLERK, third, fourth, SECOND)} == {SECOND}
    assert await users(made, SECOND) == {CLERK, third, fourth, SECOND}
    everybody = {("MEMBER", f"{ACME}/user:{user}") for user in (CLERK, third, fourth, SECOND)}
    assert set((await made.revoked())[-4:]) == everybody
    with pytest.raises(AlreadyExists):
        await made.decide(lambda work: persons.link_member(work, ids[fourth], ids[CLERK]))
    # Nobody widens what they themself may: not under any of their users.
    for user in (SECOND, fourth):
        with pytest.raises(Denied) as caught:
            await made.decide(
                lambda work: persons.unlink_member(work, ids[third]), user, responsible_person=await person(made, user)
            )
        assert caught.value.reason_name == "OWN_PERSON"
    before = len(await made.revoked())
    await made.decide(lambda work: persons.unlink_member(work, ids[SECOND]))
    assert set((await made.revoked())[before:]) == everybody
    assert await person(made, SECOND) == SECOND
    rest = {await person(made, user) for user in (CLERK, third, fourth)}
    assert len(rest) == 1
    assert rest <= {CLERK, third, fourth}
    with pytest.raises(NotFound):
        await made.decide(lambda work: persons.unlink_member(work, ids[SECOND]))
    (event,) = await made.events("identity.person.unlink")
    assert event["metadata"] == {"before": {"person": str(SECOND)}, "after": {"person": str(SECOND)}}


async def test_a_login_never_moves_to_another_user(made: Registry) -> None:
    login = Login(LoginKind.SAML, "idp-1", "name-1")
    linked = await made.decide(lambda work: persons.link_identity(work, login, CLERK))
    assert await made.decide(lambda work: persons.link_identity(work, login, CLERK)) == linked
    with pytest.raises(AlreadyExists):
        await made.decide(lambda work: persons.link_identity(work, login, SECOND))
    # Another organization's login of that name is its own.
    theirs = await made.decide(lambda work: persons.link_identity(work, login, GLOBAL_ADMIN), GLOBAL_ADMIN, GLOBEX)
    assert theirs.identity_id != linked.identity_id
    await made.decide(lambda work: persons.unlink_identity(work, login))
    with pytest.raises(NotFound):
        await made.decide(lambda work: persons.unlink_identity(work, login))
    assert (await made.decide(lambda work: persons.link_identity(work, login, CLERK))).state == "ACTIVE"
    assert [e["metadata"]["after"]["state"] for e in await made.events("identity.login.link")] == ["ACTIVE"] * 2


async def person(made: Registry, user: UUID, organization: UUID = ACME) -> UUID:
    async with made.store.read(organization) as connection:
        return await persons.responsible_person(connection, organization, user)


async def users(made: Registry, person_id: UUID) -> frozenset[UUID]:
    async with made.store.read(ACME) as connection:
        return await persons.users_of_person(connection, ACME, person_id)


def test_addresses_are_compared_by_their_ascii_letters() -> None:
    assert fold_address("Ada.L+x@ACME.example") == "ada.l+x@acme.example"
    assert fold_address("\u212aim@acme.example") == "\u212aim@acme.example"
