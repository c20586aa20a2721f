"""Exceptions: making them, ending them, and what becomes of them when they fall due."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from services._mesh.context import current
from services._mesh.errors import AlreadyExists, Exhausted, Reason, WrongState, invalid_field
from services._mesh.ids import uuid7
from services._mesh.uow import Store, UnitOfWork
from services.identity.model.exceptions import (
    MAX_IN_FORCE,
    ExceptionKind,
    Granted,
    notice_at,
    require_made,
    require_term,
)
from services.identity.model.reviews import Decision, Review, Verdict
from services.identity.store import exceptions as store
from services.identity.store.due import insert_due
from services.identity.store.members import find_member_of_user
from services.identity.store.persons import person_of_user

NOTICE, EXPIRY = "EXCEPTION_NOTICE", "EXCEPTION_EXPIRY"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What somebody asks for."""

    kind: ExceptionKind
    about: str
    reason: str
    expires_at: datetime
    reviewers: tuple[UUID, ...]


async def create_exception(work: UnitOfWork, wanted: Wanted) -> Granted:
    """Make an exception, owned by the person behind the caller.

    Raises Invalid, AlreadyExists where one of this kind about the same is in force, Exhausted (QUOTA_EXCEEDED).
    """
    context = current()
    person = context.responsible_person
    assert person is not None  # A passport of ORGANIZATION scope has one.
    require_made("kind", wanted.kind)
    require_term("expires_at", wanted.expires_at, work.now)
    reviewers = await _reviewers(work, wanted.reviewers, person)
    await store.lock_kind(work.connection, work.organization_id, wanted.kind)
    in_force = await store.list_in_force(work.connection, wanted.kind, work.now)
    if any(each.about == wanted.about for each in in_force):
        raise AlreadyExists(
            Reason.ERROR_REASON_RESOURCE_EXISTS,
            "An exception about the same is in force. Its review renews it.",
            {"resource": "exception"},
        )
    if len(in_force) >= MAX_IN_FORCE:
        raise Exhausted(
            Reason.ERROR_REASON_QUOTA_EXCEEDED,
            f"{MAX_IN_FORCE} exceptions of this kind are in force. End some that nobody needs.",
            {"limit": str(MAX_IN_FORCE)},
        )
    made = Granted(
        exception_id=uuid7(),
        organization_id=work.organization_id,
        kind=wanted.kind,
        about=wanted.about,
        reason=wanted.reason,
        owner=context.actor,
        owner_person=person,
        reviewers=reviewers,
        created_at=work.now,
        term_begins_at=work.now,
        expires_at=wanted.expires_at,
    )
    await store.insert_exception(work.connection, made)
    await _plan(work, made)
    said = {"kind": made.kind.value, "about": made.about, "reason": made.reason, "owner_person": str(person)}
    asked = [str(each) for each in reviewers]
    more = {"expires_at": made.expires_at.isoformat(), "reviewers": asked}
    work.emit("identity.exception.create", made.target, {**said, **more})
    return made


async def _reviewers(work: UnitOfWork, users: Sequence[UUID], owner: UUID) -> tuple[UUID, ...]:
    """The persons behind the users who are asked to review. Raises Invalid."""
    persons = []
    for place, user in enumerate(users):
        member = await find_member_of_user(work.connection, work.organization_id, user)
        person = await person_of_user(work.connection, work.organization_id, user)
        if member is None or member.state != "ACTIVE":
            raise invalid_field(f"reviewers[{place}]", "must be the user id of a member")
        if person == owner:
            raise invalid_field(f"reviewers[{place}]", "must be somebody else than its owner")
        persons.append(person)
    return tuple(dict.fromkeys(persons))


async def _plan(work: UnitOfWork, made: Granted) -> None:
    """Have it come up for review before it expires, and its end told."""
    await insert_due(work.connection, work.organization_id, NOTICE, made.exception_id, made.notice_at)
    await insert_due(work.connection, work.organization_id, EXPIRY, made.exception_id, made.expires_at)


async def end_exception(work: UnitOfWork, exception_id: UUID, reason: str) -> Granted:
    """End an exception before its time. Raises NotFound, WrongState where it was ended."""
    found = await store.get_exception(work.connection, exception_id, lock=True)
    if found.ended_at is not None:
        raise WrongState(
            Reason.ERROR_REASON_STATE_WRONG, "It was ended already.", {"state": "ENDED", "allowed": "any other"}
        )
    return await _end(work, found, reason)


async def _end(work: UnitOfWork, found: Granted, reason: str) -> Granted:
    ended = await store.mark_exception(work.connection, found.exception_id, ended_at=work.now, ended_by=current().actor)
    said = {"before": found.state(work.now), "after": "ENDED", "reason": reason, "about": found.about}
    work.emit("identity.exception.end", found.target, said)
    return ended


async def apply_verdict(work: UnitOfWork, review: Review, decision: Decision) -> None:
    """What a decided review does to its exception: it goes on until another date, or is over. Raises Invalid."""
    assert review.exception_id is not None
    found = await store.get_exception(work.connection, review.exception_id, lock=True)
    if decision.verdict is Verdict.END:
        if found.ended_at is None:
            await _end(work, found, decision.note)
        return
    if found.ended_at is not None:
        raise WrongState(
            Reason.ERROR_REASON_STATE_WRONG,
            "It was ended meanwhile: make another one where it is needed still.",
            {"state": "ENDED", "allowed": "any other"},
        )
    assert decision.renewed_until is not None
    renewed = await store.mark_exception(
        work.connection,
        found.exception_id,
        term_begins_at=work.now,
        notice_at=notice_at(work.now, decision.renewed_until),
        expires_at=decision.renewed_until,
    )
    await _plan(work, renewed)
    said = {"before": found.expires_at.isoformat(), "after": renewed.expires_at.isoformat(), "about": found.about}
    work.emit("identity.exception.renew", found.target, said)


async def get_exception(reader: Store, exception_id: UUID) -> Granted:
    """One exception. Raises NotFound."""
    async with reader.read() as connection:
        return await store.get_exception(connection, exception_id)


async def list_exceptions(
    reader: Store, before: UUID | None, limit: int, state: str, about: str, now: datetime
) -> list[Granted]:
    """Exceptions, newest first; one more than `limit` shows that there are more."""
    async with reader.read() as connection:
        return await store.list_exceptions(connection, before, limit + 1, state, about, now)


async def check_exceptions(
    reader: Store, organization_id: UUID, kind: ExceptionKind, now: datetime
) -> Sequence[Granted]:
    """Which exceptions of a kind are in force now, for the service whose rule they are from."""
    async with reader.read(organization_id) as connection:
        return await store.list_in_force(connection, kind, now)
