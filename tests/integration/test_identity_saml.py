"""Sign-ins by SAML on a real database: whom they let in, once, within which domains, and what ends them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from services._mesh.errors import Denied, Invalid, NotFound, Problem, Reason, Unauthenticated, WrongState
from services.identity.model.membership import Role
from services.identity.model.permissions import PermissionTable
from services.identity.model.saml.responses import EMAIL_FORMAT, TRANSIENT_FORMAT
from services.identity.model.sso import GroupRole
from services.identity.store.admissions import find_admission
from services.identity.usecases import endings, members, ownership, roles, saml_logins, saml_requests, sso, sso_domains
from services.identity.usecases.enforcement import require_no_provider
from services.identity.usecases.sso_sessions import find_sso_principal
from tests.support.identity import ADMIN, CLERK, GLOBAL_ADMIN, SECOND, Registry, registry
from tests.support.postgres import TestDatabase
from tests.support.saml_idp import MFA, TestIdp, form
from tests.support.signing_in import (
    RETURN,
    TABLE,
    VERIFIER,
    Desk,
    code_of,
    desk,
    enable,
    prove_domain,
    set_up,
)
from tests.support.things import ACME, GLOBEX, context

pytestmark = pytest.mark.services("identity")


@pytest.fixture
async def made(database: TestDatabase) -> AsyncIterator[Registry]:
    async with registry(database) as found:
        yield found


@pytest.fixture
async def at(made: Registry) -> AsyncIterator[Desk]:
    async with desk(made) as found:
        yield found


def cause(answer: Any) -> str:
    assert answer.status == 403, answer.body
    return str(answer.body.decode().partition("(")[2].partition(")")[0])


async def principal(at: Desk, token: str) -> Any:
    return await find_sso_principal(at.office.store, token, at.made.clock.wall_now().timestamp())


async def refused(at: Desk, token: str) -> str:
    with pytest.raises(Unauthenticated) as caught:
        await principal(at, token)
    return caught.value.reason_name


async def everybody(made: Registry, organization: UUID = ACME) -> list[tuple[str, str, str]]:
    query = "SELECT email, role, state FROM identity.members WHERE organization_id = $1 ORDER BY email"
    return [(row["email"], row["role"], row["state"]) for row in await made.rows(query, organization)]


async def test_a_person_of_a_proven_domain_is_let_in(at: Desk) -> None:
    answer = await at.sign_in(at.said(authn_context=MFA))
    assert answer.headers[0].value.startswith(f"{RETURN}?code=rcc_")
    token, session = await at.exchange(code_of(answer))
    assert token.startswith("rcs_")
    found = await principal(at, token)
    assert (found.user_id, found.organization_id, found.aal) == (session.user_id, ACME, 1)
    assert ("eve@acme.example", "VIEWER", "ACTIVE") in await everybody(at.made)
    (accepted,) = await at.made.events("identity.saml_response.accept")
    assert accepted["actor"] == f"user:{session.user_id}"
    for action in ("identity.login.link", "identity.member.add", "identity.session.create"):
        event = (await at.made.events(action))[-1]
        assert event["actor"] == f"user:{session.user_id}", action
        assert "eve@" not in str(event), action
    kept = await at.made.rows("SELECT token_hash FROM identity.sso_sessions")
    assert token.encode() not in [row["token_hash"] for row in kept]


async def test_the_same_name_is_the_same_user_and_another_one_isnt(at: Desk) -> None:
    _, first = await at.session()
    _, again = await at.session()
    _, other = await at.session(at.said(name_id="person-2"))
    assert again.user_id == first.user_id
    # The same address is the same person to separation of duties, and not the same user.
    assert other.user_id != first.user_id
    assert len({await person(at.made, each.user_id) for each in (first, other)}) == 1


async def person(made: Registry, user_id: UUID) -> UUID:
    async with made.store.read(ACME) as connection:
        return await saml_logins.responsible_person(connection, ACME, user_id)


async def test_an_address_logs_nobody_in_as_somebody_else(at: Desk) -> None:
    """Ada is an Admin with a login of her own: who is called by her address at the provider doesn't become her."""
    _, session = await at.session(at.said(attributes={"email": ["ada@acme.example"]}))
    assert session.user_id != ADMIN
    assert (await at.made.member(session.user_id)).role is Role.VIEWER


