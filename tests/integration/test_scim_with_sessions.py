"""Who was a member before the directory provisioned them, and comes with a plain session, is its user from then on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event

from recoup.identity.v1 import scim_service_pb2 as pb
from recoup.mesh.v1 import access_pb2
from services._mesh.context import entered
from services.identity.__main__ import permission_table
from services.identity.model.membership import Role
from services.identity.usecases import roles
from tests.integration.test_identity_passports import Office, opened
from tests.integration.test_scim_provisioning import prove
from tests.support.identity import ADMIN, CLERK
from tests.support.postgres import TestDatabase
from tests.support.scim import Provisioning, provisioned
from tests.support.things import ACME, context

pytestmark = pytest.mark.services("identity")
OFF = {"op": "replace", "path": "active", "value": False}


@pytest.fixture
async def office(database: TestDatabase, tmp_path: Path) -> AsyncIterator[Office]:
    async with opened(database, tmp_path) as made:
        yield made


@pytest.fixture
async def made(office: Office) -> Provisioning:
    return await provisioned(office.registry)


def session(office: Office, user: UUID, email: str, **claims: Any) -> str:
    return office.session(user, **{"email": email, "email_verified": True, **claims})


async def linked_users(made: Provisioning) -> list[UUID | None]:
    return [row["user_id"] for row in await made.registry.rows("SELECT user_id FROM identity.scim_users")]


async def stand_for(made: Provisioning, **asked: Any) -> None:
    """Say what the one group stands for."""
    request = pb.UpdateScimRolesRequest(organization_id=str(ACME), roles=[pb.ScimRole(group="g", **asked)])
    told: dict[str, Any] = {"actor": f"user:{ADMIN}", "responsible_person": ADMIN, "role": "ADMIN", "aal": 2}
    with entered(context(ACME, "identity.scim_roles.update", **told)):
        await made.rpc.UpdateScimRoles(request, None)


async def test_a_member_is_the_directorys_user_from_their_next_passport_on(office: Office, made: Provisioning) -> None:
    user = await made.acme.made("Users", userName="c1", emails=[{"value": "cleo@acme.example"}])
    # Not while the domain isn't proven, nor by an address that the session doesn't prove, nor by another one.
    token = session(office, CLERK, "Cleo@acme.example")
    await office.issue(token)
    await prove(made)
    await office.issue(session(office, CLERK, "cleo@acme.example", email_verified=False))
    await office.issue(session(office, CLERK, "other@acme.example"))
    assert await linked_users(made) == [None]
    await office.issue(token)
    assert await linked_users(made) == [CLERK]
    (told,) = await made.registry.events("identity.scim.link")
    assert (told["actor"], told["metadata"]["after"]) == (f"user:{CLERK}", {"user_id": str(CLERK)})
    # From now on one statement is enough again.
    said: list[str] = []
    engine = made.registry.store._database._engine.sync_engine
    event.listen(engine, "before_cursor_execute", lambda *given: said.append(given[2]))
    await office.issue(token)
    assert len(said) == 1
    # What the directory ends, ends, whatever their address there has become; and it stays ended.
    path = f"/Users/{user['id']}"
    await made.acme.patch(path, {"op": "replace", "value": {"emails": [{"value": "married@acme.example"}]}})
    await made.acme.patch(path, OFF)
    assert (await made.registry.member(CLERK)).state == "REMOVED"
    assert (await office.refused(token)).reason_name == "RESOURCE_NOT_FOUND"
    assert ("MEMBER", f"{ACME}/user:{CLERK}") in await made.registry.revoked()


async def test_who_is_two_in_the_directory_is_neither(office: Office, made: Provisioning) -> None:
    await prove(made)
    for name in ("c1", "c2"):
        await made.acme.made("Users", userName=name, emails=[{"value": "cleo@acme.example"}])
    await office.issue(session(office, CLERK, "cleo@acme.example"))
    assert await linked_users(made) == [None, None]


async def test_the_owner_is_linked_and_keeps_the_role_that_they_must(office: Office, made: Provisioning) -> None:
    await prove(made)
    user = await made.acme.made("Users", userName="a1", emails=[{"value": "ada@acme.example"}])
    await made.acme.made("Groups", displayName="g", members=[{"value": user["id"]}])
    await stand_for(made, role=access_pb2.ROLE_VIEWER)
    passport = await office.issue(session(office, ADMIN, "ada@acme.example", aal="aal1"))
    assert (passport.role, await linked_users(made)) == ("ADMIN", [ADMIN])
    denied = (await made.registry.events("identity.member.update"))[-1]
    assert (denied["result"], denied["metadata"]["after"]["asked"]) == ("DENIED", "VIEWER")


async def test_a_directorys_group_may_have_a_custom_role(office: Office, made: Provisioning) -> None:
    table = permission_table()
    reader = await made.registry.decide(
        lambda work: roles.create_role(work, table, "reader", "", ["scanner.finding.read", "actions.action.approve"])
    )
    await prove(made)
    user = await made.acme.made("Users", userName="c1", emails=[{"value": "cleo@acme.example"}])
    group = await made.acme.made("Groups", displayName="g", members=[{"value": user["id"]}])
    await stand_for(made, role=access_pb2.ROLE_CUSTOM, custom_role_id=str(reader.role_id))
    passport = await office.issue(session(office, CLERK, "cleo@acme.example"), audience="actions")
    assert (passport.role, passport.permissions) == ("reader", frozenset())
    assert passport.withheld == {"actions.action.approve"}  # Fresh, as by any other way.
    found = await office.issue(session(office, CLERK, "cleo@acme.example"))
    assert found.permissions == {"scanner.finding.read"}
    await made.acme.ask("DELETE", f"/Groups/{group['id']}", expect=204)
    assert (await made.registry.member(CLERK)).role is Role.VIEWER
