"""What becomes of things when their time has come: an event, and where somebody has to look, a review."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from uuid import UUID

from services._mesh.ids import uuid7
from services._mesh.uow import UnitOfWork
from services.identity.model.reviews import Review
from services.identity.store.elevations import get_elevation
from services.identity.store.exceptions import get_exception
from services.identity.store.reviews import find_undecided_review_of, get_review
from services.identity.usecases import elevations, exceptions, reviews


async def _elevation_expires(work: UnitOfWork, elevation_id: UUID) -> None:
    found = await get_elevation(work.connection, elevation_id, lock=True)
    if found.state(work.now) == "EXPIRED":
        work.emit("identity.elevation.expire", found.target, {"review_id": str(found.review_id)})


async def _exception_comes_up(work: UnitOfWork, exception_id: UUID) -> None:
    """Open its review, unless it was ended or renewed meanwhile."""
    found = await get_exception(work.connection, exception_id, lock=True)
    if found.state(work.now) in ("ENDED", "ACTIVE") or await find_undecided_review_of(work.connection, exception_id):
        return
    opened = Review(
        review_id=uuid7(),
        organization_id=work.organization_id,
        exception_id=exception_id,
        subject_person=found.owner_person,
        opened_at=work.now,
        due_at=found.review_due_at,
    )
    said = {"about": found.about, "expires_at": found.expires_at.isoformat(), "review_id": str(opened.review_id)}
    work.emit("identity.exception.due", found.target, said)
    await reviews.open_review(work, opened)


async def _exception_expires(work: UnitOfWork, exception_id: UUID) -> None:
    found = await get_exception(work.connection, exception_id, lock=True)
    if found.state(work.now) in ("EXPIRED", "OVERDUE"):
        work.emit("identity.exception.expire", found.target, {"about": found.about, "owner": found.owner})


async def _review_is_overdue(work: UnitOfWork, review_id: UUID) -> None:
    found = await get_review(work.connection, review_id, lock=True)
    if found.state(work.now) == "OVERDUE":
        work.emit("identity.review.overdue", f"reviews/{review_id}", {"target": found.target})


DUES: Mapping[str, Callable[[UnitOfWork, UUID], Awaitable[None]]] = {
    elevations.EXPIRY: _elevation_expires,
    exceptions.NOTICE: _exception_comes_up,
    exceptions.EXPIRY: _exception_expires,
    reviews.OVERDUE: _review_is_overdue,
}
