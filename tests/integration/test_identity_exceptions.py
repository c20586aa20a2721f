"""Exceptions on the real database: never in force after their end, and looked at again by somebody else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from services._mesh.context import entered
from services._mesh.errors import AlreadyExists, Denied, Exhausted, Invalid, NotFound, Problem, WrongState
from services._mesh.metrics import Metrics
from services.identity.falling_due import FallingDue
from services.identity.model import exceptions as model
from services.identity.model.exceptions import ExceptionKind, Granted
from services.identity.model.reviews import Decision, Review, Verdict
from services.identity.store.exceptions import mark_exception
from services.identity.usecases import elevations, exceptions, reviews
from services.identity.usecases.elevations import Wanted as WantedElevation
from services.identity.usecases.exceptions import Wanted
from tests.support.identity import ADMIN, CLERK, SECOND, Registry, registry
from tests.support.postgres import TestDatabase
from tests.support.things import ACME, GLOBEX, context

pytestmark = pytest.mark.services("identity")

SUPPRESSION = ExceptionKind.SUPPRESSION
FINDING = f"findings/{UUID(int=9)}"
SECOND_OF_TIME, HOUR, DAY = timedelta(seconds=1), timedelta(hours=1), timedelta(days=1)


class Office:
    """Exceptions of acme's, and the task that finds what is due."""

    def __init__(self, made: Registry) -> None:
        self.made, self.metrics = made, Metrics()
        self._dispatcher = made.database.role("identity_dispatcher", 1)
        self.task = FallingDue(self._dispatcher, made.store, made.clock, self.metrics)

    async def close(self) -> None:
        await self._dispatcher.close()

    async def create(
        self, about: str = FINDING, days: float = 30, reviewers: tuple[UUID, ...] = (), user: UUID = CLERK, **facts: Any
    ) -> Granted:
        wanted = Wanted(SUPPRESSION, about, "it is kept for the audit", self.made.clock.now() + days * DAY, reviewers)
        told = {"role": "FINOPS", **facts}
        return await self.made.decide(lambda work: exceptions.create_exception(work, wanted), user, **told)

    async def in_force(self, organization: UUID = ACME) -> list[str]:
        now = self.made.clock.now()
        found = await exceptions.check_exceptions(self.made.store, organization, SUPPRESSION, now)
        return [each.about for each in found]

    async def states(self) -> list[str]:
        """By the lists, which compare in SQL; and by each exception itself."""
        now, found = self.made.clock.now(), list[str]()
        with entered(context(ACME)):
            for state in ("ACTIVE", "DUE", "EXPIRED", "OVERDUE", "ENDED"):
                listed = await exceptions.list_exceptions(self.made.store, None, 9, state, "", now)
                assert all(each.state(now) == state for each in listed)
                found += [state] * len(listed)
        return found

    async def reviews(self) -> list[Review]:
        with entered(context(ACME)):
            return await reviews.list_reviews(self.made.store, None, 9, "", self.made.clock.now())

    async def decide(self, review: Review, verdict: Verdict, days: float | None = None, **facts: Any) -> Review:
        until = None if days is None else self.made.clock.now() + days * DAY
        user = facts.pop("user", ADMIN)
        decision = Decision(verdict, "seen", until)
        return await self.made.decide(
            lambda work: reviews.decide_review(work, review.review_id, decision), user, **facts
        )

    def pass_to(self, moment: Any) -> None:
        self.made.clock.ahead += moment - self.made.clock.now()

    async def actions(self) -> list[str]:
        rows = await self.made.rows(
            "SELECT action FROM identity.outbox WHERE action ~ '(exception|review|elevation)' ORDER BY counter"
        )
        return [row["action"].removeprefix("identity.") for row in rows]


@pytest.fixture
async def office(database: TestDatabase) -> AsyncIterator[Office]:
    async with registry(database) as made:
        opened = Office(made)
        yield opened
        await opened.close()


async def refused(kind: type[Problem], awaitable: Awaitable[Any]) -> str:
    with pytest.raises(kind) as caught:
        await awaitable
    return caught.value.reason_name


