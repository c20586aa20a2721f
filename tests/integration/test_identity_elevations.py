"""Break-glass on the real database: in force to the second, an hour at most, reviewed by somebody else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID, uuid4

import asyncpg
import pytest

from services._mesh import passports
from services._mesh.clock import Clock
from services._mesh.context import entered
from services._mesh.errors import Denied, Exhausted, Invalid, NotFound, Problem, Unauthenticated, WrongState
from services._mesh.passport_verifier import PassportVerifier
from services._mesh.passports import Passport, sign_passport
from services._mesh.revocations import Revocation, RevocationKind, Revocations
from services._mesh.uow import Store, UnitOfWork
from services.identity.model.elevations import Elevation, Reach
from services.identity.model.membership import Role
from services.identity.model.permissions import PermissionTable
from services.identity.model.reviews import Decision, Review, Verdict
from services.identity.store.members import find_member_of_user
from services.identity.store.revocations import list_revocations
from services.identity.usecases import elevations, members, organizations, persons, reviews
from services.identity.usecases.elevations import Bearer, Wanted
from services.identity.usecases.organizations import NewOrganization
from services.identity.usecases.passports import exchange_passport
from services.identity.usecases.principals import Authority
from tests.support.postgres import TestDatabase
from tests.support.things import ACME, GLOBEX, context, keys

pytestmark = pytest.mark.services("identity")

ADMIN, OTHER, CLERK = UUID(int=0x71), UUID(int=0x72), UUID(int=0x73)
BEGIN = datetime(2026, 3, 1, 9, tzinfo=UTC)
RELEASE, LOG = "audit.hold.release", "audit.log.read"
REACH = Reach({"audit": frozenset({RELEASE})}, {"audit": frozenset({LOG})})
HELD = frozenset({"audit.hold.place"})
WHY = "nobody who may release it is left"
SECOND = timedelta(seconds=1)
T = TypeVar("T")


class Identity:
    """Identity's decisions, on a clock that is moved by hand."""

    def __init__(self, database: TestDatabase) -> None:
        self.database, self.now = database, BEGIN
        self._role = database.role("identity_api", 4)
        self.store = Store(self._role, "identity", Clock(now=lambda: self.now))

    async def close(self) -> None:
        await self._role.close()

    async def decide(
        self,
        decide: Callable[[UnitOfWork], Awaitable[T]],
        person: UUID = ADMIN,
        organization: UUID = ACME,
        **facts: Any,
    ) -> T:
        """A decision as an RPC makes it, in somebody's session."""
        told = {"actor": f"user:{person}", "responsible_person": person, "role": "ADMIN", "aal": 2, **facts}
        call = context(organization, **{"session_id": f"session of {person}", **told})
        with entered(call):
            async with self.store.begin(organization, call) as work:
                return await decide(work)

    async def request(self, *permissions: str, minutes: int = 60, **facts: Any) -> Elevation:
        wanted = Wanted(permissions or (RELEASE,), WHY, minutes)
        return await self.decide(lambda work: elevations.request_elevation(work, REACH, HELD, wanted), **facts)

    async def review(self, found: Elevation, person: UUID = OTHER, **facts: Any) -> Review:
        said = Decision(Verdict.JUSTIFIED, "seen")
        return await self.decide(lambda work: reviews.decide_review(work, found.review_id, said), person, **facts)

    async def force(
        self,
        found: Elevation,
        person: UUID = ADMIN,
        session: str = "",
        aal: int = 2,
        organization: UUID = ACME,
        audience: str = "audit",
    ) -> frozenset[str]:
        """What a passport gets under an elevation."""
        bearer = Bearer(organization, f"user:{person}", session or f"session of {person}", aal)
        made = await elevations.elevation_for(self.store, REACH, bearer, found.elevation_id, audience, self.now)
        assert made.expires_at == found.expires_at.timestamp()
        return made.permissions

    async def events(self) -> list[tuple[str, str, Any]]:
        superuser = await self.database.superuser()
        rows = await superuser.fetch(
            "SELECT payload FROM identity.outbox WHERE action ~ '^identity.(elevation|review)' ORDER BY counter"
        )
        await superuser.close()
        found = [json.loads(row["payload"]) for row in rows]
        return [(each["action"], each["target"], each["metadata"]) for each in found]

    async def write(self, statement: str, *values: Any) -> str:
        """What a process does that has the service's own login, and no scruples: past every use case."""
        connection = await self.database.login("identity_api")
        try:
            async with connection.transaction():
                await connection.execute(f"SELECT set_config('app.organization_id', '{ACME}', true)")
                return str(await connection.execute(statement, *values))
        finally:
            await connection.close()


