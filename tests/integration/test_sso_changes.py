"""Whoever changes what an identity provider vouches for doesn't approve as somebody else by it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from services._mesh.context import entered
from services._mesh.errors import Denied, Problem
from services._mesh.passports import Passport
from services.identity.__main__ import permission_table
from services.identity.model.membership import Role
from services.identity.model.roles import APPROVER_WAIT
from services.identity.model.sso import Provider
from services.identity.usecases import members, roles, sso, sso_changes
from services.identity.usecases.passports import issue_passport
from tests.integration.test_identity_passports import Office, exchanged, opened
from tests.integration.test_identity_saml import map_groups, of_groups
from tests.support.identity import ADMIN, CLERK, SECOND
from tests.support.postgres import TestDatabase
from tests.support.saml_idp import MFA, TestIdp
from tests.support.signing_in import Desk, desk
from tests.support.things import ACME, context

pytestmark = pytest.mark.services("identity")
APPROVE, REQUEST = "actions.action.approve", "actions.action.request"


@pytest.fixture
async def office(database: TestDatabase, tmp_path: Path) -> AsyncIterator[Office]:
    async with opened(database, tmp_path) as made:
        yield made


@pytest.fixture
async def at(office: Office) -> AsyncIterator[Desk]:
    """Eve is an Admin and approves, by acme's provider; nothing is fresh any more."""
    async with desk(office.registry) as found:
        await map_groups(found, ("admins", Role.ADMIN))
        await found.session(of_groups(found, "admins"))
        found.made.clock.ahead = APPROVER_WAIT + timedelta(minutes=1)
        yield found


async def by_own_certificate(at: Desk, user: UUID = ADMIN) -> Provider:
    """An Admin imports a certificate of their own, and the test's provider signs with it from now on."""
    at.idp = TestIdp(at.idp.entity_id)
    found, own = await at.now(), at.idp.metadata()
    return await at.made.decide(lambda work: sso.import_metadata(work, found.provider_id, own, "", found.etag), user)


async def as_eve(office: Office, at: Desk) -> Passport:
    token, _ = await at.session(of_groups(at, "admins"))
    return await office.issue(token, audience="actions")


async def confirm(at: Desk, user: UUID) -> Provider:
    found = await at.now()
    return await at.made.decide(
        lambda work: sso_changes.confirm_identity_provider(work, found.provider_id, found.etag),
        user,
        action="identity.identity_provider.confirm",
    )


async def why(awaited: Any) -> str:
    with pytest.raises(Problem) as caught:
        await awaited
    return caught.value.reason_name


async def test_an_admin_with_a_certificate_of_their_own_approves_nothing_as_somebody_else(
    office: Office, at: Desk
) -> None:
    before = await as_eve(office, at)
    assert (APPROVE in before.permissions, before.withheld, before.awaits_provider) == (True, frozenset(), False)
    changed = await by_own_certificate(at)
    assert changed.approves_from is not None
    token, _ = await at.session(of_groups(at, "admins"))
    found = await office.issue(token, audience="actions")
    assert (APPROVE in found.permissions, found.withheld, found.awaits_provider) == (False, {APPROVE, REQUEST}, True)
    # Nor does who has a passport exchanged: what it was issued with decides nothing.
    with entered(context(None, peer="gateway", peer_thumbprint="x5t")):
        signed, _ = await issue_passport(office.authority, token, "scanner", ACME)
    narrowed = await exchanged(office, signed, "scanner", "actions")
    assert (APPROVE in narrowed.permissions, narrowed.withheld, narrowed.awaits_provider) == (
        False,
        {APPROVE, REQUEST},
        True,
    )
    # Other sessions aren't the provider's, and approve as before.
    own = await office.issue(office.session(ADMIN), audience="actions")
    assert APPROVE in own.permissions
    at.made.clock.ahead += APPROVER_WAIT - timedelta(minutes=1)
    assert (await office.issue(token, audience="actions")).awaits_provider
    at.made.clock.ahead += timedelta(minutes=2)
    assert APPROVE in (await office.issue(token, audience="actions")).permissions
    assert APPROVE in (await exchanged(office, signed, "scanner", "actions")).permissions


async def test_a_change_while_nobody_can_come_by_the_provider_waits_from_when_they_can(
    office: Office, at: Desk
) -> None:
    disabled = await at.now()
    await at.made.decide(lambda work: sso.disable_identity_provider(work, disabled.provider_id))
    await by_own_certificate(at)
    at.made.clock.ahead += APPROVER_WAIT + timedelta(minutes=1)
    found = await at.now()
    await at.made.decide(lambda work: sso.enable_identity_provider(work, found.provider_id, found.etag))
    assert APPROVE not in (await as_eve(office, at)).permissions
    # Who enables what is enabled puts nothing off.
    at.made.clock.ahead += APPROVER_WAIT + timedelta(minutes=1)
    found = await at.now()
    await at.made.decide(lambda work: sso.enable_identity_provider(work, found.provider_id, found.etag))
    assert APPROVE in (await as_eve(office, at)).permissions


