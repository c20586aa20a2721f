"""What an identity provider's change, or another provider, doesn't get anybody."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services._mesh.errors import Denied, Reason
from tests.integration.test_identity_passports import Office, opened
from tests.integration.test_identity_saml import cause, enforce
from tests.support.identity import ADMIN
from tests.support.postgres import TestDatabase
from tests.support.saml_idp import TestIdp
from tests.support.signing_in import Desk, code_of, desk, enable, set_up
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