@pytest.fixture
async def identity(database: TestDatabase) -> AsyncIterator[Identity]:
    made = Identity(database)
    for organization, slug in ((ACME, "acme"), (GLOBEX, "globex")):
        people = ((ADMIN, "a@x.example", Role.ADMIN), (OTHER, "o@x.example", Role.ADMIN))
        await organizations.create_organization(
            made.store, NewOrganization(organization, slug, slug, "UTC", "USD", people)
        )
    yield made
    await made.close()


async def refused(kind: type[Problem], awaitable: Awaitable[Any]) -> str:
    with pytest.raises(kind) as caught:
        await awaitable
    return caught.value.reason_name


async def test_it_is_in_force_to_the_second_and_in_its_own_session_alone(identity: Identity) -> None:
    found = await identity.request(minutes=30)
    assert await identity.force(found) == {RELEASE}
    assert await identity.force(found, audience="scanner") == frozenset()
    for wrong in (
        {"person": OTHER},
        {"person": OTHER, "session": f"session of {ADMIN}"},
        {"session": "another of the same person"},
        {"organization": GLOBEX},
        {"aal": 1},
    ):
        assert await refused(WrongState, identity.force(found, **wrong)) == "ELEVATION_OVER", wrong
    identity.now = found.expires_at - SECOND
    assert await identity.force(found) == {RELEASE}
    identity.now = found.expires_at
    assert await refused(WrongState, identity.force(found)) == "ELEVATION_OVER"
    assert [each.state(identity.now) for each in await listed(identity, "")] == ["EXPIRED"]
    assert await listed(identity, "ACTIVE") == await listed(identity, "ENDED") == []


async def listed(identity: Identity, state: str) -> list[Elevation]:
    with entered(context(ACME)):
        return await elevations.list_elevations(identity.store, None, 10, state, identity.now)


async def test_only_what_break_glass_reaches_and_the_role_lacks(identity: Identity) -> None:
    for permission, said in (
        ("audit.hold.place", "held by your role already"),
        ("actions.action.approve", f"must be one that break-glass may reach here: {RELEASE}"),
        ("identity.review.decide", "must be one that break-glass may reach here"),
        (LOG, "must be one that break-glass may reach here"),  # Of the platform's, not of a customer's.
    ):
        with pytest.raises(Invalid) as caught:
            await identity.request(RELEASE, permission)
        (violation,) = caught.value.field_violations
        assert violation.field == "permissions[1]"
        assert said in violation.description
    for role in ("FINOPS", "SECURITY", "CUSTOM", "break-glass"):
        assert await refused(Denied, identity.request(role=role)) == "PERMISSION_MISSING"
    assert await identity.events() == []


async def test_an_hour_at_most_a_second_factor_and_a_person(identity: Identity) -> None:
    """By the rows themselves: whoever could get past the RPC's limits would be refused here."""
    for facts, constraint in (
        ({"minutes": 61}, "an_hour_at_most"),
        ({"aal": 1}, "elevations_aal_check"),
        ({"actor": f"token:{uuid4()}"}, "elevations_holder_check"),
        ({"session_id": ""}, "elevations_session_id_check"),
    ):
        with pytest.raises(Exception, match=constraint):
            await identity.request(**facts)
    assert await listed(identity, "") == []
    await identity.request(minutes=60)


async def test_one_at_a_time_even_at_once(identity: Identity) -> None:
    asked = await asyncio.gather(*(identity.request() for _ in range(3)), return_exceptions=True)
    assert sorted(type(each).__name__ for each in asked) == ["Elevation", "WrongState", "WrongState"]
    await identity.request(person=OTHER)


