"""Groups that a directory provisions, their members, and the roles that they stand for, in the database."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from scim2_models import ScimFilter
from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services._mesh.ids import uuid7
from services.identity.model.membership import Role
from services.identity.model.scim.groups import ScimGroup
from services.identity.model.scim.resources import Group
from services.identity.model.scim.roles import GroupRole
from services.identity.store.roles import find_roles
from services.identity.store.scim_filters import condition_of, order_of
from services.identity.store.scim_users import among
from services.identity.tables.scim import scim_group_members as members
from services.identity.tables.scim import scim_groups as groups
from services.identity.tables.scim import scim_roles as roles

_THERE = groups.c.deleted_at.is_(None)


def _group(row: Any) -> ScimGroup:
    return ScimGroup(
        row.organization_id,
        row.group_id,
        row.display_name,
        row.external_id,
        row.version,
        row.created_at,
        row.modified_at,
    )


async def find_group(connection: AsyncConnection, group_id: UUID, *, lock: bool = False) -> ScimGroup | None:
    """A group of the transaction's organization."""
    query = select(groups).where(groups.c.group_id == group_id, _THERE)
    row = (await connection.execute(query.with_for_update() if lock else query)).one_or_none()
    return _group(row) if row else None


async def list_groups(
    connection: AsyncConnection, given: ScimFilter[Any] | None, sort_by: str, descending: bool, skip: int, limit: int
) -> list[ScimGroup]:
    """A page of the groups that a filter lets through."""
    query = select(groups).where(_THERE, condition_of(given))
    query = query.order_by(*order_of(Group, sort_by, descending)).offset(skip).limit(limit)
    return [_group(row) for row in await connection.execute(query)]


async def count_groups(connection: AsyncConnection, given: ScimFilter[Any] | None) -> int:
    """How many groups a filter lets through."""
    query = select(func.count()).select_from(groups).where(_THERE, condition_of(given))
    return int((await connection.execute(query)).scalar_one())


async def is_group_name_taken(connection: AsyncConnection, key: str, besides: UUID | None = None) -> bool:
    """Whether another group of the organization has this name."""
    query = select(groups.c.group_id).where(groups.c.display_name_key == key, _THERE)
    if besides is not None:
        query = query.where(groups.c.group_id != besides)
    return (await connection.execute(query.limit(1))).one_or_none() is not None


async def insert_group(connection: AsyncConnection, group: ScimGroup) -> None:
    """Insert a group."""
    await connection.execute(
        insert(groups).values(
            organization_id=group.organization_id,
            group_id=group.group_id,
            version=group.version,
            created_at=group.created_at,
            modified_at=group.modified_at,
            **group.columns(),
        )
    )


async def mark_group(connection: AsyncConnection, group: ScimGroup) -> None:
    """Write a group's next version."""
    values = {**group.columns(), "version": group.version, "modified_at": group.modified_at}
    await connection.execute(update(groups).where(groups.c.group_id == group.group_id).values(**values))


async def mark_group_deleted(connection: AsyncConnection, group: ScimGroup, now: datetime) -> None:
    """Delete a group and its memberships; the row stays for the log's sake."""
    await connection.execute(delete(members).where(members.c.group_id == group.group_id))
    values = {"version": group.version + 1, "external_id": "", "deleted_at": now}
    await connection.execute(update(groups).where(groups.c.group_id == group.group_id).values(**values))


async def list_members_of(
    connection: AsyncConnection, group_ids: Collection[UUID], limit: int
) -> dict[UUID, list[UUID]]:
    """The members of several groups, in one query; at most `limit` of them altogether."""
    query = (
        select(members.c.group_id, members.c.scim_id)
        .where(among(members.c.group_id, group_ids))
        .order_by(members.c.group_id, members.c.scim_id)
        .limit(limit)
    )
    found: dict[UUID, list[UUID]] = defaultdict(list)
    for row in await connection.execute(query):
        found[row.group_id].append(row.scim_id)
    return found


async def list_groups_of(connection: AsyncConnection, scim_ids: Collection[UUID]) -> dict[UUID, list[ScimGroup]]:
    """The groups of several users, in one query."""
    query = (
        select(members.c.scim_id, groups)
        .join(
            groups, (groups.c.organization_id == members.c.organization_id) & (groups.c.group_id == members.c.group_id)
        )
        .where(among(members.c.scim_id, scim_ids), _THERE)
        .order_by(members.c.scim_id, groups.c.group_id)
    )
    found: dict[UUID, list[ScimGroup]] = defaultdict(list)
    for row in await connection.execute(query):
        found[row.scim_id].append(_group(row))
    return found


async def count_members(connection: AsyncConnection, group_id: UUID) -> int:
    """How many members a group has."""
    query = select(func.count()).select_from(members).where(members.c.group_id == group_id)
    return int((await connection.execute(query)).scalar_one())


async def list_member_ids(
    connection: AsyncConnection, group_id: UUID, candidates: Collection[UUID] | None = None
) -> frozenset[UUID]:
    """The members of a group; with `candidates`, those of them that are members."""
    query = select(members.c.scim_id).where(members.c.group_id == group_id)
    if candidates is not None:
        query = query.where(among(members.c.scim_id, candidates))
    return frozenset((await connection.execute(query)).scalars())


async def insert_members(
    connection: AsyncConnection, organization_id: UUID, group_id: UUID, scim_ids: Collection[UUID]
) -> None:
    """Add members that aren't there yet."""
    rows = [{"organization_id": organization_id, "group_id": group_id, "scim_id": each} for each in sorted(scim_ids)]
    if rows:
        await connection.execute(insert(members), rows)


async def delete_members(connection: AsyncConnection, group_id: UUID, scim_ids: Collection[UUID]) -> None:
    """Take members out of a group."""
    chosen = (members.c.group_id == group_id) & (among(members.c.scim_id, scim_ids))
    await connection.execute(delete(members).where(chosen))


async def delete_memberships(connection: AsyncConnection, scim_id: UUID) -> None:
    """Take a user out of all groups."""
    await connection.execute(delete(members).where(members.c.scim_id == scim_id))


async def list_roles(connection: AsyncConnection) -> list[GroupRole]:
    """What groups stand for, in their order."""
    rows = (await connection.execute(select(roles).order_by(roles.c.place))).all()
    known = await find_roles(connection, [row.custom_role_id for row in rows if row.custom_role_id])
    return [
        GroupRole(row.group_name, Role(row.role), row.custom_role_id, known.get(row.custom_role_id)) for row in rows
    ]


async def replace_roles(connection: AsyncConnection, organization_id: UUID, given: Sequence[GroupRole]) -> None:
    """Say anew what groups stand for."""
    await connection.execute(delete(roles))
    rows = [
        {
            "organization_id": organization_id,
            "mapping_id": uuid7(),
            "place": place,
            "group_name": each.group,
            "group_name_key": each.key,
            "role": each.role.value,
            "custom_role_id": each.custom_role_id,
        }
        for place, each in enumerate(given)
    ]
    if rows:
        await connection.execute(insert(roles), rows)