async def test_an_assertion_is_good_once(at: Desk) -> None:
    answer = at.idp.answer(await at.begin(), at.said())
    assert (await at.post(at.path("acs"), answer)).status == 303
    assert cause(await at.post(at.path("acs"), answer)) == "REQUEST"
    await at.update(provider_initiated=True)
    unasked = form(at.idp.response(at.said()))
    assert (await at.post(at.path("acs"), unasked)).status == 303
    assert cause(await at.post(at.path("acs"), unasked)) == "REPLAY"


async def test_of_two_at_once_one_is_let_in(at: Desk) -> None:
    answer = at.idp.answer(await at.begin(), at.said())
    both = await asyncio.gather(at.post(at.path("acs"), answer), at.post(at.path("acs"), answer))
    assert sorted(each.status for each in both) == [303, 403]


async def test_without_a_request_of_ours_nobody_is_let_in(at: Desk) -> None:
    assert cause(await at.post(at.path("acs"), form(at.idp.response(at.said())))) == "NO_REQUEST"
    made_up = form(at.idp.response(at.said(in_response_to="_made_up")))
    assert cause(await at.post(at.path("acs"), made_up)) == "REQUEST"
    answer = at.idp.answer(await at.begin(), at.said())
    assert cause(await at.post(at.path("acs"), {**answer, "RelayState": "another"})) == "REQUEST"
    at.made.clock.wall_ahead = timedelta(minutes=11)
    late = at.idp.answer(await at.begin(), at.said(now=datetime.now(UTC) + timedelta(minutes=11)))
    at.made.clock.wall_ahead = timedelta(minutes=22)
    fresh = at.idp.response(at.said(in_response_to=request_of(late), now=at.made.clock.wall_now()))
    assert cause(await at.post(at.path("acs"), form(fresh, late["RelayState"]))) == "REQUEST"


def request_of(answer: dict[str, str]) -> str:
    import base64

    from lxml import etree

    return str(etree.fromstring(base64.b64decode(answer["SAMLResponse"])).get("InResponseTo"))


async def test_what_is_signed_by_somebody_else_is_refused_and_counted(at: Desk) -> None:
    attacker = TestIdp(at.idp.entity_id)
    answer = attacker.answer(await at.begin(), at.said())
    assert cause(await at.post(at.path("acs"), answer)) == "SIGNATURE"
    counted: list[Any] = []

    async def sink(denials: Any) -> None:
        counted.extend(denials)

    at.office.denials.sink = sink
    await at.office.denials.flush()
    assert [(d.organization_id, d.reason) for d in counted] == [(ACME, "SAML_SIGNATURE")]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"attributes": {"email": ["eve@globex.example"]}}, "DOMAIN"),
        ({"attributes": {"email": ["eve@sub.acme.example"]}}, "DOMAIN"),
        ({"attributes": {"email": ["eve@acme.example@globex.example"]}}, "EMAIL"),
        ({"attributes": {"email": ["eve@globex.example\n@acme.example"]}}, "EMAIL"),
        ({"attributes": {"email": ["eve@acme.example", "ada@acme.example"]}}, "EMAIL"),
        ({"attributes": {}}, "EMAIL"),
        ({"name_id_format": TRANSIENT_FORMAT}, "NAME_ID"),
    ],
)
async def test_whoever_isnt_of_a_proven_domain_is_refused(at: Desk, changes: dict[str, Any], expected: str) -> None:
    before = await everybody(at.made)
    assert cause(await at.sign_in(at.said(**changes))) == expected
    assert await everybody(at.made) == before
    assert await at.made.events("identity.login.link") == []


