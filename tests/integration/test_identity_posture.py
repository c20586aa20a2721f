"""An organization's posture on the real database: each fact shows, and nothing of another organization's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from recoup_client.posture import rows
from services._mesh.context import entered
from services.identity.falling_due import FallingDue
from services.identity.model import posture as model
from services.identity.model.elevations import Reach
from services.identity.model.exceptions import ExceptionKind
from services.identity.usecases import elevations, exceptions, posture
from services.identity.usecases.posture import Sightings
from services.identity.wire import posture as wire
from tests.support.identity import ADMIN, CLERK, SECOND, Registry, registry
from tests.support.postgres import TestDatabase
from tests.support.things import ACME, GLOBEX, context

pytestmark = pytest.mark.services("identity")

DAY = timedelta(days=1)
REACH = Reach({"audit": frozenset({"audit.hold.release"})}, {})


@pytest.fixture
async def made(database: TestDatabase) -> AsyncIterator[Registry]:
    async with registry(database) as opened:
        yield opened


async def read(made: Registry, organization: UUID = ACME) -> model.Posture:
    with entered(context(organization)):
        return await posture.get_posture(made.store, made.clock.now(), made.clock.wall_now())


async def test_who_was_seen_without_a_second_factor_or_never(made: Registry) -> None:
    found = await read(made)
    assert (found.members, found.admins, found.weak_members_total) == (3, 2, 3)
    assert {each.last_aal for each in found.weak_members} == {0}
    sightings, now = Sightings(), made.clock.wall_now()
    for user, aal in ((ADMIN, 2), (SECOND, 2), (SECOND, 1)):
        sightings.note(ACME, user, aal, now)
    sightings.note(GLOBEX, CLERK, 2, now)  # Elsewhere: it says nothing here.
    assert await sightings.flush(made.store) == 3
    assert await sightings.flush(made.store) == 0
    weak = {each.user_id: (each.last_aal, each.last_seen_at) for each in (await read(made)).weak_members}
    assert weak == {SECOND: (1, now), CLERK: (0, None)}
    # What is noted late doesn't undo what was seen since.
    sightings.note(ACME, ADMIN, 1, now - DAY)
    sightings.note(ACME, SECOND, 2, now + DAY)
    await sightings.flush(made.store)
    assert {each.user_id for each in (await read(made)).weak_members} == {CLERK}


async def test_tokens_and_roles_that_nobody_uses(made: Registry) -> None:
    now, old, role = made.clock.wall_now(), made.clock.wall_now() - model.STALE_AFTER - DAY, uuid4()
    tokens = {"fresh": (now, None), "used": (old, now), "unused": (old, None), "long": (old, old)}
    superuser = await made.database.superuser()
    await superuser.execute("SET session_replication_role = replica")
    for name, (created, used) in tokens.items():
        token_id = uuid4()
        await superuser.execute(
            "INSERT INTO identity.api_tokens (organization_id, token_id, creator_user_id, display_name, secret_sha256,"
            " hint, permissions, connection_ids, state, created_at, expires_at)"
            " VALUES ($1, $2, $3, $4, $5, 'h', '{x}', '{}', 'ACTIVE', $6, $7)",
            ACME, token_id, ADMIN, name, token_id.bytes * 2, created, now + DAY,
        )  # fmt: skip
        if used:
            await superuser.execute("INSERT INTO identity.api_token_uses VALUES ($1, $2, $3)", ACME, token_id, used)
    for name in ("held", "unheld"):
        await superuser.execute(
            "INSERT INTO identity.roles (organization_id, role_id, name, description, permissions, version, created_at)"
            " VALUES ($1, $2, $3, '', '{scanner.scan.read}', 1, now())",
            ACME, role if name == "held" else uuid4(), name,
        )  # fmt: skip
    await superuser.execute(
        "UPDATE identity.members SET role = 'CUSTOM', custom_role_id = $1 WHERE user_id = $2", role, CLERK
    )
    await superuser.close()
    found = await read(made)
    assert sorted(each.display_name for each in found.stale_tokens) == ["long", "unused"]
    assert found.stale_tokens_total == 2
    assert [each.name for each in found.unused_roles] == ["unheld"]
    elsewhere = await read(made, GLOBEX)
    assert (elsewhere.stale_tokens_total, elsewhere.unused_roles_total, elsewhere.members) == (0, 0, 1)


async def test_what_is_open_due_and_overdue(made: Registry) -> None:
    wanted = elevations.Wanted(("audit.hold.release",), "nobody else is here", 60)
    taken = await made.decide(
        lambda work: elevations.request_elevation(work, REACH, frozenset(), wanted), session_id="s"
    )
    for about, days in (("findings/1", 1), ("findings/2", 60)):
        given = exceptions.Wanted(
            ExceptionKind.SUPPRESSION, about, "it is kept for the audit", made.clock.now() + days * DAY, ()
        )
        await made.decide(lambda work, given=given: exceptions.create_exception(work, given))
    found = await read(made)
    assert [each.elevation_id for each in found.elevations] == [taken.elevation_id]
    assert (found.reviews_open, found.exceptions_in_force, found.exceptions_due) == (1, 2, 0)
    assert (found.sso, found.scim_tokens, found.scim_synced_at) == ("OFF", 0, None)
    dispatcher = made.database.role("identity_dispatcher", 1)
    task = FallingDue(dispatcher, made.store, made.clock)
    made.clock.ahead += 2 * DAY
    await task.round()
    found = await read(made)
    assert (found.elevations, found.reviews_open, found.reviews_overdue) == ([], 2, 0)
    assert (found.exceptions_in_force, found.exceptions_expired, found.exceptions_overdue) == (1, 1, 0)
    made.clock.ahead += 53 * DAY
    await task.round()
    found = await read(made)
    assert (found.reviews_open, found.reviews_overdue) == (3, 2)
    assert (found.exceptions_in_force, found.exceptions_due) == (1, 1)
    assert (found.exceptions_expired, found.exceptions_overdue) == (1, 1)
    await dispatcher.close()


async def test_the_command_says_each_fact(made: Registry) -> None:
    from google.protobuf.json_format import MessageToDict

    found = MessageToDict(wire.posture(await read(made)), always_print_fields_with_no_presence=True)
    said = {fact: (count, which) for fact, count, which in rows(found)}
    assert said["members"] == ("3", "2 of them Admins")
    count, which = said["members without a second factor"]
    assert (count, which.count("never seen")) == ("3", 3)
    assert said["single sign-on"] == ("", "off")
