"""What an identity provider's change, or another provider, doesn't get anybody."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services._mesh.errors import Denied, Exhausted, Reason, Unauthenticated
from services.identity.usecases import saml_logins, sso
from tests.integration.test_identity_passports import Office, opened
from tests.integration.test_identity_saml import cause, enforce, person, principal, refused
from tests.support.identity import ADMIN
from tests.support.postgres import TestDatabase
from tests.support.saml_idp import TestIdp
from tests.support.signing_in import Desk, code_of, desk, enable, prove_domain, set_up
from tests.support.things import ACME

pytestmark = pytest.mark.services("identity")


@pytest.fixture
async def office(database: TestDatabase, tmp_path: Path) -> AsyncIterator[Office]:
    async with opened(database, tmp_path) as made:
        yield made


@pytest.fixture
async def at(office: Office) -> AsyncIterator[Desk]:
    async with desk(office.registry) as found:
        yield found


async def test_while_one_provider_is_enforced_another_ones_sessions_are_refused(office: Office, at: Desk) -> None:
    idp = TestIdp("https://b.example/saml")
    other = await enable(at.made, await set_up(at.made, idp, ACME, ADMIN), ADMIN)

    async def by_other(name: str) -> Any:
        said = at.said(other, name_id=name, attributes={"email": [f"{name}@acme.example"]})
        return await at.post(at.path("acs", other), idp.answer(await at.begin(provider=other), said))

    theirs, _ = await at.exchange(code_of(await by_other("bob")))
    await office.issue(theirs)
    await at.passed_test()
    await enforce(at)
    with pytest.raises(Denied) as caught:
        await office.issue(theirs)
    assert caught.value.reason == Reason.ERROR_REASON_SSO_REQUIRED
    assert cause(await by_other("carl")) == "ENFORCED"
    ours, _ = await at.session()
    await office.issue(ours)
    await office.issue(office.session(ADMIN))  # The Admin who may do without.


async def test_who_fills_the_table_locks_nobody_out(at: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saml_logins, "MAX_PENDING_REQUESTS", 3)
    _, test = await at.made.decide(
        lambda work: saml_logins.start_test_login(work, at.office.sp, at.provider.provider_id)
    )
    oldest = await at.begin()
    for _ in range(3):
        await at.begin()
    assert len(await at.made.rows("SELECT FROM identity.sso_requests")) == 3
    assert cause(await at.post(at.path("acs"), at.idp.answer(oldest, at.said()))) == "REQUEST"
    await at.session()
    assert (await at.post(at.path("acs"), at.idp.answer(test, at.said()))).status == 200
    monkeypatch.setattr(saml_logins, "MAX_PENDING_REQUESTS", 0)
    await at.made.rows("DELETE FROM identity.sso_requests")
    with pytest.raises(Exhausted):
        await at.begin()


async def test_a_changed_address_links_as_a_new_one_does(at: Desk) -> None:
    _, eve = await at.session()
    _, same = await at.session(at.said(attributes={"email": ["ada@acme.example"]}))
    assert same.user_id == eve.user_id
    assert await person(at.made, eve.user_id) == await person(at.made, ADMIN)


async def test_with_a_domain_its_peoples_sessions_end(office: Office, at: Desk) -> None:
    await prove_domain(at.made, at.dns, "kept.example", ACME, ADMIN)
    stays, _ = await at.session(at.said(name_id="stays", attributes={"email": ["kim@kept.example"]}))
    token, session = await at.session()
    code = code_of(await at.sign_in())
    (domain,) = await at.made.rows("SELECT domain_id FROM identity.sso_domains WHERE name = 'acme.example'")
    await at.made.decide(lambda work: sso.remove_domain(work, domain["domain_id"]))
    assert await refused(at, token) == "CREDENTIAL_REVOKED"
    assert ("SESSION", str(session.session_id)) in await at.made.revoked()
    with pytest.raises(Unauthenticated):
        await at.exchange(code)
    await office.issue(stays)


@pytest.mark.parametrize("change", ["certificate", "address", "second factor"])
async def test_what_vouches_for_people_ends_their_sessions_when_it_changes(at: Desk, change: str) -> None:
    await at.passed_test()
    token, session = await at.session()
    code = code_of(await at.sign_in())
    await at.update(display_name="Okta 2")
    await principal(at, token)  # A name vouches for nobody.
    await at.passed_test()
    found = await at.now()
    if change == "certificate":
        own = TestIdp(at.idp.entity_id).metadata()
        await at.made.decide(lambda work: sso.import_metadata(work, found.provider_id, own, "", found.etag))
    elif change == "address":
        await at.update(email_attribute="mail")
    else:
        await at.update(mfa_contexts=("anything",))
    assert await refused(at, token) == "CREDENTIAL_REVOKED"
    assert ("SESSION", str(session.session_id)) in await at.made.revoked()
    with pytest.raises(Unauthenticated):
        await at.exchange(code)
    assert not (await at.now()).is_tested
