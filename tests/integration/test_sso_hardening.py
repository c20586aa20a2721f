"""What an identity provider's change, or another provider, doesn't get anybody."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services._mesh.errors import Denied, Exhausted, Invalid, Reason, Unauthenticated
from services.identity.model.sso import ServiceProvider
from services.identity.usecases import saml_requests, sso, sso_domains
from tests.integration.test_identity_passports import Office, opened
from tests.integration.test_identity_saml import cause, enforce, person, principal, refused
from tests.support.identity import ADMIN
from tests.support.postgres import TestDatabase
from tests.support.saml_idp import TestIdp, form
from tests.support.signing_in import PUBLIC, RETURN, Desk, code_of, desk, enable, prove_domain, set_up
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
    late = idp.answer(await at.begin(provider=other), at.said(other, name_id="late"))
    await enforce(at)
    with pytest.raises(Denied) as caught:
        await office.issue(theirs)
    assert caught.value.reason == Reason.ERROR_REASON_SSO_REQUIRED
    # It sends nobody there, and takes no answer of who was sent before.
    with pytest.raises(Denied) as caught:
        await by_other("carl")
    assert caught.value.reason == Reason.ERROR_REASON_SSO_REQUIRED
    assert cause(await at.post(at.path("acs", other), late)) == "ENFORCED"
    ours, _ = await at.session()
    await office.issue(ours)
    await office.issue(office.session(ADMIN))  # The Admin who may do without.


async def test_who_fills_the_table_locks_nobody_out(at: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saml_requests, "MAX_PENDING_REQUESTS", 3)
    _, test = await at.made.decide(
        lambda work: saml_requests.start_test_login(work, at.office.sp, at.provider.provider_id)
    )
    oldest = await at.begin()
    browser = at.cookie
    for _ in range(3):
        await at.begin()
    assert len(await at.made.rows("SELECT FROM identity.sso_requests")) == 3
    at.cookie = browser
    assert cause(await at.post(at.path("acs"), at.idp.answer(oldest, at.said()))) == "REQUEST"
    await at.session()
    assert (await at.post(at.path("acs"), at.idp.answer(test, at.said()))).status == 200
    monkeypatch.setattr(saml_requests, "MAX_PENDING_REQUESTS", 0)
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
    await at.made.decide(lambda work: sso_domains.remove_domain(work, domain["domain_id"]))
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


async def test_a_sign_in_is_bound_to_the_browser_that_began_it(at: Desk) -> None:
    """Whoever posts their own answer from somebody else's browser signs nobody in there."""
    answer = at.idp.answer(await at.begin(), at.said())
    browser = at.cookie
    assert len(browser) == 43
    for other in ("", "a" * 43, browser[:-1]):
        at.cookie = other
        assert cause(await at.post(at.path("acs"), answer)) == "BROWSER"
    kept = await at.made.rows("SELECT browser_sha256 FROM identity.sso_requests")
    assert browser.encode() not in [row["browser_sha256"] for row in kept]
    at.cookie = browser
    done = await at.post(at.path("acs"), answer)
    assert (done.status, done.cookie.value, done.cookie.max_age_seconds, at.cookie) == (303, "", 0, "")
    await at.exchange(code_of(done))
    # The cookie is of one sign-in: the one that the browser began last.
    first = at.idp.answer(await at.begin(), at.said())
    await at.begin()
    assert cause(await at.post(at.path("acs"), first)) == "BROWSER"
    # What the version before this one began says nothing of a browser, and begins again.
    old = at.idp.answer(await at.begin(), at.said())
    await at.made.rows("UPDATE identity.sso_requests SET browser_sha256 = NULL")
    assert cause(await at.post(at.path("acs"), old)) == "BROWSER"


async def test_a_code_goes_to_a_known_address_or_to_the_browsers_own_machine(at: Desk) -> None:
    for there in ("http://127.0.0.1:49152/abc-_1", "http://[::1]:8080/", RETURN, ""):
        answer = at.idp.answer(await at.begin(there), at.said())
        done = await at.post(at.path("acs"), answer)
        assert done.headers[0].value.startswith(f"{there or RETURN}?code=rcc_"), there
    for elsewhere in (
        *("http://127.0.0.1/x", "https://127.0.0.1:1/x", "http://localhost:1/x", "http://127.0.0.1:1@evil.example/"),
        *("http://127.0.0.1:1/x?y", "http://127.0.0.2:1/x", f"{RETURN}/x", "http://127.0.0.1:1"),
    ):
        with pytest.raises(Invalid, match=r"sso\.return_urls"):
            await at.begin(elsewhere)
    # Without any of the operator's, nobody is shown a code: not from here, and not from the provider.
    at.office = replace(at.office, sp=ServiceProvider(PUBLIC))
    with pytest.raises(Invalid):
        await at.begin()
    await at.update(provider_initiated=True)
    assert cause(await at.post(at.path("acs"), form(at.idp.response(at.said())))) == "NO_RETURN"
