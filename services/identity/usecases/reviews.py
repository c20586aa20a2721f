"""Reviews: opened by what they are about, decided by somebody else than whom they are about."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from services._mesh.context import current
from services._mesh.errors import Reason, WrongState
from services._mesh.uow import Store, UnitOfWork
from services.identity.model.reviews import Review, Verdict, own, require_undecided
from services.identity.store import reviews as store
from services.identity.store.elevations import get_elevation


async def open_review(work: UnitOfWork, made: Review) -> None:
    """Open a review, in the transaction of what it is about."""
    await store.insert_review(work.connection, made)
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


async def decide_review(work: UnitOfWork, review_id: UUID, verdict: Verdict, note: str) -> Review:
    """Decide a review, for good. Raises NotFound, WrongState (REVIEW_OWN; STATE_WRONG while it is in force)."""
    context = current()
    person = context.responsible_person
    assert person is not None  # A passport of ORGANIZATION scope has one.
    found = await store.get_review(work.connection, review_id, lock=True)
    require_undecided(found)
    if person == found.subject_person:
        raise own(found)
    await _require_over(work, found)
    decided = await store.mark_review_decided(work.connection, found, verdict, note, (context.actor, person), work.now)
    said = {"target": found.target, "verdict": verdict.value, "note": note, "subject_person": str(found.subject_person)}
    work.emit("identity.review.decide", f"reviews/{review_id}", said)
    return decided


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