async def test_whose_uses_nobody_reviews_gets_no_more(identity: Identity) -> None:
    made = []
    for _ in range(5):
        made.append(await identity.request(minutes=1))
        identity.now += timedelta(minutes=1)
    assert await refused(Exhausted, identity.request()) == "QUOTA_EXCEEDED"
    await identity.review(made[0])
    await identity.request()


async def test_ending_it_is_final_and_reaches_the_feed(identity: Identity) -> None:
    found = await identity.request()
    ended = await identity.decide(lambda work: elevations.end_elevation(work, found.elevation_id), OTHER)
    assert (ended.ended_at, ended.ended_by) == (identity.now, f"user:{OTHER}")
    assert await refused(WrongState, identity.force(found)) == "ELEVATION_OVER"
    again = identity.decide(lambda work: elevations.end_elevation(work, found.elevation_id))
    assert await refused(WrongState, again) == "STATE_WRONG"
    elsewhere = identity.decide(lambda work: elevations.end_elevation(work, found.elevation_id), organization=GLOBEX)
    assert await refused(NotFound, elsewhere) == "RESOURCE_NOT_FOUND"
    async with identity.store.read(ACME) as connection:
        feed = await list_revocations(connection, 0, datetime(2000, 1, 1, tzinfo=UTC), 10)
    assert [(row.kind, row.key) for row in feed] == [("TOKEN", str(found.elevation_id))]
    assert [each.elevation_id for each in await listed(identity, "ENDED")] == [found.elevation_id]
    await identity.request()


async def test_with_the_role_the_membership_or_the_sessions_it_ends(identity: Identity) -> None:
    async with identity.store.read(ACME) as connection:
        admin = await find_member_of_user(connection, ACME, OTHER)  # ADMIN owns the organization, and stays.
    assert admin is not None
    for end in (
        lambda work: members.revoke_member_sessions(work, admin.member_id),
        lambda work: members.update_member(work, admin.member_id, Role.FINOPS, admin.etag),
        lambda work: members.remove_member(work, admin.member_id),
    ):
        found = await identity.request(person=OTHER)
        assert await identity.force(found, OTHER) == {RELEASE}
        await identity.decide(end, ADMIN)
        assert await refused(WrongState, identity.force(found, OTHER)) == "ELEVATION_OVER"
    actions = [action for action, _, _ in await identity.events()]
    assert actions == ["identity.elevation.request", "identity.review.open", "identity.elevation.end"] * 3


async def test_somebody_else_reviews_it_once_it_is_over(identity: Identity) -> None:
    found = await identity.request()
    assert await refused(WrongState, identity.review(found)) == "STATE_WRONG"
    await identity.decide(lambda work: elevations.end_elevation(work, found.elevation_id))
    # Whoever they act as, the person behind it counts: a token's creator, a service account's owner.
    for actor in (f"user:{ADMIN}", f"token:{uuid4()}", f"service:{uuid4()}", f"user:{uuid4()}"):
        own = identity.review(found, ADMIN, actor=actor)
        assert await refused(WrongState, own) == "REVIEW_OWN", actor
    foreign = identity.review(found, OTHER, organization=GLOBEX)
    assert await refused(NotFound, foreign) == "RESOURCE_NOT_FOUND"
    decided = await identity.review(found)
    assert (decided.verdict, decided.reviewer, decided.note) == (Verdict.JUSTIFIED, f"user:{OTHER}", "seen")
    assert await refused(WrongState, identity.review(found)) == "STATE_WRONG"
    request, opened, end, verdict = await identity.events()
    assert request[:2] == ("identity.elevation.request", found.target)
    assert request[2] == {
        "permissions": [RELEASE], "reason": WHY, "expires_at": found.expires_at.isoformat(),
        "review_id": str(found.review_id),
    }  # fmt: skip
    assert opened[:2] == ("identity.review.open", f"reviews/{found.review_id}")
    assert end[:2] == ("identity.elevation.end", found.target)
    assert verdict[:2] == ("identity.review.decide", f"reviews/{found.review_id}")
    assert (verdict[2]["verdict"], verdict[2]["target"]) == ("JUSTIFIED", found.target)