async def test_another_admin_confirms_a_changed_provider(office: Office, at: Desk) -> None:
    assert await why(confirm(at, SECOND)) == "STATE_WRONG"  # Nothing waits.
    await by_own_certificate(at)
    assert await why(confirm(at, ADMIN)) == "SECOND_PERSON_REQUIRED"
    # Nor anybody by the changed provider itself: to confirm is an approval.
    token, _ = await at.session(of_groups(at, "admins"))
    withheld = (await office.issue(token, audience="identity")).withheld
    assert withheld > {"identity.approver.confirm", "identity.review.decide", "identity.member.update"}
    assert not [name for name in withheld if name.endswith(".read")]
    confirmed = await confirm(at, SECOND)
    assert (confirmed.confirmed_by, confirmed.approves_from) == (SECOND, None)
    (event,) = await at.made.events("identity.identity_provider.confirm")
    assert (event["actor"], event["metadata"]["after"]) == (f"user:{SECOND}", {"confirmed_by": str(SECOND)})
    assert APPROVE in (await as_eve(office, at)).permissions
    # The next change waits again; what vouches for nobody doesn't.
    assert (await at.update(display_name="Okta 2")).approves_from is None
    assert (await at.update(mfa_contexts=(MFA,))).approves_from is not None
    assert APPROVE not in (await as_eve(office, at)).permissions
    # Nor who changed it by another login.
    await at.made.decide(lambda work: members.add_member(work, UUID(int=9), "ada@acme.example", Role.ADMIN), SECOND)
    assert await why(confirm(at, UUID(int=9))) == "SECOND_PERSON_REQUIRED"


async def test_a_change_by_a_guest_or_by_a_changed_providers_session_is_confirmed_by_nobody(at: Desk) -> None:
    clerk = await at.made.member(CLERK)
    await at.made.decide(lambda work: members.update_member(work, clerk.member_id, Role.ADMIN, clerk.etag))
    await by_own_certificate(at, CLERK)
    assert await why(confirm(at, ADMIN)) == "SECOND_PERSON_REQUIRED"
    # Ada's certificate signs her in as Eve: what she does then isn't surely Eve's.
    _, eve = await at.session(of_groups(at, "admins"))
    at.made.clock.ahead += APPROVER_WAIT + timedelta(minutes=1)
    await by_own_certificate(at, ADMIN)
    await at.session(of_groups(at, "admins"))
    await by_own_certificate(at, eve.user_id)
    assert await why(confirm(at, ADMIN)) == "SECOND_PERSON_REQUIRED"
    clerk = await at.made.member(CLERK)
    given = roles.Assignment(clerk.member_id, Role.APPROVER, None, clerk.limits, clerk.etag)
    fresh = await at.made.decide(lambda work: roles.assign_role(work, permission_table(), given), eve.user_id)
    with pytest.raises(Denied):
        await at.made.decide(lambda work: roles.confirm_approver(work, fresh.member_id, fresh.etag), ADMIN)


async def test_who_confirms_is_another_in_the_data_itself(at: Desk) -> None:
    changed = await by_own_certificate(at)
    with pytest.raises(asyncpg.CheckViolationError):
        await at.made.rows(
            "UPDATE identity.sso_providers SET confirmed_by = changed_by WHERE provider_id = $1", changed.provider_id
        )


async def test_who_changes_where_groups_stand_makes_no_approver_by_what_another_admin_mapped(
    office: Office, at: Desk
) -> None:
    await map_groups(at, ("admins", Role.ADMIN), ("approvers", Role.APPROVER), user=SECOND, table=permission_table())
    await at.update(groups_attribute="department")
    said = {"email": ["zoe@acme.example"], "department": ["approvers"]}
    token, session = await at.session(at.said(name_id="zoe", attributes=said))
    zoe = await at.made.member(session.user_id)
    # The role is the second Admin's gift, so that the first one may confirm it: the provider waits all the same.
    await at.made.decide(lambda work: roles.confirm_approver(work, zoe.member_id, zoe.etag), ADMIN)
    found = await office.issue(token, audience="actions")
    assert (zoe.role, found.withheld, found.awaits_provider) == (Role.APPROVER, {APPROVE}, True)