async def test_a_person_who_leaves_the_domain_isnt_let_in_any_more(at: Desk) -> None:
    await at.session()
    assert cause(await at.sign_in(at.said(attributes={"email": ["eve@evil.example"]}))) == "DOMAIN"
    (domain,) = [each["domain_id"] for each in await at.made.rows("SELECT domain_id FROM identity.sso_domains")]
    await at.made.decide(lambda work: sso_domains.remove_domain(work, domain))
    assert cause(await at.sign_in()) == "DOMAIN"


async def test_no_provider_speaks_for_another_organizations_domain(at: Desk) -> None:
    await prove_domain(at.made, at.dns, "globex.example", GLOBEX, GLOBAL_ADMIN)
    other = TestIdp("https://idp.globex.example/saml")
    theirs = await enable(at.made, await set_up(at.made, other, GLOBEX, GLOBAL_ADMIN), GLOBAL_ADMIN)
    # acme's provider about globex' people, at its own address and at globex'.
    said = at.said(attributes={"email": ["gus@globex.example"]})
    assert cause(await at.sign_in(said)) == "DOMAIN"
    at_theirs = at.said(theirs, attributes={"email": ["gus@globex.example"]})
    stolen = at.idp.answer(await at.begin(provider=theirs), replace(at_theirs, issuer=other.entity_id))
    assert cause(await at.post(at.path("acs", theirs), stolen)) == "SIGNATURE"
    # acme's request and relay state at globex' address, signed by globex' own provider.
    ours = await at.begin()
    assert cause(await at.post(at.path("acs", theirs), other.answer(ours, at_theirs))) == "REQUEST"
    # What is meant for one provider is refused at the address of another.
    good = at.idp.answer(ours, at.said())
    assert cause(await at.post(at.path("acs", theirs), good)) == "SIGNATURE"
    assert (await at.post(at.path("acs"), good)).status == 303
    # One organization's provider below another organization's id isn't there.
    mixed = f"/{GLOBEX}/{at.provider.provider_id}"
    for call in (at.get(f"{mixed}/metadata"), at.get(f"{mixed}/login?code_challenge={'a' * 43}")):
        with pytest.raises(NotFound):
            await call
    with pytest.raises(NotFound):
        await at.post(f"{mixed}/acs", good)
    assert await everybody(at.made, GLOBEX) == [("gus@globex.example", "ADMIN", "ACTIVE")]


async def test_a_disabled_provider_logs_nobody_in_and_ends_what_it_made(at: Desk) -> None:
    token, session = await at.session()
    open_code = code_of(await at.sign_in())
    pending = at.idp.answer(await at.begin(), at.said())
    await at.update(provider_initiated=True)
    _, ended = await at.made.decide(
        lambda work: sso.disable_identity_provider(work, at.provider.provider_id),
        action="identity.identity_provider.disable",
    )
    assert ended == 1
    assert ("SESSION", str(session.session_id)) in await at.made.revoked()
    assert await refused(at, token) == "CREDENTIAL_REVOKED"
    with pytest.raises(Unauthenticated):
        await at.exchange(open_code)
    assert cause(await at.post(at.path("acs"), pending)) == "REQUEST"
    assert cause(await at.post(at.path("acs"), form(at.idp.response(at.said())))) == "DISABLED"
    with pytest.raises(WrongState):
        await at.begin()


async def test_sessions_end_with_their_time(at: Desk) -> None:
    token, session = await at.session()
    assert session.expires_at <= at.made.clock.wall_now() + timedelta(minutes=60)
    short = datetime.now(UTC) + timedelta(minutes=20)
    _, shorter = await at.session(at.said(session_not_on_or_after=short))
    assert shorter.expires_at == short.replace(microsecond=0)
    at.made.clock.wall_ahead = timedelta(minutes=61)
    assert await refused(at, token) == "CREDENTIAL_EXPIRED"


