"""Which organization a person is in who names none."""

from __future__ import annotations

from uuid import UUID

from services._mesh.database import scope
from services._mesh.errors import NotFound, Reason, WrongState
from services._mesh.uow import Store
from services.identity.store.members import list_memberships
from services.identity.store.organizations import find_organization


async def choose_organization(reader: Store, user_id: UUID, hint: UUID | None) -> UUID:
    """The organization that the session's claims name, if the person is a member of it, else their only one.

    Raises NotFound where there is none, WrongState (ORGANIZATION_CHOICE_NEEDED) where there are several.
    """
    active = await _active(reader, user_id)
    if hint in active:
        return hint
    if not active:
        raise NotFound("organization")
    if len(active) > 1:
        raise WrongState(
            Reason.ERROR_REASON_ORGANIZATION_CHOICE_NEEDED,
            f"You are a member of {len(active)} organizations. Name one, or choose one for when you name none.",
            {"organizations": str(len(active))},
        )
    return active[0]


async def _active(reader: Store, user_id: UUID) -> list[UUID]:
    found = []
    async with reader.read(UUID(int=0)) as connection:
        for member in await list_memberships(connection, user_id):
            await scope(connection, member.organization_id)
            organization = await find_organization(connection, member.organization_id)
            if organization is not None and organization.state == "ACTIVE":
                found.append(member.organization_id)
    return found
