"""Organizations: how they come to be, how they are read and changed."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from services._mesh.context import current
from services._mesh.database import scope
from services._mesh.ids import PLATFORM
from services._mesh.uow import Store, UnitOfWork
from services.identity.model.membership import Organization, Role, require_etag, require_time_zone
from services.identity.model.permissions import require_platform_named
from services.identity.store import organizations as store
from services.identity.store.members import find_member_of_user, list_memberships, lock_members
from services.identity.usecases.members import add_member
from services.identity.usecases.own_membership import bound_organization, own_user
from services.identity.usecases.ownership import first_owner


async def check_organization(reader: Store, organization_id: UUID) -> Organization:
    """The organization, for a process that is about to grant something. Raises NotFound."""
    async with reader.read(organization_id) as connection:
        return await store.get_organization(connection, organization_id)


async def list_my_organizations(reader: Store) -> list[tuple[Organization, Role]]:
    """The caller's organizations, by slug; only the one that the credential is bound to, where it is.

    A login sees its own: who is the same person in one organization needn't be in another.
    """
    user, bound = own_user(), bound_organization()
    if user is None:
        return []
    if bound is not None:
        return await _bound_organization(reader, bound, user)
    found = []
    async with reader.read(UUID(int=0)) as connection:
        for member in await list_memberships(connection, user):
            await scope(connection, member.organization_id)
            organization = await store.find_organization(connection, member.organization_id)
            if organization is not None:
                found.append((organization, member.role))
    return sorted(found, key=lambda pair: pair[0].slug)


async def _bound_organization(reader: Store, organization_id: UUID, user_id: UUID) -> list[tuple[Organization, Role]]:
    """The one organization of a bound credential, with the role of whose it is."""
    async with reader.read(organization_id) as connection:
        member = await find_member_of_user(connection, organization_id, user_id)
        return [(await store.get_organization(connection, organization_id), member.role)] if member else []


async def get_organization(reader: Store) -> Organization:
    """The caller's organization."""
    async with reader.read() as connection:
        return await store.get_organization(connection, current().organization())


@dataclass(frozen=True, slots=True)
class OrganizationChange:
    """What is to change; empty texts stay as they are."""

    display_name: str
    time_zone: str
    reporting_currency: str
    etag: str


async def update_organization(work: UnitOfWork, change: OrganizationChange) -> Organization:
    """Change the organization. Raises Conflict (ETAG_MISMATCH), Invalid."""
    await lock_members(work.connection, work.organization_id)
    before = await store.get_organization(work.connection, work.organization_id)
    require_etag(change.etag, before.etag)
    if change.time_zone:
        require_time_zone(change.time_zone)
    wanted = {
        "display_name": change.display_name,
        "time_zone": change.time_zone,
        "reporting_currency": change.reporting_currency,
    }
    values = {name: value for name, value in wanted.items() if value}
    after = await store.mark_organization(work.connection, before, **values)
    work.emit(
        "identity.organization.update",
        f"organizations/{work.organization_id}",
        {"before": {name: getattr(before, name) for name in values}, "after": values},
    )
    return after


@dataclass(frozen=True, slots=True)
class NewOrganization:
    """An organization as the installation's operator creates it, with its first members."""

    organization_id: UUID
    slug: str
    display_name: str
    time_zone: str
    reporting_currency: str
    members: tuple[tuple[UUID, str, Role], ...]


async def create_organization(writer: Store, given: NewOrganization) -> bool:
    """Create an organization with its first members, once; False when it is there already.

    Raises ValueError when no first member is an Admin: nobody could let anybody in.
    """
    require_platform_named(given.organization_id, given.slug)
    if not any(role is Role.ADMIN for _, _, role in given.members):
        raise ValueError(f"organization {given.slug} needs an Admin among its first members")
    async with writer.begin(given.organization_id) as work:
        if await store.find_organization(work.connection, given.organization_id) is not None:
            return False
        await create_in(work, given)
    return True


async def create_in(work: UnitOfWork, given: NewOrganization) -> None:
    """Create it with its members in a unit of work of its own scope; the caller knows that it isn't there."""
    created = Organization(
        given.organization_id,
        given.slug,
        given.display_name,
        given.time_zone,
        given.reporting_currency,
        "ACTIVE",
        1,
        work.now,
    )
    await store.insert_organization(work.connection, created)
    work.emit("identity.organization.create", f"organizations/{given.organization_id}", {"slug": given.slug})
    for user_id, email, role in given.members:
        # The operator, who has the id of zeros, names them and answers for them.
        await first_owner(work, await add_member(work, user_id, email, role, confirmed_by=PLATFORM))