async def test_it_is_in_force_until_it_expires_and_comes_up_before(office: Office) -> None:
    made = await office.create(days=30)
    assert await office.task.round() == 0
    assert (await office.states(), await office.in_force()) == (["ACTIVE"], [FINDING])
    assert await office.in_force(GLOBEX) == []
    office.pass_to(made.expires_at - model.NOTICE)
    assert await office.task.round() == 1
    assert (await office.states(), await office.in_force()) == (["DUE"], [FINDING])
    (review,) = await office.reviews()
    assert (review.target, review.subject_person) == (made.target, CLERK)
    assert review.due_at == made.expires_at + model.REVIEWED_WITHIN
    # It ends to the second whether or not anybody looked, and whether or not the task runs.
    office.pass_to(made.expires_at - SECOND_OF_TIME)
    assert await office.in_force() == [FINDING]
    office.pass_to(made.expires_at)
    assert (await office.states(), await office.in_force()) == (["EXPIRED"], [])
    assert await office.task.round() == 1
    office.pass_to(review.due_at)
    assert await office.states() == ["OVERDUE"]
    assert await office.task.round() == 1
    assert await office.actions() == [
        "exception.create", "exception.due", "review.open", "exception.expire", "review.overdue",
    ]  # fmt: skip
    assert await office.task.round() == 0


async def test_a_review_renews_it_and_the_next_one_comes(office: Office) -> None:
    made = await office.create(days=30)
    office.pass_to(made.expires_at + HOUR)
    assert await office.task.round() == 2
    (first,) = await office.reviews()
    await office.decide(first, Verdict.RENEW, days=20)
    assert (await office.states(), await office.in_force()) == (["ACTIVE"], [FINDING])
    office.pass_to(made.expires_at + HOUR + 14 * DAY)
    await office.task.round()  # That of the first review's due date as well, which was decided.
    assert await office.states() == ["DUE"]
    second, _ = await office.reviews()
    assert second.review_id != first.review_id
    await office.decide(second, Verdict.END)
    assert (await office.states(), await office.in_force()) == (["ENDED"], [])
    office.pass_to(made.expires_at + 90 * DAY)
    await office.task.round()
    assert await office.actions() == [
        "exception.create", "exception.due", "review.open", "exception.expire", "review.decide", "exception.renew",
        "exception.due", "review.open", "review.decide", "exception.end",
    ]  # fmt: skip


async def test_nobody_renews_their_own(office: Office) -> None:
    made = await office.create(user=SECOND)
    office.pass_to(made.expires_at)
    await office.task.round()
    (review,) = await office.reviews()
    for actor in (f"user:{SECOND}", f"token:{UUID(int=5)}", f"service:{UUID(int=6)}"):
        own = office.decide(review, Verdict.RENEW, days=9, user=SECOND, actor=actor)
        assert await refused(WrongState, own) == "REVIEW_OWN"
    # Nor past the use cases: an exception lasts longer only with a review that somebody else decided so.
    for change in (
        lambda work: mark_exception(work.connection, made.exception_id, expires_at=made.expires_at + DAY),
        lambda work: mark_exception(work.connection, made.exception_id, owner_person=ADMIN),
    ):
        with pytest.raises(Exception, match=r"renewed by its review alone|permission denied"):
            await office.made.decide(change)
    connection = await office.made.database.login("identity_api")
    await connection.execute(f"SELECT set_config('app.organization_id', '{ACME}', false)")
    with pytest.raises(asyncpg.CheckViolationError, match="somebody_else_decides"):
        await connection.execute(
            "UPDATE identity.reviews SET verdict = 'RENEW', note = '', reviewer = 'user:x', reviewer_person = $1,"
            " decided_at = now(), renewed_until = now() + interval '9 days'",
            SECOND,
        )
    await connection.close()
    assert await office.in_force() == []


async def test_who_is_asked_decides_or_an_admin(office: Office) -> None:
    made = await office.create(user=SECOND, reviewers=(CLERK,))
    assert made.reviewers == (CLERK,)
    office.pass_to(made.expires_at)
    await office.task.round()
    (review,) = await office.reviews()
    stranger = office.decide(review, Verdict.END, user=UUID(int=0x99), role="SECURITY")
    assert await refused(Denied, stranger) == "PERMISSION_MISSING"
    for verdict, days in ((Verdict.JUSTIFIED, None), (Verdict.RENEW, None), (Verdict.END, 9), (Verdict.RENEW, 400)):
        assert await refused(Invalid, office.decide(review, verdict, days)) == "FIELD_INVALID"
    await office.decide(review, Verdict.END, user=CLERK, role="SECURITY")
    for reviewers in ((CLERK,), (UUID(int=0x99),)):
        assert await refused(Invalid, office.create(reviewers=reviewers)) == "FIELD_INVALID"


