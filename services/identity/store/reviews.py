"""Reviews in the database."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Select, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from services._mesh.errors import NotFound
from services.identity.model.reviews import Decision, Review, Verdict, own
from services.identity.tables.elevations import reviews


def _review(row: Any) -> Review:
    return Review(
        review_id=row.review_id,
        organization_id=row.organization_id,
        elevation_id=row.elevation_id,
        exception_id=row.exception_id,
        subject_person=row.subject_person,
        opened_at=row.opened_at,
        due_at=row.due_at,
        verdict=None if row.verdict is None else Verdict(row.verdict),
        note=row.note or "",
        reviewer=row.reviewer or "",
        decided_at=row.decided_at,
        renewed_until=row.renewed_until,
    )


def _in_state(query: Select[Any], state: str, now: datetime) -> Select[Any]:
    decided, late = reviews.c.decided_at.is_not(None), reviews.c.due_at <= now
    return (
        query.where({"OPEN": ~decided & ~late, "OVERDUE": ~decided & late, "DECIDED": decided}[state])
        if state
        else query
    )


async def insert_review(connection: AsyncConnection, made: Review) -> None:
    """Insert a review that nobody has decided."""
    await connection.execute(
        insert(reviews).values(
            organization_id=made.organization_id,
            review_id=made.review_id,
            elevation_id=made.elevation_id,
            exception_id=made.exception_id,
            subject_person=made.subject_person,
            opened_at=made.opened_at,
            due_at=made.due_at,
        )
    )


async def get_review(connection: AsyncConnection, review_id: UUID, *, lock: bool = False) -> Review:
    """A review of the transaction's organization. Raises NotFound."""
    query = select(reviews).where(reviews.c.review_id == review_id)
    row = (await connection.execute(query.with_for_update() if lock else query)).one_or_none()
    if row is None:
        raise NotFound("review")
    return _review(row)


async def list_reviews(
    connection: AsyncConnection, before: UUID | None, limit: int, state: str, now: datetime
) -> list[Review]:
    """Reviews, newest first (their ids are UUIDv7), before `before`."""
    query = _in_state(select(reviews), state, now).order_by(reviews.c.review_id.desc()).limit(limit)
    if before is not None:
        query = query.where(reviews.c.review_id < before)
    return [_review(row) for row in await connection.execute(query)]


async def count_undecided(connection: AsyncConnection, person: UUID) -> int:
    """How many reviews of a person's elevations nobody has decided."""
    query = (
        select(func.count())
        .select_from(reviews)
        .where(reviews.c.subject_person == person, reviews.c.elevation_id.is_not(None), reviews.c.decided_at.is_(None))
    )
    return int((await connection.execute(query)).scalar_one())


async def find_undecided_review_of(connection: AsyncConnection, exception_id: UUID) -> Review | None:
    """The review of an exception that nobody has decided, locked."""
    query = select(reviews).where(reviews.c.exception_id == exception_id, reviews.c.decided_at.is_(None))
    row = (await connection.execute(query.with_for_update())).one_or_none()
    return _review(row) if row else None


async def mark_review_decided(
    connection: AsyncConnection,
    review: Review,
    decision: Decision,
    reviewer: tuple[str, UUID],
    decided_at: datetime,
) -> Review:
    """Record the verdict. Raises WrongState (REVIEW_OWN) where the database knows the reviewer as whom it is about."""
    actor, person = reviewer
    changed = (
        update(reviews)
        .where(reviews.c.review_id == review.review_id)
        .values(
            verdict=decision.verdict.value,
            note=decision.note,
            renewed_until=decision.renewed_until,
            reviewer=actor,
            reviewer_person=person,
            decided_at=decided_at,
        )
        .returning(reviews)
    )
    try:
        async with connection.begin_nested():
            return _review((await connection.execute(changed)).one())
    except IntegrityError as error:
        if "somebody_else_decides" in str(error.orig):
            raise own(review) from error
        raise