async def test_a_code_is_good_once_for_a_minute_and_for_who_began(at: Desk) -> None:
    for code in ("rcc_", "rcc_" + "A" * 64, "x", "rcs_" + "A" * 64):
        with pytest.raises(Unauthenticated):
            await at.exchange(code)
    code = code_of(await at.sign_in())
    for verifier in ("", "w" * 43):
        with pytest.raises(Unauthenticated):
            await at.exchange(code, verifier)
    await at.exchange(code)
    with pytest.raises(Unauthenticated) as caught:
        await at.exchange(code)
    assert caught.value.reason == Reason.ERROR_REASON_LOGIN_CODE_INVALID
    late = code_of(await at.sign_in())
    at.made.clock.wall_ahead = timedelta(seconds=61)
    with pytest.raises(Unauthenticated):
        await at.exchange(late)


async def test_a_sign_in_that_began_at_the_provider_needs_leave(at: Desk) -> None:
    await at.update(provider_initiated=True)
    answer = await at.post(at.path("acs"), form(at.idp.response(at.said())))
    code = code_of(answer)
    with pytest.raises(Unauthenticated):
        await at.exchange(code, VERIFIER)
    _, session = await at.exchange(code, "")
    assert session.aal == 1


async def test_a_second_factor_is_what_the_organization_says_it_is(at: Desk) -> None:
    await at.update(mfa_contexts=(MFA,))
    long_ago = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=3)
    token, session = await at.session(at.said(authn_context=MFA, authn_instant=long_ago))
    assert session.aal == 2
    assert (await principal(at, token)).auth_time == int(long_ago.timestamp())
    _, plain = await at.session()
    assert plain.aal == 1


async def map_groups(at: Desk, *wanted: tuple[str, Role | UUID], user: UUID = ADMIN, table: Any = TABLE) -> None:
    found = await at.now()
    groups = [
        GroupRole(
            group, Role.CUSTOM if isinstance(role, UUID) else role, role if isinstance(role, UUID) else None, user
        )
        for group, role in wanted
    ]
    await at.made.decide(
        lambda work: sso.set_group_roles(work, table, found.provider_id, groups, found.etag),
        user,
        action="identity.group_role.set",
    )


def of_groups(at: Desk, *groups: str, **changes: Any) -> Any:
    return at.said(attributes={"email": ["eve@acme.example"], "groups": list(groups)}, **changes)


async def test_groups_give_roles_at_each_sign_in_and_take_them(at: Desk) -> None:
    await map_groups(at, ("auditors", Role.AUDITOR), ("finops", Role.FINOPS))
    _, session = await at.session(of_groups(at, "finops", "others"))
    assert (await at.made.member(session.user_id)).role is Role.FINOPS
    await at.session(of_groups(at, "finops", "auditors"))
    assert (await at.made.member(session.user_id)).role is Role.AUDITOR
    await at.session(of_groups(at))
    assert (await at.made.member(session.user_id)).role is Role.VIEWER
    changes = [each["metadata"] for each in await at.made.events("identity.role.assign")]
    assert [(c["before"]["role"], c["after"]["role"]) for c in changes] == [
        ("FINOPS", "AUDITOR"),
        ("AUDITOR", "VIEWER"),
    ]
    await at.update(default_role=None)
    assert cause(await at.sign_in(of_groups(at))) == "ROLE"
    assert cause(await at.sign_in(of_groups(at, name_id="new"))) == "ROLE"


async def test_the_last_admin_stays_whatever_their_groups_say(at: Desk) -> None:
    await map_groups(at, ("admins", Role.ADMIN))
    _, eve = await at.session(of_groups(at, "admins"))
    heir = await at.made.member(eve.user_id)
    await at.made.decide(lambda work: ownership.transfer_ownership(work, heir.member_id))
    for user in (ADMIN, SECOND):
        member = await at.made.member(user)
        await at.made.decide(lambda work, member=member: members.remove_member(work, member.member_id), eve.user_id)
    _, session = await at.session(of_groups(at))
    assert session.user_id == eve.user_id
    assert (await at.made.member(eve.user_id)).role is Role.ADMIN
    assert (await at.made.events("identity.member.update"))[-1]["result"] == "DENIED"