async def test_ending_it_early(office: Office) -> None:
    made = await office.create()
    await office.made.decide(lambda work: exceptions.end_exception(work, made.exception_id, "not needed"))
    assert (await office.states(), await office.in_force()) == (["ENDED"], [])
    again = office.made.decide(lambda work: exceptions.end_exception(work, made.exception_id, "again"))
    assert await refused(WrongState, again) == "STATE_WRONG"
    foreign = office.made.decide(lambda work: exceptions.end_exception(work, made.exception_id, "no"), ADMIN, GLOBEX)
    assert await refused(NotFound, foreign) == "RESOURCE_NOT_FOUND"
    office.pass_to(made.expires_at)
    assert await office.task.round() == 2  # Nothing is left to tell, and nothing to review.
    assert await office.actions() == ["exception.create", "exception.end"]
    await office.create()


async def test_one_about_a_thing_an_hour_at_least_and_no_more_than_can_be_told(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    for days in (-1, 0.01, 367):
        assert await refused(Invalid, office.create(days=days)) == "FIELD_INVALID"
    await office.create()
    assert await refused(AlreadyExists, office.create()) == "RESOURCE_EXISTS"
    monkeypatch.setattr(exceptions, "MAX_IN_FORCE", 2)
    await office.create("findings/2")
    assert await refused(Exhausted, office.create("findings/3")) == "QUOTA_EXCEEDED"


async def test_nothing_overrides_what_an_action_rests_on(office: Office) -> None:
    """Its conditions hold for everybody: an exception from them would be believed, and would do nothing."""
    wanted = Wanted(ExceptionKind.POLICY_OVERRIDE, FINDING, "it is in a hurry", office.made.clock.now() + 30 * DAY, ())
    create = office.made.decide(lambda work: exceptions.create_exception(work, wanted), CLERK, role="FINOPS")
    assert await refused(Invalid, create) == "FIELD_INVALID"


async def test_break_glass_that_expires_is_told_too(office: Office) -> None:
    from services.identity.model.elevations import Reach

    reach = Reach({"audit": frozenset({"audit.hold.release"})}, {})
    wanted = WantedElevation(("audit.hold.release",), "nobody else is here", 60)
    facts = {"session_id": "s"}
    take = lambda work: elevations.request_elevation(work, reach, frozenset(), wanted)  # noqa: E731
    ended = await office.made.decide(take, **facts)
    await office.made.decide(lambda work: elevations.end_elevation(work, ended.elevation_id), **facts)
    found = await office.made.decide(take, **facts)
    office.pass_to(found.expires_at)
    assert await office.task.round() == 2
    assert (await office.actions())[-1] == "elevation.expire"
    assert (await office.actions()).count("elevation.expire") == 1
    office.pass_to(found.expires_at + timedelta(days=3))
    await office.task.round()
    assert (await office.actions()).count("review.overdue") == 2


async def test_a_failing_item_holds_up_no_other_and_two_tasks_do_it_once(office: Office) -> None:
    import asyncio

    made = await office.create(days=1)
    superuser = await office.made.database.superuser()
    await superuser.execute(
        "INSERT INTO identity.due_items VALUES ($1, 'EXCEPTION_NOTICE', $2, '2000-01-01')", ACME, UUID(int=404)
    )
    await superuser.close()
    office.pass_to(made.expires_at)
    another = FallingDue(office._dispatcher, office.made.store, office.made.clock)
    done = await asyncio.gather(office.task.round(), another.round())
    assert sum(done) == 2
    assert "recoup_identity_due_failures 1" in office.metrics.render()
    assert await office.task.round() == 0  # What is late was counted while the other task was still at it, perhaps.
    assert "recoup_identity_due_late 1" in office.metrics.render()
