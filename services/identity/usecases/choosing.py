"""Which organization a person is in who names none."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from services._mesh.database import scope
from services._mesh.errors import NotFound, Reason, WrongState
from services._mesh.uow import Store
from services.identity.store.members import list_choices
from services.identity.store.organizations import find_organization

# When the person chose the organization as their default, if they did.
Choice = tuple[datetime | None, UUID]


async def choose_organization(reader: Store, user_id: UUID, hint: UUID | None) -> UUID:
    """The person's `preferred` organization.

    Raises NotFound where they are in none, WrongState (ORGANIZATION_CHOICE_NEEDED) where they are in several.
    """
    active = await active_choices(reader, user_id)
    found = preferred(active, hint)
    if found is not None:
        return found
    if not active:
        raise NotFound("organization")
    raise WrongState(
        Reason.ERROR_REASON_ORGANIZATION_CHOICE_NEEDED,
        f"You are a member of {len(active)} organizations. Name one, or make one of them your default.",
        {"organizations": str(len(active))},
    )


def preferred(active: Sequence[Choice], hint: UUID | None) -> UUID | None:
    """Of the organizations that a person is an active member of: the one that they made their default last, else the
    one that their session's claims name, else their only one.
    """
    chosen = [(at, organization_id) for at, organization_id in active if at is not None]
    if chosen:
        return max(chosen)[1]
    ids = [organization_id for _, organization_id in active]
    if hint in ids:
        return hint
    return ids[0] if len(ids) == 1 else None


async def active_choices(reader: Store, user_id: UUID) -> list[Choice]:
    """The person's active memberships in active organizations."""
    found: list[Choice] = []
    async with reader.read(UUID(int=0)) as connection:
        for organization_id, chosen_at in await list_choices(connection, user_id):
            await scope(connection, organization_id)
            organization = await find_organization(connection, organization_id)
            if organization is not None and organization.state == "ACTIVE":
                found.append((chosen_at, organization_id))
    return found