async def test_nobody_maps_a_group_to_more_than_they_hold(at: Desk) -> None:
    held = {"ADMIN": frozenset({"a", "b"}), "SECURITY": frozenset({"a"}), "VIEWER": frozenset({"a"})}
    table = PermissionTable({"identity": held}, {})
    clerk = await at.made.member(CLERK)
    with pytest.raises(Denied):
        await map_groups(at, ("all", Role.ADMIN), user=CLERK, table=table)
    await map_groups(at, ("all", Role.SECURITY), user=CLERK, table=table)
    found = await at.now()
    change = sso.ProviderChange("", False, "email", "groups", (), Role.ADMIN, 60, found.etag)
    with pytest.raises(Denied):
        await at.made.decide(
            lambda work: sso.update_identity_provider(work, table, found.provider_id, change), clerk.user_id
        )


async def test_a_group_may_have_a_custom_role(at: Desk) -> None:
    table = PermissionTable({"identity": {"ADMIN": frozenset({"a"})}}, {})
    made = await at.made.decide(lambda work: roles.create_role(work, table, "reader", "", ["a"]))
    await map_groups(at, ("readers", made.role_id), table=table)
    _, session = await at.session(of_groups(at, "readers"))
    assert (await at.made.member(session.user_id)).role_name == "reader"
    await at.session(of_groups(at))
    assert (await at.made.member(session.user_id)).role is Role.VIEWER
    with pytest.raises(WrongState):
        await at.made.decide(lambda work: roles.delete_role(work, made.role_id))


async def test_an_ended_membership_stays_ended(at: Desk) -> None:
    token, session = await at.session()
    code = code_of(await at.sign_in())
    member = await at.made.member(session.user_id)
    await at.made.decide(lambda work: endings.end_membership(work, member, "directory"))
    assert await refused(at, token) == "CREDENTIAL_REVOKED"
    with pytest.raises(Unauthenticated):
        await at.exchange(code)
    assert cause(await at.sign_in()) == "MEMBERSHIP"


async def test_an_admin_ends_a_members_sessions(at: Desk) -> None:
    token, session = await at.session()
    member = await at.made.member(session.user_id)
    await at.made.decide(lambda work: members.revoke_member_sessions(work, member.member_id))
    assert await refused(at, token) == "CREDENTIAL_REVOKED"
    # Whoever goes on proves anew who they are: an older session at the provider doesn't do.
    before = at.said(now=at.made.clock.wall_now() - timedelta(seconds=30))
    assert cause(await at.sign_in(before)) == "AUTHENTICATE"
    at.made.clock.wall_ahead = timedelta(seconds=2)
    await at.session(at.said(now=at.made.clock.wall_now()))


async def enforce(at: Desk, on: bool = True, who: UUID | None = ADMIN) -> None:
    found = await at.now()
    member_id = (await at.made.member(who)).member_id if who else None
    await at.made.decide(
        lambda work: sso.set_enforcement(work, found.provider_id, on, member_id, found.etag),
        action="identity.enforcement.set",
    )


async def demanded(made: Registry, user: UUID) -> bool:
    async with made.store.read(ACME) as connection:
        admission = await find_admission(connection, ACME, user, "", f"user:{user}")
    assert admission is not None
    found = admission.demanded_provider
    if found is None:
        return False
    with pytest.raises(Denied) as caught:
        require_no_provider(found)
    assert caught.value.reason == Reason.ERROR_REASON_SSO_REQUIRED
    return True


async def test_enforcing_needs_a_test_and_an_admin_who_isnt_locked_out(at: Desk) -> None:
    async def why(who: UUID | None = ADMIN) -> str:
        with pytest.raises(Problem) as caught:
            await enforce(at, True, who)
        return caught.value.reason_name

    assert await why() == "SSO_NOT_TESTED"
    await at.passed_test()
    assert await why(None) == "BREAK_GLASS_ADMIN"
    assert await why(CLERK) == "BREAK_GLASS_ADMIN"
    await map_groups(at, ("admins", Role.ADMIN))
    assert await why() == "SSO_NOT_TESTED"  # Of today's settings.
    await at.passed_test()
    _, eve = await at.session(of_groups(at, "admins"))
    assert await why(eve.user_id) == "BREAK_GLASS_ADMIN"
    assert not await demanded(at.made, CLERK)
    await enforce(at)
    assert ("ORGANIZATION", str(ACME)) in await at.made.revoked()
    assert [await demanded(at.made, each) for each in (ADMIN, SECOND, CLERK)] == [False, True, True]