async def test_a_linked_identity_is_no_somebody_else(identity: Identity) -> None:
    """Neither one that was linked before, nor one that was linked only after it was taken."""
    found = await identity.request()
    await identity.decide(lambda work: elevations.end_elevation(work, found.elevation_id))
    second = await identity.decide(lambda work: members.add_member(work, CLERK, "a@X.example", Role.ADMIN), OTHER)
    assert await refused(WrongState, identity.review(found, CLERK)) == "REVIEW_OWN"
    await identity.decide(lambda work: persons.unlink_member(work, second.member_id), OTHER)
    await identity.review(found, CLERK)


async def test_a_login_that_was_unlinked_since_reviews_nothing_of_its_own(identity: Identity) -> None:
    found = await identity.request(actor=f"user:{CLERK}")  # Then another login of the Admin's.
    await identity.decide(lambda work: elevations.end_elevation(work, found.elevation_id))
    assert await refused(WrongState, identity.review(found, CLERK)) == "REVIEW_OWN"
    await identity.review(found)


async def test_a_review_that_nobody_decides_is_overdue(identity: Identity) -> None:
    found = await identity.request()

    async def states(*wanted: str) -> list[int]:
        with entered(context(ACME)):
            return [len(await reviews.list_reviews(identity.store, None, 9, s, identity.now)) for s in wanted]

    identity.now = found.expires_at + timedelta(days=3) - SECOND
    assert await states("", "OPEN", "OVERDUE", "DECIDED") == [1, 1, 0, 0]
    identity.now += SECOND
    assert await states("", "OPEN", "OVERDUE", "DECIDED") == [1, 0, 1, 0]
    await identity.review(found)
    assert await states("", "OPEN", "OVERDUE", "DECIDED") == [1, 0, 0, 1]


OUTBOX = (
    "INSERT INTO identity.outbox (organization_id, event_id, counter, action, payload, occurred_at)"
    f" VALUES ('{ACME}', gen_random_uuid(), 999, 'identity.x', '', now())"
)


