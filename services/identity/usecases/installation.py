"""A new installation's way to its first Admin: a single-use token, and who claims the installation with it."""

from __future__ import annotations

from uuid import UUID

from services._mesh.context import current
from services._mesh.ids import PLATFORM
from services._mesh.uow import Store, UnitOfWork
from services.identity.model.membership import Organization, Role
from services.identity.model.operators import (
    INIT_TOKEN_PERIOD,
    already_claimed,
    new_init_token,
    refused_init_token,
    token_sha256,
)
from services.identity.model.permissions import PLATFORM_SLUG
from services.identity.store import operators as store
from services.identity.store.organizations import find_organization, get_organization
from services.identity.usecases.organizations import NewOrganization, create_in


async def begin_installation(writer: Store) -> str:
    """A token for the first Admin, which voids the ones before it. Raises Conflict once there is an Admin."""
    token = new_init_token()
    async with writer.begin(PLATFORM) as work:
        if await find_organization(work.connection, PLATFORM) is not None:
            raise already_claimed()
        expires_at = work.wall_now + INIT_TOKEN_PERIOD
        await store.put_init_token(work.connection, token_sha256(token), expires_at)
        work.emit("identity.installation.begin", "installation", {"token_expires_at": expires_at.isoformat()})
    return token


async def claim_installation(work: UnitOfWork, token: str, email: str) -> Organization:
    """Make the caller the platform's first Admin. Raises Unauthenticated, Conflict."""
    person = current().responsible_person
    assert person is not None
    if await find_organization(work.connection, PLATFORM) is not None:
        raise already_claimed()
    if not await store.take_init_token(work.connection, token_sha256(token), work.wall_now):
        raise refused_init_token()
    await create_in(work, _platform(person, email))
    work.emit("identity.installation.claim", "installation", {"user_id": str(person)})
    return await get_organization(work.connection, PLATFORM)


def _platform(person: UUID, email: str) -> NewOrganization:
    return NewOrganization(PLATFORM, PLATFORM_SLUG, "Platform", "UTC", "USD", ((person, email, Role.ADMIN),))
