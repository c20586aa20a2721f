"""All that a passport rests on, in one statement: for each one that is issued, identity reads the database once."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import Select, Text, Uuid, and_, bindparam, exists, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.identity.model.admission import Admission
from services.identity.model.membership import fold_address
from services.identity.store.members import member_of_user, read_member
from services.identity.store.scim_users import is_awaited
from services.identity.store.sso import demanded_provider, provider_changed
from services.identity.tables import organizations, revocation_head, revocations
from services.identity.tables.persons import persons


def sessions_of(organization_id: UUID, actor: str) -> str:
    """The key of a SESSION revocation that ends all that an actor has in an organization, up to its moment."""
    return f"{organization_id}/{actor}"


def _admission() -> Select[Any]:
    organization_id, user_id = bindparam("organization_id", type_=Uuid()), bindparam("user_id", type_=Uuid())
    state = select(organizations.c.state).where(organizations.c.organization_id == organization_id)
    own, also = persons.alias("own"), persons.alias("also")
    person = select(own.c.person_id).where(own.c.organization_id == organization_id, own.c.user_id == user_id)
    linked = select(func.array_agg(also.c.user_id)).where(
        also.c.organization_id == organization_id,
        also.c.person_id == func.coalesce(person.scalar_subquery(), user_id),
    )
    over = exists().where(revocations.c.kind == "SESSION", revocations.c.key == bindparam("session_id"))
    ended = select(func.max(revocations.c.revoked_at)).where(
        or_(
            and_(revocations.c.kind == "ACTOR", revocations.c.key == bindparam("actor")),
            and_(revocations.c.kind == "SESSION", revocations.c.key == bindparam("sessions")),
        )
    )
    return member_of_user(organization_id, user_id).add_columns(
        state.scalar_subquery().label("organization_state"),
        linked.scalar_subquery().label("linked"),
        over.label("session_over"),
        ended.scalar_subquery().label("all_ended_at"),
        demanded_provider(organization_id).label("demanded_provider"),
        provider_changed(organization_id, bindparam("made_session_id", type_=Uuid())).label("provider_changed_at"),
        is_awaited(organization_id, bindparam("address", type_=Text())).label("is_awaited"),
        select(revocation_head.c.seq).scalar_subquery().label("revocations_seen"),
    )


def _made(session_id: str) -> UUID | None:
    """The id of a session that identity made; another issuer's aren't UUIDs, or aren't among ours."""
    try:
        return UUID(session_id)
    except ValueError:
        return None


# Made once: to make it, and its key among the compiled ones, costs more than to run it.
_ADMISSION = _admission()


async def find_admission(
    connection: AsyncConnection, organization_id: UUID, user_id: UUID, session_id: str, actor: str, address: str = ""
) -> Admission | None:
    """A user's membership in the transaction's organization, with what decides about a session of theirs.

    `address` is one that the session proves, or empty.
    """
    given = {
        "organization_id": organization_id,
        "user_id": user_id,
        "session_id": session_id,
        "made_session_id": _made(session_id),
        "actor": actor,
        "sessions": sessions_of(organization_id, actor),
        "address": fold_address(address) if address else None,
    }
    row = (await connection.execute(_ADMISSION, given)).one_or_none()
    if row is None:
        return None
    return Admission(
        read_member(row),
        row.organization_state or "",
        row.person_id,
        row.session_over,
        row.all_ended_at,
        row.demanded_provider,
        frozenset(row.linked or ()) - {row.person_id},
        row.provider_changed_at,
        row.is_awaited,
        row.revocations_seen,
    )


async def has_ended(connection: AsyncConnection, session_id: str, actor: str, auth_time: int) -> bool:
    """Whether a session is over before an organization is chosen: by itself, or with all of its actor's."""
    query = select(
        exists().where(
            or_(
                and_(revocations.c.kind == "SESSION", revocations.c.key == session_id),
                and_(
                    revocations.c.kind == "ACTOR",
                    revocations.c.key == actor,
                    func.extract("epoch", revocations.c.revoked_at) >= auth_time,
                ),
            )
        )
    )
    return bool((await connection.execute(query)).scalar_one())
