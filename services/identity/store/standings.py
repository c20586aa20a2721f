"""The memberships that an earlier decision rests on."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from services.identity.model.membership import Member
from services.identity.model.standing import EarlierDecision
from services.identity.store.members import find_member_of_user
from services.identity.store.persons import person_of_user, users_of_person


async def list_memberships_behind(
    connection: AsyncConnection, organization_id: UUID, decision: EarlierDecision
) -> list[Member]:
    """A user's own membership; of a machine, those of every login of whoever answers for it."""
    kind, _, identifier = decision.actor.partition(":")
    users: frozenset[UUID] = frozenset()
    if kind == "user":
        users = frozenset({UUID(identifier)})
    elif kind in ("token", "service"):
        person = await person_of_user(connection, organization_id, decision.person_id)
        users = await users_of_person(connection, organization_id, person)
    found = [await find_member_of_user(connection, organization_id, user) for user in sorted(users)]
    return [each for each in found if each is not None]
