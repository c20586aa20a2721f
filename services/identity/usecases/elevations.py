"""Break-glass: taking it, ending it, and finding out whether it is in force."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from services._mesh import passports
from services._mesh.context import current, find_current
from services._mesh.errors import Denied, Exhausted, Reason, WrongState
from services._mesh.ids import uuid7
from services._mesh.revocations import RevocationKind
from services._mesh.uow import Store, UnitOfWork
from services.identity.model.elevations import MAX_UNREVIEWED, REVIEWED_WITHIN, Elevation, Reach, over
from services.identity.model.membership import Member, Role
from services.identity.model.reviews import Review
from services.identity.store import elevations as store
from services.identity.store.due import insert_due
from services.identity.store.reviews import count_undecided
from services.identity.store.revocations import insert_revocation
from services.identity.usecases.reviews import open_review

EXPIRY = "ELEVATION_EXPIRY"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What somebody asks for."""

    permissions: tuple[str, ...]
    reason: str
    minutes: int


async def request_elevation(work: UnitOfWork, reach: Reach, held: frozenset[str], wanted: Wanted) -> Elevation:
    """Take break-glass access for the caller's session, and open its review. `held` is what the caller's role holds.

    Raises Denied unless the caller is an Admin, Invalid for what break-glass doesn't reach, WrongState while another is
    in force, Exhausted (QUOTA_EXCEEDED) while too many of the caller's uses wait for their review.
    """
    context = current()
    person = context.responsible_person
    assert person is not None  # A passport of ORGANIZATION scope has one.
    if context.role != Role.ADMIN.value:  # Whatever a custom role may hold.
        raise Denied(
            Reason.ERROR_REASON_PERMISSION_MISSING,
            "Break-glass is for Admins.",
            {"permission": "identity.elevation.request"},
        )
    reach.require(work.organization_id, wanted.permissions, held)
    await store.lock_holder(work.connection, work.organization_id, context.actor)
    if in_force := await store.lock_elevations_in_force(work.connection, context.actor, work.now):
        raise WrongState(
            Reason.ERROR_REASON_STATE_WRONG,
            f"You have break-glass access already. End {in_force[0].elevation_id} first.",
            {"state": "ACTIVE", "allowed": "none in force"},
        )
    if await count_undecided(work.connection, person) >= MAX_UNREVIEWED:
        raise Exhausted(
            Reason.ERROR_REASON_QUOTA_EXCEEDED,
            f"{MAX_UNREVIEWED} of your uses of break-glass wait for their review. Have somebody decide one.",
            {"limit": str(MAX_UNREVIEWED)},
        )
    made = Elevation(
        elevation_id=uuid7(),
        organization_id=work.organization_id,
        holder=context.actor,
        holder_person=person,
        session_id=context.session_id,
        permissions=wanted.permissions,
        reason=wanted.reason,
        begins_at=work.now,
        expires_at=work.now + timedelta(minutes=wanted.minutes),
        review_id=uuid7(),
    )
    await store.insert_elevation(work.connection, made, context.aal)
    said = {"permissions": list(made.permissions), "reason": made.reason, "expires_at": made.expires_at.isoformat()}
    await insert_due(work.connection, work.organization_id, EXPIRY, made.elevation_id, made.expires_at)
    work.emit("identity.elevation.request", made.target, {**said, "review_id": str(made.review_id)})
    await open_review(
        work,
        Review(
            review_id=made.review_id,
            organization_id=work.organization_id,
            elevation_id=made.elevation_id,
            subject_person=person,
            opened_at=work.now,
            due_at=made.expires_at + REVIEWED_WITHIN,
        ),
    )
    return made


async def end_elevation(work: UnitOfWork, elevation_id: UUID) -> Elevation:
    """End an elevation before its time. Raises NotFound, WrongState where it is over."""
    found = await store.get_elevation(work.connection, elevation_id, lock=True)
    if (state := found.state(work.now)) != "ACTIVE":
        raise WrongState(
            Reason.ERROR_REASON_STATE_WRONG, f"It is {state.lower()} already.", {"state": state, "allowed": "ACTIVE"}
        )
    return await _end(work, found)


async def end_elevations(work: UnitOfWork, member: Member) -> int:
    """An ending: with membership, role or sessions a member's break-glass access goes too. Returns how many ended."""
    in_force = await store.lock_elevations_in_force(work.connection, member.actor, work.now)
    for found in in_force:
        await _end(work, found)
    return len(in_force)


async def _end(work: UnitOfWork, found: Elevation) -> Elevation:
    context = find_current()
    ended = await store.mark_elevation_ended(
        work.connection, found.elevation_id, work.now, context.actor if context else "process:identity"
    )
    # No process accepts a passport under it any more, once the feed has reached it.
    await insert_revocation(work.connection, RevocationKind.TOKEN.name, str(found.elevation_id), work.wall_now)
    said = {"before": found.expires_at.isoformat(), "after": work.now.isoformat(), "review_id": str(found.review_id)}
    work.emit("identity.elevation.end", found.target, said)
    return ended


async def get_elevation(reader: Store, elevation_id: UUID) -> Elevation:
    """One elevation. Raises NotFound."""
    async with reader.read() as connection:
        return await store.get_elevation(connection, elevation_id)


async def list_elevations(reader: Store, before: UUID | None, limit: int, state: str, now: datetime) -> list[Elevation]:
    """Elevations, newest first; one more than `limit` shows that there are more."""
    async with reader.read() as connection:
        return await store.list_elevations(connection, before, limit + 1, state, now)


@dataclass(frozen=True, slots=True)
class Bearer:
    """Whose passport is to carry an elevation: actor, session, and that session's assurance level."""

    organization_id: UUID
    actor: str
    session_id: str
    aal: int


async def elevation_for(
    reader: Store, reach: Reach, bearer: Bearer, elevation_id: UUID, audience: str, now: datetime
) -> passports.Elevation:
    """What a passport for `audience` carries under an elevation. Raises WrongState (ELEVATION_OVER).

    Asked anew for each passport: `now` is compared with its end in the database.
    """
    async with reader.read(bearer.organization_id) as connection:
        found = await store.find_elevation_in_force(connection, elevation_id, bearer.actor, bearer.session_id, now)
    if found is None or bearer.aal < 2:
        raise over(elevation_id)
    return passports.Elevation(
        elevation_id=elevation_id,
        permissions=reach.within(bearer.organization_id, audience, found.permissions),
        expires_at=int(found.expires_at.timestamp()),
    )
