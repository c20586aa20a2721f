"""Sessions into passports, on a real database and real keys: what opens an organization, and what ends it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import event

from recoup_local.issuer import AUDIENCE, ISSUER
from services._mesh.context import entered
from services._mesh.errors import NotFound, Problem, Reason, Unauthenticated, Unavailable, WrongState
from services._mesh.passport_verifier import PassportVerifier, is_revoked
from services._mesh.passports import Passport
from services._mesh.revocations import Revocation, RevocationKind, Revocations
from services._mesh.uow import UnitOfWork
from services.identity.__main__ import break_glass_reach, permission_table
from services.identity.clients.jwks import SessionKeys
from services.identity.model.membership import Role
from services.identity.usecases.feed import read_revocations
from services.identity.usecases.members import add_member, remove_member, revoke_member_sessions, update_member
from services.identity.usecases.own_membership import set_default_organization
from services.identity.usecases.passports import exchange_passport, issue_passport
from services.identity.usecases.principals import Authority
from tests.support.identity import ADMIN, CLERK, GLOBAL_ADMIN, SECOND, Registry, registry
from tests.support.postgres import TestDatabase
from tests.support.sessions import Project, serving
from tests.support.things import ACME, GLOBEX, context, keys

pytestmark = pytest.mark.services("identity")
REVOKED, INVALID = Reason.ERROR_REASON_CREDENTIAL_REVOKED, Reason.ERROR_REASON_CREDENTIAL_INVALID


@dataclass
class Office:
    """Identity as the gateway asks it for passports."""

    registry: Registry
    project: Project
    authority: Authority
    verifiers: dict[str, PassportVerifier]

    def session(self, user: UUID = ADMIN, algorithm: str = "ES256", **claims: object) -> str:
        return self.project.token(algorithm, **{"sub": str(user), "app_metadata": {}, **claims})

    async def issue(
        self, session: str, organization: UUID | None = ACME, audience: str = "scanner", *, choose: bool = False
    ) -> Passport:
        """The passport as its audience accepts it from the gateway."""
        with entered(context(None, peer="gateway", peer_thumbprint="x5t")):
            signed, said = await issue_passport(self.authority, session, audience, organization, choose=choose)
        found = self.verifiers[audience].verify(signed, "x5t")
        assert found == said
        return found

    async def refused(self, session: str, organization: UUID | None = ACME, **more: Any) -> Problem:
        with pytest.raises(Problem) as caught:
            await self.issue(session, organization, **more)
        return caught.value


@asynccontextmanager
async def opened(database: TestDatabase, folder: Path) -> AsyncIterator[Office]:
    async with registry(database) as made:
        project, revocations = Project(), Revocations(made.clock)
        key, trust = keys(folder, "identity")

        def verifier(audience: str) -> PassportVerifier:
            return PassportVerifier(trust, revocations, made.clock, audience=audience, profile="local")

        with serving(project) as address:
            authority = Authority(
                reader=made.store,
                sessions=SessionKeys(address, None),
                issuer=ISSUER,
                audience=AUDIENCE,
                key=key,
                verifier=verifier("identity"),
                revocations=revocations,
                permissions=permission_table(),
                reach=break_glass_reach(),
                clock=made.clock,
                seconds=300,
            )
            yield Office(
                made,
                project,
                authority,
                {name: verifier(name) for name in ("scanner", "actions", "pricing", "identity")},
            )


@pytest.fixture
async def office(database: TestDatabase, tmp_path: Path) -> AsyncIterator[Office]:
    async with opened(database, tmp_path) as made:
        yield made


async def test_a_passport_says_who_asks_for_which_organization_and_how_surely(office: Office) -> None:
    before = int(time.time())
    methods = [{"method": "totp", "timestamp": before - 70}]
    strong = await office.issue(office.session(amr=methods))
    weak = await office.issue(office.session(aal="aal1"))
    assert (strong.aal, weak.aal) == (2, 1)
    assert (strong.auth_time, strong.actor, strong.organization_id) == (before - 70, f"user:{ADMIN}", ACME)
    assert (strong.role, strong.act, strong.audience) == ("ADMIN", (), "scanner")
    assert 290 < strong.expires_at - before <= 301
    # It ends with its session, clocks' difference included.
    short = await office.issue(office.session(exp=before - 60))
    assert short.expires_at == before - 60 + 150


async def test_each_permission_is_of_the_one_service(office: Office) -> None:
    found = await office.issue(office.session())
    assert found.permissions
    assert all(name.startswith("scanner.") for name in found.permissions)
    nowhere = await office.issue(office.session(), None)
    assert (nowhere.permissions, nowhere.role, nowhere.organization_id) == (frozenset(), "", None)


async def test_claims_give_no_role_and_no_membership(office: Office) -> None:
    written = {"organization_id": str(GLOBEX), "role": "ADMIN"}
    clerk = office.session(CLERK, app_metadata=written, user_metadata=written)
    assert (await office.issue(clerk)).role == "VIEWER"
    for organization in (GLOBEX, uuid4()):
        assert isinstance(await office.refused(clerk, organization), NotFound)


@pytest.mark.parametrize(
    "claims",
    [
        {"role": "service_role", "sub": None},
        {"role": "service_role"},
        {"role": "anon"},
        {"is_anonymous": True},
        {"iss": "https://project.example/auth/v1"},
        {"aud": "anon"},
        {"exp": None},
    ],
    ids=str,
)
async def test_what_is_no_persons_session_opens_nothing(office: Office, claims: dict[str, object]) -> None:
    for organization in (ACME, None):
        problem = await office.refused(office.session(**claims), organization)
        assert (type(problem), problem.reason) == (Unauthenticated, INVALID)


async def test_another_projects_keys_open_nothing(office: Office) -> None:
    problem = await office.refused(Project().token(sub=str(ADMIN)))
    assert problem.reason == INVALID


async def test_an_issuer_that_is_away_lets_nobody_in(office: Office) -> None:
    office.project.status = 503
    assert isinstance(await office.refused(office.session()), Unavailable)


async def test_a_removed_members_unexpired_session_opens_nothing(office: Office) -> None:
    session = office.session(CLERK)
    await office.issue(session)
    member = await office.registry.member(CLERK)
    await office.registry.decide(lambda work: remove_member(work, member.member_id), action="identity.member.remove")
    assert isinstance(await office.refused(session), NotFound)


async def test_a_suspended_organization_opens_to_nobody(office: Office) -> None:
    await office.registry.database.run_as_owner("identity", ["ALTER TABLE identity.organizations DISABLE TRIGGER USER"])
    superuser = await office.registry.database.superuser()
    await superuser.execute("UPDATE identity.organizations SET state = 'SUSPENDED' WHERE organization_id = $1", ACME)
    await superuser.close()
    assert isinstance(await office.refused(office.session()), NotFound)


async def test_another_role_is_in_the_next_passport(office: Office) -> None:
    session, member = office.session(CLERK), await office.registry.member(CLERK)
    await office.registry.decide(
        lambda work: update_member(work, member.member_id, Role.AUDITOR, member.etag), action="identity.member.update"
    )
    assert (await office.issue(session)).role == "AUDITOR"


def to_fraction(office: Office, fraction: float) -> None:
    """Move the wall clock forward to this part of a second."""
    clock = office.registry.clock
    clock.wall_ahead += timedelta(seconds=(fraction - clock.wall_seconds()) % 1)


@pytest.mark.parametrize(
    ("kind", "key"),
    [("MEMBER", f"{ACME}/user:{CLERK}"), ("ORGANIZATION", str(ACME)), ("ACTOR", f"user:{CLERK}")],
)
async def test_a_passport_of_the_second_in_which_others_were_voided_is_good(
    office: Office, kind: str, key: str
) -> None:
    session = office.session(CLERK, amr=[{"method": "password", "timestamp": int(time.time()) + 10}])
    to_fraction(office, 0.2)
    at = office.registry.clock.wall_now()
    await office.registry.rows("INSERT INTO identity.revocations VALUES (901, $1, $2, $3)", kind, key, at)
    await office.registry.rows("UPDATE identity.revocation_head SET seq = 901")
    before = replace(await office.issue(session), revocations_seen=900)
    office.authority.revocations.apply([Revocation(901, RevocationKind[kind], key, at.timestamp())], latest_seq=901)
    assert (await office.issue(session)).revocations_seen == 901
    assert is_revoked(office.authority.revocations, before)
    # One that names no place is of a version before them; and a feed that was set back doesn't bring one back.
    assert is_revoked(office.authority.revocations, replace(before, revocations_seen=None))
    assert is_revoked(
        office.authority.revocations, replace(before, revocations_seen=999, issued_at=before.issued_at - 1)
    )


async def test_a_passport_that_overtakes_a_revocation_is_void(office: Office) -> None:
    """It is read before the change is committed, and dated in a later second than the change."""
    session, member = office.session(CLERK), await office.registry.member(CLERK)
    overtaking: list[Passport] = []

    async def slowly(work: UnitOfWork) -> None:
        await update_member(work, member.member_id, Role.AUDITOR, member.etag)
        office.registry.clock.wall_ahead += timedelta(seconds=2)
        overtaking.append(await office.issue(session))

    await office.registry.decide(slowly, action="identity.member.update")
    feed = await read_revocations(office.authority.reader, 0, office.registry.clock.wall_now())
    entries = [Revocation(e.seq, RevocationKind[e.kind], e.key, e.revoked_at.timestamp()) for e in feed.entries]
    office.authority.revocations.apply(entries, feed.latest_seq)
    assert overtaking[0].role == "VIEWER"
    assert overtaking[0].issued_at > max(entry.revoked_at for entry in entries)
    assert is_revoked(office.authority.revocations, overtaking[0])
    assert (await office.issue(session)).role == "AUDITOR"


async def test_ended_sessions_stay_ended_in_their_organization_alone(office: Office) -> None:
    """Also when the feed, which remembers for ten minutes, has forgotten: none is fed here at all."""
    await office.registry.decide(
        lambda work: add_member(work, ADMIN, "ada@acme.example", Role.VIEWER),
        user=GLOBAL_ADMIN,
        organization=GLOBEX,
        action="identity.member.add",
    )
    proof = [{"method": "password", "timestamp": int(time.time()) - 60}]
    session, other = office.session(amr=proof), office.session(SECOND)
    member = await office.registry.member(ADMIN)
    await office.registry.decide(
        lambda work: revoke_member_sessions(work, member.member_id), user=SECOND, action="identity.session.revoke"
    )
    assert (await office.refused(session)).reason == REVOKED
    # A refresh gives the session a new token, and nobody proves anything by it.
    refreshed = office.session(amr=proof, iat=int(time.time()) + 100)
    assert (await office.refused(refreshed)).reason == REVOKED
    assert (await office.issue(session, GLOBEX)).role == "VIEWER"
    assert (await office.issue(other)).role == "ADMIN"
    again = office.session(amr=[{"method": "password", "timestamp": int(time.time()) + 1}])
    assert (await office.issue(again)).role == "ADMIN"


@pytest.mark.parametrize("organization", [ACME, None])
async def test_a_revoked_session_or_actor_stays_revoked(office: Office, organization: UUID | None) -> None:
    held, free = str(uuid4()), office.session(SECOND)
    superuser = await office.registry.database.superuser()
    await superuser.execute(
        "INSERT INTO identity.revocations VALUES (901, 'SESSION', $1, now() - interval '2 hours'),"
        " (902, 'ACTOR', $2, now() + interval '1 second')",
        held,
        f"user:{CLERK}",
    )
    await superuser.close()
    assert (await office.refused(office.session(session_id=held), organization)).reason == REVOKED
    assert (await office.refused(office.session(CLERK), organization)).reason == REVOKED
    assert await office.issue(free, organization)
    again = office.session(CLERK, amr=[{"method": "password", "timestamp": int(time.time()) + 60}])
    assert await office.issue(again, organization)


async def test_identity_reads_the_database_once_for_a_passport(office: Office) -> None:
    session = office.session()
    await office.issue(session)
    said: list[str] = []
    engine = office.registry.store._database._engine.sync_engine
    event.listen(engine, "before_cursor_execute", lambda *given: said.append(given[2]))
    await office.issue(session)
    assert len(said) == 1


async def test_who_names_no_organization_is_in_the_one_of_their_session_or_their_only_one(office: Office) -> None:
    nothing: dict[str, Any] = {"organization": None, "choose": True}
    assert (await office.issue(office.session(CLERK), **nothing)).organization_id == ACME
    # A claim only chooses among memberships.
    foreign = office.session(CLERK, app_metadata={"organization_id": str(GLOBEX)})
    assert (await office.issue(foreign, **nothing)).organization_id == ACME
    await office.registry.decide(
        lambda work: add_member(work, CLERK, "cleo@acme.example", Role.AUDITOR),
        user=GLOBAL_ADMIN,
        organization=GLOBEX,
        action="identity.member.add",
    )
    problem = await office.refused(office.session(CLERK), None, choose=True)
    assert (type(problem), problem.metadata) == (WrongState, {"organizations": "2"})
    assert problem.reason == Reason.ERROR_REASON_ORGANIZATION_CHOICE_NEEDED
    for organization, role in ((ACME, "VIEWER"), (GLOBEX, "AUDITOR")):
        for claims in (
            {"app_metadata": {"organization_id": str(organization)}},
            {"organization_id": str(organization)},
        ):
            found = await office.issue(office.session(CLERK, **claims), **nothing)
            assert (found.organization_id, found.role) == (organization, role)
    assert isinstance(await office.refused(office.session(uuid4()), None, choose=True), NotFound)
    # What they chose themselves goes before what a claim says, for as long as they are let in there.
    await office.registry.decide(set_default_organization, CLERK, GLOBEX, "identity.default_organization.set")
    hinted = office.session(CLERK, organization_id=str(ACME))
    assert (await office.issue(hinted, **nothing)).organization_id == GLOBEX
    member = await office.registry.member(CLERK, GLOBEX)
    await office.registry.decide(
        lambda work: remove_member(work, member.member_id), GLOBAL_ADMIN, GLOBEX, "identity.member.remove"
    )
    assert (await office.issue(hinted, **nothing)).organization_id == ACME


async def exchanged(office: Office, token: str, caller: str, target: str) -> Passport:
    with entered(context(None, peer=caller, peer_thumbprint=f"x5t of {caller}")):
        signed, _ = await exchange_passport(office.authority, token, target)
    return office.verifiers[target].verify(signed, f"x5t of {caller}")


async def test_an_exchange_narrows_and_says_who_acts(office: Office) -> None:
    with entered(context(None, peer="gateway", peer_thumbprint="x5t")):
        token, first = await issue_passport(office.authority, office.session(), "actions", ACME)
    with entered(context(None, peer="actions", peer_thumbprint="x5t of actions")):
        second_token, expires_at = await exchange_passport(office.authority, token, "scanner")
    second = office.verifiers["scanner"].verify(second_token, "x5t of actions")
    assert (second.act, second.actor, second.organization_id) == (("actions",), first.actor, ACME)
    assert all(name.startswith("scanner.") for name in second.permissions)
    assert second.jti != first.jti
    assert expires_at == second.expires_at <= first.expires_at
    third = await exchanged(office, second_token, "scanner", "pricing")
    assert third.act == ("scanner", "actions")
    # It is good for its audience alone, from its presenter alone, and only who received it may exchange it.
    for verifier, presenter in (("actions", "x5t of actions"), ("scanner", "x5t")):
        with pytest.raises(Unauthenticated):
            office.verifiers[verifier].verify(second_token, presenter)
    with pytest.raises(Unauthenticated):
        await exchanged(office, token, "scanner", "pricing")


async def test_what_was_revoked_is_exchanged_for_nothing(office: Office) -> None:
    with entered(context(None, peer="gateway", peer_thumbprint="x5t")):
        token, first = await issue_passport(office.authority, office.session(), "actions", ACME)
    await exchanged(office, token, "actions", "scanner")
    moment = office.registry.clock.wall_seconds() + 1
    office.authority.revocations.apply(
        [Revocation(1, RevocationKind.MEMBER, f"{ACME}/{first.actor}", moment)], latest_seq=1
    )
    with pytest.raises(Unauthenticated) as caught:
        await exchanged(office, token, "actions", "scanner")
    assert caught.value.reason == REVOKED
    office.registry.clock.wall_ahead = timedelta(seconds=301)
    with pytest.raises(Unauthenticated):
        await exchanged(office, token, "actions", "scanner")


async def test_an_address_is_carried_if_it_is_proven_and_to_identity_alone(office: Office) -> None:
    async def carried(
        claims: dict[str, Any], organization: UUID | None = None, audience: str = "identity", confirms: bool = False
    ) -> str:
        authority = replace(office.authority, confirms_email=confirms)
        session = office.session(**{"email": "ada@x.example", "email_verified": True, **claims})
        with entered(context(None, peer="gateway", peer_thumbprint="x5t")):
            signed, said = await issue_passport(authority, session, audience, organization)
        if audience == "identity":
            assert authority.verifier.verify(signed, "x5t") == said
        return said.email

    assert await carried({}) == "ada@x.example"
    for claim in (None, False, "true", 1):
        assert await carried({"email_verified": claim}) == "", claim
    assert await carried({"email_verified": None, "user_metadata": {"email_verified": True}}) == ""
    assert await carried({}, ACME) == await carried({}, None, "scanner") == ""
    # A project that lets nobody sign in unconfirmed.
    assert await carried({"email_verified": None}, confirms=True) == "ada@x.example"
