"""Reviews: opened by what they are about, decided by somebody else than whom they are about."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from services._mesh.context import current
from services._mesh.errors import Reason, WrongState
from services._mesh.uow import Store, UnitOfWork
from services.identity.model.exceptions import require_term
from services.identity.model.membership import Role
from services.identity.model.reviews import Decision, Review, not_asked, own, require_fitting, require_undecided
from services.identity.store import reviews as store
from services.identity.store.due import insert_due
from services.identity.store.elevations import get_elevation
from services.identity.store.exceptions import get_exception
from services.identity.usecases.exceptions import apply_verdict

OVERDUE = "REVIEW_OVERDUE"


async def open_review(work: UnitOfWork, made: Review) -> None:
    """Open a review, in the transaction of what it is about."""
    await store.insert_review(work.connection, made)
    await insert_due(work.connection, work.organization_id, OVERDUE, made.review_id, made.due_at)
    said = {"target": made.target, "subject_person": str(made.subject_person), "due_at": made.due_at.isoformat()}
    work.emit("identity.review.open", f"reviews/{made.review_id}", said)


async def get_review(reader: Store, review_id: UUID) -> Review:
    """One review. Raises NotFound."""
    async with reader.read() as connection:
        return await store.get_review(connection, review_id)


async def list_reviews(reader: Store, before: UUID | None, limit: int, state: str, now: datetime) -> list[Review]:
    """Reviews, newest first; one more than `limit` shows that there are more."""
    async with reader.read() as connection:
        return await store.list_reviews(connection, before, limit + 1, state, now)


async def decide_review(work: UnitOfWork, review_id: UUID, decision: Decision) -> Review:
    """Decide a review, for good; an exception is renewed or ended by it.

    Raises NotFound, Invalid, Denied where others are asked, WrongState (REVIEW_OWN; STATE_WRONG while break-glass
    access is in force, or where it was decided).
    """
    context = current()
    person = context.responsible_person
    assert person is not None  # A passport of ORGANIZATION scope has one.
    found = await store.get_review(work.connection, review_id, lock=True)
    require_undecided(found)
    if found.subject_person in context.persons() or context.is_caller(await _holder(work, found)):
        raise own(found)
    require_fitting(found, decision)
    await _require_over(work, found)
    await _require_asked(work, found, person)
    if decision.renewed_until is not None:
        require_term("renewed_until", decision.renewed_until, work.now)
    decided = await store.mark_review_decided(work.connection, found, decision, (context.actor, person), work.now)
    said = {"target": found.target, "verdict": decision.verdict.value, "note": decision.note}
    work.emit("identity.review.decide", f"reviews/{review_id}", {**said, "subject_person": str(found.subject_person)})
    if found.exception_id is not None:
        await apply_verdict(work, found, decision)
    return decided


async def _holder(work: UnitOfWork, review: Review) -> str:
    """The login that has what the review is about: the person's, or one that isn't theirs any more."""
    if review.elevation_id is not None:
        return (await get_elevation(work.connection, review.elevation_id)).holder
    assert review.exception_id is not None  # It is about exactly one of them.
    return (await get_exception(work.connection, review.exception_id)).owner


async def _require_asked(work: UnitOfWork, review: Review, person: UUID) -> None:
    """Where an exception names its reviewers, they decide, or an Admin does."""
    if review.exception_id is None or current().role == Role.ADMIN.value:
        return
    exception = await get_exception(work.connection, review.exception_id)
    if exception.reviewers and person not in exception.reviewers:
        raise not_asked(review)


async def _require_over(work: UnitOfWork, review: Review) -> None:
    """What is still in force has a part that nobody has seen yet."""
    if review.elevation_id is None:
        return
    elevation = await get_elevation(work.connection, review.elevation_id)
    if (state := elevation.state(work.now)) == "ACTIVE":
        raise WrongState(
            Reason.ERROR_REASON_STATE_WRONG,
            "The break-glass access is still in force. End it, then decide.",
            {"state": state, "allowed": "EXPIRED, ENDED"},
        )