async def test_the_named_admin_stays_one_while_it_is_enforced(at: Desk) -> None:
    await at.passed_test()
    await enforce(at, who=SECOND)
    bob = await at.made.member(SECOND)
    for decide in (
        lambda work: members.remove_member(work, bob.member_id),
        lambda work: members.update_member(work, bob.member_id, Role.VIEWER, bob.etag),
    ):
        with pytest.raises(WrongState) as caught:
            await at.made.decide(decide)
        assert caught.value.reason == Reason.ERROR_REASON_BREAK_GLASS_ADMIN
    await enforce(at, False, None)
    assert not await demanded(at.made, CLERK)
    await at.made.decide(lambda work: members.remove_member(work, bob.member_id))


async def test_who_isnt_of_a_proven_domain_needs_no_provider(at: Desk) -> None:
    await at.made.decide(lambda work: members.add_member(work, UUID(int=9), "guest@other.example", Role.VIEWER))
    await at.passed_test()
    await enforce(at)
    assert not await demanded(at.made, UUID(int=9))
    (domain,) = [each["domain_id"] for each in await at.made.rows("SELECT domain_id FROM identity.sso_domains")]
    with pytest.raises(WrongState):
        await at.made.decide(lambda work: sso_domains.remove_domain(work, domain))


async def test_disabling_ends_the_demand(at: Desk) -> None:
    await at.passed_test()
    await enforce(at)
    await at.made.decide(lambda work: sso.disable_identity_provider(work, at.provider.provider_id))
    assert not await demanded(at.made, CLERK)


async def test_a_test_says_what_would_have_been(at: Desk) -> None:
    from services._mesh.context import entered

    async def start() -> tuple[UUID, str]:
        test, url = await at.made.decide(
            lambda work: saml_requests.start_test_login(work, at.office.sp, at.provider.provider_id)
        )
        return test.test_id, url

    async def result(test_id: UUID) -> Any:
        with entered(context(ACME)):
            return await saml_requests.get_test_result(at.office.store, test_id, at.office.wall_now())

    before = await everybody(at.made)
    await at.update(mfa_contexts=(MFA,))
    test_id, url = await start()
    assert (await result(test_id)).state == "PENDING"
    await at.post(at.path("acs"), at.idp.answer(url, of_groups(at, "a", authn_context=MFA)))
    found = await result(test_id)
    assert (found.state, found.name_id, found.email, found.role, found.aal) == (
        *("PASSED", "person-1", "eve@acme.example", "VIEWER"),
        2,
    )
    assert found.attribute_names == ("email", "groups")
    assert await everybody(at.made) == before
    assert await at.made.rows("SELECT FROM identity.sso_codes") == []
    # One that fails says why, if it is its own browser that shows it.
    attacker = TestIdp(at.idp.entity_id)
    test_id, url = await start()
    wrong = attacker.answer(url, at.said())
    await at.post(at.path("acs"), {**wrong, "RelayState": "another"})
    assert (await result(test_id)).state == "PENDING"
    assert cause(await at.post(at.path("acs"), wrong)) == "SIGNATURE"
    found = await result(test_id)
    assert (found.state, found.problem.partition(":")[0]) == ("FAILED", "SIGNATURE")
    at.made.clock.wall_ahead = timedelta(hours=2)
    with pytest.raises(NotFound):
        await result(test_id)


