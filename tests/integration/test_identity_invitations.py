"""Invitations: for one address and one organization, once, until they expire; and nothing about them can be edited."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy import text

from services._mesh.errors import AlreadyExists, Denied, Exhausted, Invalid, NotFound, Problem, WrongState
from services._mesh.resource_limits import ResourceLimits
from services._mesh.uow import UnitOfWork
from services.identity.__main__ import permission_table
from services.identity.model import invitations as model
from services.identity.model.invitations import Invitation
from services.identity.model.membership import Member, Role
from services.identity.store.invitations import list_invitations
from services.identity.usecases import endings, invitations, joining, members, roles
from tests.support.identity import ADMIN, CLERK, SECOND, Registry, registry
from tests.support.postgres import TestDatabase
from tests.support.things import ACME, GLOBEX

pytestmark = pytest.mark.services("identity")
TABLE = permission_table()
EVE = "eve@new.example"


@pytest.fixture
async def made(database: TestDatabase) -> AsyncIterator[Registry]:
    async with registry(database) as found:
        yield found


async def invite(
    made: Registry, email: str = EVE, role: Role = Role.APPROVER, hours: int = 0, by: UUID = ADMIN
) -> tuple[Invitation, str]:
    return await made.decide(lambda work: invitations.create_invitation(work, email, role, hours), by)


async def accept(made: Registry, secret: str, address: str = EVE, user: UUID | None = None, **facts: Any) -> Member:
    """As the RPC does it: found by the secret alone, and then in the organization that it is of."""
    found = await joining.find_invitation(made.store, secret, None)
    return await made.decide(
        lambda work: joining.accept_invitation(work, TABLE, found.invitation_id, address),
        user or uuid4(),
        found.organization_id,
        "identity.invitation.accept",
        **{"role": found.role.value, **facts},
    )


async def test_who_is_invited_becomes_a_member_once(made: Registry) -> None:
    invitation, secret = await invite(made, "Eve@NEW.example")
    eve = uuid4()
    member = await accept(made, secret, "eve@new.EXAMPLE", eve)
    assert (member.user_id, member.role, member.email) == (eve, Role.APPROVER, EVE)
    for user in (eve, uuid4()):
        with pytest.raises(WrongState) as caught:
            await accept(made, secret, user=user)
        assert caught.value.reason_name == "INVITATION_USED"
    (event,) = await made.events("identity.invitation.accept")
    assert (event["actor"], event["role"]) == (f"user:{eve}", "APPROVER")
    assert event["metadata"]["before"] == {"state": "PENDING"}
    assert event["metadata"]["after"] == {"state": "ACCEPTED", "member_id": str(member.member_id)}
    assert event["target"] == f"invitations/{invitation.invitation_id}"


async def test_of_many_who_accept_at_once_one_does(made: Registry) -> None:
    _, secret = await invite(made)
    begun = asyncio.Barrier(4)

    async def one() -> Problem | None:
        found = await joining.find_invitation(made.store, secret, None)

        async def decide(work: UnitOfWork) -> None:
            await begun.wait()
            await joining.accept_invitation(work, TABLE, found.invitation_id, EVE)

        try:
            await made.decide(decide, uuid4())
        except Problem as problem:
            return problem
        return None

    ended = await asyncio.gather(*(one() for _ in range(4)))
    assert sorted(each.reason_name if each else "" for each in ended) == ["", *["INVITATION_USED"] * 3]
    rows = await made.rows("SELECT FROM identity.members WHERE email = $1", EVE)
    assert len(rows) == 1


async def test_a_secret_is_kept_nowhere(made: Registry) -> None:
    invitation, secret = await invite(made)
    assert secret.startswith("rcp_inv_")
    assert len(secret) >= len("rcp_inv_") + 43  # 256 bits
    (row,) = await made.rows("SELECT secret_digest FROM identity.invitations")
    assert row["secret_digest"] == hashlib.sha256(secret.encode()).digest()
    kept = str(await made.rows("SELECT payload FROM identity.outbox")) + repr(invitation)
    assert secret not in kept
    assert EVE not in str(await made.rows("SELECT payload FROM identity.outbox"))


async def test_a_stranger_with_the_secret_learns_nothing(made: Registry) -> None:
    """Whatever became of the invitation, the answer to another address is the same one."""
    invitation, secret = await invite(made)

    async def told(address: str) -> str:
        with pytest.raises(Denied) as caught:
            await accept(made, secret, address)
        assert "acme" not in caught.value.message.lower()
        assert EVE not in caught.value.message
        assert not caught.value.metadata
        return caught.value.reason_name

    assert await told("mallory@new.example") == "INVITATION_FOR_ANOTHER"
    assert await told("eve@new.example.example") == "INVITATION_FOR_ANOTHER"
    assert await told("\u212aeve@new.example") == "INVITATION_FOR_ANOTHER"
    assert await told("") == "ADDRESS_UNVERIFIED"
    await made.decide(lambda work: invitations.revoke_invitation(work, invitation.invitation_id))
    assert await told("mallory@new.example") == "INVITATION_FOR_ANOTHER"
    made.clock.ahead = timedelta(days=30)
    assert await told("mallory@new.example") == "INVITATION_FOR_ANOTHER"


async def test_only_a_whole_secret_finds_an_invitation(made: Registry) -> None:
    _, secret = await invite(made)
    assert (await joining.find_invitation(made.store, secret, ACME)).organization_id == ACME
    for wrong in (secret[:-1], secret + "A", secret.upper(), "", "rcp_inv_" + "A" * 43, "\ud800"):
        with pytest.raises(NotFound):
            await joining.find_invitation(made.store, wrong, None)
    with pytest.raises(NotFound) as caught:
        await joining.find_invitation(made.store, secret, GLOBEX)
    with pytest.raises(NotFound) as other:
        await joining.find_invitation(made.store, "x", None)
    assert str(caught.value) == str(other.value)


async def test_it_expires_by_the_injected_clock(made: Registry) -> None:
    _, secret = await invite(made, hours=2)
    made.clock.ahead = timedelta(hours=2, seconds=-30)
    found = await joining.find_invitation(made.store, secret, None)
    assert found.state_at(made.clock.now()) == "PENDING"
    made.clock.ahead = timedelta(hours=2)
    with pytest.raises(WrongState) as caught:
        await accept(made, secret)
    assert caught.value.reason_name == "INVITATION_EXPIRED"
    assert (await joining.find_invitation(made.store, secret, None)).state_at(made.clock.now()) == "EXPIRED"


async def test_inviting_anew_voids_the_one_before(made: Registry) -> None:
    _, first = await invite(made)
    _, second = await invite(made, "EVE@new.example", Role.VIEWER)
    with pytest.raises(WrongState) as caught:
        await accept(made, first)
    assert caught.value.reason_name == "INVITATION_REVOKED"
    assert (await accept(made, second)).role is Role.VIEWER
    with pytest.raises(AlreadyExists):
        await invite(made)
    (event,) = await made.events("identity.invitation.revoke")
    assert event["metadata"]["why"] == "invited anew"


async def test_what_an_admin_made_does_not_outlive_their_powers(made: Registry) -> None:
    """An Admin who was removed or demoted has no way back in by an address that they invited."""
    second = await made.member(SECOND)
    _, removed = await invite(made, by=SECOND)
    await made.decide(lambda work: endings.end_membership(work, second, "removed"))
    await made.decide(lambda work: members.add_member(work, SECOND, second.email, Role.ADMIN))
    _, demoted = await invite(made, "other@new.example", by=SECOND)
    _, others = await invite(made, "third@new.example")
    again = await made.member(SECOND)
    await made.decide(lambda work: members.update_member(work, again.member_id, Role.FINOPS, again.etag))
    for secret, address in ((removed, EVE), (demoted, "other@new.example")):
        with pytest.raises(WrongState) as caught:
            await accept(made, secret, address)
        assert caught.value.reason_name == "INVITATION_REVOKED"
    assert (await accept(made, others, "third@new.example")).state == "ACTIVE"
    assert [e["metadata"]["ended"]["invitations"] for e in await made.events("identity.member.remove")] == ["1"]


async def test_nothing_about_it_can_be_edited(made: Registry) -> None:
    invitation, secret = await invite(made)
    for column, value in (
        ("email", "'mallory@new.example'"),
        ("role", "'ADMIN'"),
        ("expires_at", "expires_at + interval '1 year'"),
        ("secret_digest", "sha256('x')"),
        ("inviter", "'user:x'"),
    ):
        with pytest.raises(Exception, match="permission denied") as caught:
            await made.decide(_update(f"{column} = {value}"))
        assert isinstance(caught.value.__cause__.__cause__, asyncpg.InsufficientPrivilegeError)  # type: ignore[union-attr]
    await made.decide(lambda work: invitations.revoke_invitation(work, invitation.invitation_id))
    for again in ("state = 'PENDING', settled_at = NULL", f"state = 'ACCEPTED', member_id = '{uuid4()}'"):
        with pytest.raises(Exception, match="an invitation is settled once"):
            await made.decide(_update(again))
    with pytest.raises(WrongState):
        await accept(made, secret)


def _update(change: str) -> Any:
    async def decide(work: UnitOfWork) -> None:
        work.emit("identity.test", "x")
        await work.execute(text(f"UPDATE identity.invitations SET {change}"))

    return decide


async def test_another_organization_sees_no_invitation(made: Registry) -> None:
    invitation, secret = await invite(made)
    async with made.store.read(GLOBEX) as connection:
        assert (await connection.execute(text("SELECT count(*) FROM identity.invitations"))).scalar_one() == 0
    with pytest.raises(NotFound):
        await made.decide(
            lambda work: invitations.revoke_invitation(work, invitation.invitation_id), organization=GLOBEX
        )
    # Supplying a digest shows its row, and no other of that organization.
    await invite(made, "other@new.example")
    async with made.store.read(GLOBEX) as connection:
        found = await connection.execute(
            text("SELECT set_config('app.invitation_sha256', :d, true)"), {"d": model.digest(secret).hex()}
        )
        found = await connection.execute(text("SELECT email FROM identity.invitations"))
        assert [row.email for row in found] == [EVE]


async def test_an_admin_is_made_with_a_second_factor(made: Registry) -> None:
    _, secret = await invite(made, role=Role.ADMIN)
    with pytest.raises(Denied) as caught:
        await accept(made, secret, aal=1)
    assert caught.value.reason_name == "ASSURANCE_TOO_LOW"
    assert (await accept(made, secret)).role is Role.ADMIN


async def test_bad_requests_are_refused(made: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Invalid, match="ASCII"):
        await invite(made, "eve@n\u00e9w.example")
    with pytest.raises(AlreadyExists, match="member already"):
        await invite(made, "CLEO@acme.example")
    _, secret = await invite(made, "other@new.example")
    with pytest.raises(AlreadyExists, match="member already"):
        await accept(made, secret, "other@new.example", CLERK)
    # Nothing was used up: the invitation is still there for the person without a membership.
    monkeypatch.setattr(model, "MOST_PENDING", 1)
    with pytest.raises(Exhausted):
        await invite(made)
    assert (await accept(made, secret, "other@new.example")).state == "ACTIVE"


async def test_they_are_listed_the_newest_first(made: Registry) -> None:
    ids = [(await invite(made, f"{number}@new.example"))[0].invitation_id for number in range(3)]
    async with made.store.read(ACME) as connection:
        listed = await list_invitations(connection, None, 2)
        rest = await list_invitations(connection, listed[-1].invitation_id, 2)
    assert [each.invitation_id for each in (*listed, *rest)] == ids[::-1]


async def test_an_invitation_ends_with_what_its_inviter_may_give(made: Registry) -> None:
    """By a custom role that is changed, which no ending hears of: refused when it is accepted, and taken back."""
    recruits = ("identity.member.update", "identity.member.read", *sorted(_of(Role.VIEWER)))
    role = await made.decide(lambda work: roles.create_role(work, TABLE, "recruiter", "", recruits))
    clerk = await made.member(CLERK)
    given = roles.Assignment(clerk.member_id, None, role.role_id, ResourceLimits(), clerk.etag)
    await made.decide(lambda work: roles.assign_role(work, TABLE, given))
    _, kept = await invite(made, "first@new.example", Role.VIEWER, by=CLERK)
    invitation, secret = await invite(made, EVE, Role.VIEWER, by=CLERK)

    async def settle(address: str) -> None:
        await made.decide(
            lambda work: joining.require_inviter(made.store, TABLE, ACME, invitation.invitation_id, address), uuid4()
        )

    await settle(EVE)
    assert (await accept(made, kept, "first@new.example")).role is Role.VIEWER
    await made.decide(
        lambda work: roles.update_role(work, TABLE, role.role_id, "", ("identity.member.read",), role.etag)
    )
    with pytest.raises(Denied):  # A stranger with the secret changes nothing, and learns nothing.
        await settle("mallory@new.example")
    for refused in (lambda: accept(made, secret), lambda: settle(EVE)):
        with pytest.raises(WrongState, match="may not invite") as caught:
            await refused()
        assert caught.value.reason_name == "INVITATION_REVOKED"
    (event,) = await made.events("identity.invitation.revoke")
    assert event["metadata"]["why"] == "the inviter may not make it any more"
    with pytest.raises(WrongState, match="taken back"):
        await accept(made, secret)


def _of(role: Role) -> frozenset[str]:
    return TABLE.everywhere(ACME, role.value, frozenset())
