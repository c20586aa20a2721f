"""Tells the APIs whether the people behind earlier decisions could still make them."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from services._mesh.clock import Clock
from services._mesh.uow import Store
from services.identity.model.membership import Organization
from services.identity.model.permissions import PermissionTable
from services.identity.model.standing import EarlierDecision, NowStanding, stand
from services.identity.store.organizations import get_organization
from services.identity.store.standings import list_memberships_behind


async def check_standing(
    reader: Store, table: PermissionTable, clock: Clock, organization_id: UUID, decisions: Sequence[EarlierDecision]
) -> tuple[Organization, list[NowStanding]]:
    """The organization, and how whoever made each decision stands now. Raises NotFound."""
    async with reader.read(organization_id) as connection:
        organization = await get_organization(connection, organization_id)
        found = []
        for each in decisions:
            members = await list_memberships_behind(connection, organization_id, each)
            found.append(stand(table, members, each.permission, clock.now()))
    return organization, found