async def test_the_data_itself_lets_nobody_review_themselves_or_change_what_was(identity: Identity) -> None:
    """By direct SQL, as the service's own login, with an event beside: only the rows' own rules are left."""
    found = await identity.request()
    verdict = (
        f"WITH event AS ({OUTBOX}) UPDATE identity.reviews SET verdict = '{{}}', note = '', reviewer = 'user:x',"
        " decided_at = now(), reviewer_person = $1"
    )
    with pytest.raises(asyncpg.CheckViolationError, match="somebody_else_decides"):
        await identity.write(verdict.format("JUSTIFIED"), ADMIN)
    with pytest.raises(asyncpg.CheckViolationError, match="verdict_fits"):
        await identity.write(verdict.format("END"), OTHER)
    with pytest.raises(asyncpg.CheckViolationError, match="decided_whole"):
        await identity.write(f"WITH event AS ({OUTBOX}) UPDATE identity.reviews SET verdict = 'JUSTIFIED'")
    # A second review about somebody else, which the holder could decide: it isn't theirs to be about.
    with pytest.raises(asyncpg.UniqueViolationError):
        await identity.write(REVIEW, found.elevation_id, ADMIN)
    other = await identity.request(person=OTHER)
    await identity.decide(lambda work: elevations.end_elevation(work, other.elevation_id), OTHER)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await identity.write("DELETE FROM identity.reviews")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await identity.write(f"UPDATE identity.reviews SET subject_person = '{CLERK}'")
    for change in ("expires_at = expires_at + interval '1 minute'", "permissions = '{x}'", "session_id = 'x'"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await identity.write(f"UPDATE identity.elevations SET {change}")
    with pytest.raises(asyncpg.PostgresError, match="stays so"):
        await identity.write(
            f"UPDATE identity.elevations SET ended_at = NULL, ended_by = NULL WHERE holder_person = '{OTHER}'"
        )
    await identity.write(verdict.format("JUSTIFIED") + f" WHERE subject_person = '{ADMIN}'", OTHER)
    with pytest.raises(asyncpg.PostgresError, match="stays so"):
        await identity.write(f"UPDATE identity.reviews SET verdict = 'UNJUSTIFIED' WHERE subject_person = '{ADMIN}'")


REVIEW = (
    "INSERT INTO identity.reviews (organization_id, review_id, elevation_id, subject_person, opened_at, due_at)"
    f" VALUES ('{ACME}', gen_random_uuid(), $1, $2, now(), now())"
)


async def test_a_review_is_about_whose_elevation_it_is(identity: Identity) -> None:
    found = await identity.request()
    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        await identity.write(REVIEW, found.elevation_id, CLERK)


async def test_a_passport_under_it_ends_with_it_and_is_held_against_it_again(
    identity: Identity, tmp_path: Path
) -> None:
    key, trust = keys(tmp_path, "identity")
    clock, revocations = Clock(now=lambda: identity.now), Revocations(Clock())
    verifier = PassportVerifier(trust, revocations, clock, audience="identity", profile="local")
    table = PermissionTable({"audit": {"ADMIN": HELD}}, {})
    authority: Any = Authority(
        reader=identity.store, sessions=None, issuer="", audience="", key=key, verifier=verifier,
        revocations=revocations, permissions=table, reach=REACH, clock=clock, seconds=300,
    )  # type: ignore[arg-type]  # fmt: skip
    found = await identity.request(minutes=2)
    wall = int(clock.wall_seconds())
    received = Passport(
        audience="actions", actor=f"user:{ADMIN}", responsible_person=ADMIN, organization_id=ACME, role="ADMIN",
        permissions=frozenset(), permissions_version=1, session_id=f"session of {ADMIN}", aal=2, auth_time=wall,
        act=(), presenter="x", jti=str(uuid4()), issued_at=wall, expires_at=wall + 300, kind=passports.Kind.HUMAN,
        elevation=passports.Elevation(
            elevation_id=found.elevation_id, permissions=frozenset(), expires_at=int(found.expires_at.timestamp())
        ),
    )  # fmt: skip
    token = sign_passport(key, received)
    at_audit = PassportVerifier(trust, revocations, clock, audience="audit", profile="local")

    async def exchange(shown: str) -> tuple[str, int]:
        with entered(context(None, peer="actions", peer_thumbprint="x5t")):
            return await exchange_passport(authority, shown, "audit")

    machines = sign_passport(key, replace(received, kind=passports.Kind.MACHINE))
    assert await refused(WrongState, exchange(machines)) == "ELEVATION_OVER"
    exchanged, expires_at = await exchange(token)
    got = at_audit.verify(exchanged, "x5t")
    assert got.elevation is not None
    assert (got.elevation.permissions, got.permissions) == ({RELEASE}, HELD)
    assert got.authority == f"elevation:{found.elevation_id}.{got.jti}"
    assert expires_at - got.issued_at <= 120
    # Who they are as a person is as it is now.
    was_linked = sign_passport(key, replace(received, responsible_person=OTHER, jti=str(uuid4())))
    assert at_audit.verify((await exchange(was_linked))[0], "x5t").responsible_person == ADMIN
    # The moment it is over, it is so for whoever holds a passport from before, and for whoever asks for another.
    identity.now = found.expires_at
    with pytest.raises(Unauthenticated) as caught:
        at_audit.verify(exchanged, "x5t")
    assert caught.value.reason_name == "CREDENTIAL_EXPIRED"
    identity.now -= SECOND
    at_audit.verify(exchanged, "x5t")
    await identity.decide(lambda work: elevations.end_elevation(work, found.elevation_id))
    assert await refused(WrongState, exchange(token)) == "ELEVATION_OVER"
    revocations.apply([Revocation(1, RevocationKind.TOKEN, str(found.elevation_id), clock.wall_seconds())], 1)
    assert await refused(Unauthenticated, exchange(token)) == "CREDENTIAL_REVOKED"
    with pytest.raises(Unauthenticated):
        at_audit.verify(exchanged, "x5t")