async def test_metadata_weakens_nothing(at: Desk) -> None:
    await at.update(mfa_contexts=(MFA,))
    await at.passed_test()
    await enforce(at)
    await at.session()
    before = await at.now()
    other = TestIdp(at.idp.entity_id)

    async def load(metadata: bytes, url: str = "") -> Any:
        found = await at.now()
        return await at.made.decide(
            lambda work: sso.import_metadata(work, found.provider_id, metadata, url, found.etag),
            action="identity.metadata.import",
        )

    after = await load(other.metadata(attributes='WantAuthnRequestsSigned="false" validUntil="2999-01-01T00:00:00Z"'))
    same = ("state", "provider_initiated", "mfa_contexts", "enforced", "break_glass_member_id", "default_role")
    assert [getattr(before, name) for name in same] == [getattr(after, name) for name in same]
    assert not after.is_tested
    assert cause(await at.sign_in()) == "SIGNATURE"  # The certificate before isn't trusted any more.
    with pytest.raises(WrongState):
        await load(other.metadata(entity_id="https://elsewhere.example/saml"))
    for url in ("https://user@idp.example.com/", "https://169.254.169.254/", "https://idp.example.com:22/"):
        with pytest.raises(Invalid, match="metadata_url"):
            await load(other.metadata(), url)


async def test_a_domain_is_proven_by_its_record_alone(at: Desk) -> None:
    from services._mesh.context import entered

    domain = await at.made.decide(lambda work: sso_domains.add_domain(work, "Sub.Acme.Example."))
    assert domain.name == "sub.acme.example"
    assert domain.record_name == "_recoup-challenge.sub.acme.example"
    for said in ([], ["recoup-domain-verification="], [domain.record_value + "x"]):
        at.dns.records[domain.record_name] = said
        with pytest.raises(WrongState) as caught, entered(context(ACME)):
            await sso_domains.find_proof(at.office.store, at.dns, domain.domain_id)
        assert caught.value.reason == Reason.ERROR_REASON_DOMAIN_NOT_PROVEN
    with pytest.raises(NotFound), entered(context(GLOBEX)):
        await sso_domains.find_proof(at.office.store, at.dns, domain.domain_id)
    for name in ("localhost", "acme..example", "-a.example", "a_b.example", "192.0.2.1", "*.acme.example", "x" * 300):
        with pytest.raises(Problem):
            await at.made.decide(lambda work, name=name: sso_domains.add_domain(work, name))
    with pytest.raises(Problem):
        await at.made.decide(lambda work: sso_domains.add_domain(work, "acme.example"))


async def test_what_isnt_a_form_is_refused(at: Desk) -> None:
    for path in (
        "/x/y/acs",
        f"/{ACME}/acs",
        f"/{ACME}/{uuid4()}/acs/",
        f"/{ACME.hex}/{at.provider.provider_id}/acs",
        "",
    ):
        with pytest.raises(NotFound):
            await at.post(path, {})
    assert cause(await at.post(at.path("acs"), {})) == "TOO_LARGE"
    assert cause(await at.post(at.path("acs"), {"SAMLResponse": "%%%"})) == "BASE64"
    assert cause(await at.post(at.path("acs"), {"SAMLResponse": "PGE+", "RelayState": "x" * 300})) == "RELAY_STATE"
    for query in ("", "code_challenge=short", f"code_challenge={'a' * 43}&return_to=https://evil.example/"):
        with pytest.raises(Problem):
            await at.get(f"{at.path('login')}?{query}")


async def test_metadata_of_ours_names_the_providers_own_addresses(at: Desk) -> None:
    answer = await at.get(at.path("metadata"))
    where = f"{ACME}/{at.provider.provider_id}"
    assert f'entityID="https://recoup.example.com/saml/{where}/metadata"'.encode() in answer.body
    assert f'Location="https://recoup.example.com/saml/{where}/acs"'.encode() in answer.body


async def test_a_name_id_that_is_an_address_will_do(at: Desk) -> None:
    await at.update(email_attribute="")
    assert cause(await at.sign_in()) == "EMAIL"
    _, session = await at.session(at.said(name_id="eve@acme.example", name_id_format=EMAIL_FORMAT))
    assert (await at.made.member(session.user_id)).email == "eve@acme.example"
