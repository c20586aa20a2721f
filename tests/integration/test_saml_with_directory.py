"""Who is provisioned by a directory and signs in by SAML is one user: what the directory ends, ends."""

from __future__ import annotations

import pytest

from services._mesh.errors import Unauthenticated
from services.identity.usecases.sso_sessions import find_sso_principal
from tests.support.postgres import TestDatabase
from tests.support.scim import provisioning
from tests.support.signing_in import desk

pytestmark = pytest.mark.services("identity")


async def test_a_deactivated_person_is_out_by_every_name(database: TestDatabase) -> None:
    async with provisioning(database) as made, desk(made.registry) as at:
        user = await made.acme.made("Users", userName="eve@acme.example", externalId="person-1")
        token, session = await at.session()
        rows = await made.registry.rows("SELECT user_id FROM identity.scim_users")
        assert [row["user_id"] for row in rows] == [session.user_id]
        await made.acme.patch(f"/Users/{user['id']}", {"op": "replace", "path": "active", "value": False})
        with pytest.raises(Unauthenticated):
            await find_sso_principal(at.office.store, token, made.registry.clock.wall_now().timestamp())
        for said in (at.said(), at.said(name_id="another"), at.said(name_id="EVE@acme.example")):
            answer = await at.sign_in(said)
            assert (answer.status, b"(DIRECTORY)" in answer.body) == (403, True), answer.body
        # Whom the directory doesn't know, or keeps, is let in.
        await at.session(at.said(name_id="bob", attributes={"email": ["robert@acme.example"]}))


async def test_whom_the_directory_deactivated_before_they_came_never_comes(database: TestDatabase) -> None:
    async with provisioning(database) as made, desk(made.registry) as at:
        await made.acme.made("Users", userName="eve@acme.example", active=False)
        answer = await at.sign_in()
        assert (answer.status, b"(DIRECTORY)" in answer.body) == (403, True), answer.body
        assert await made.registry.events("identity.login.link") == []


async def test_an_address_doesnt_make_somebody_the_directory_s_user_where_the_provider_has_another_name(
    database: TestDatabase,
) -> None:
    async with provisioning(database) as made, desk(made.registry) as at:
        await made.acme.made("Users", userName="eve@acme.example")
        await at.session()
        rows = await made.registry.rows("SELECT user_id FROM identity.scim_users")
        assert [row["user_id"] for row in rows] == [None]
