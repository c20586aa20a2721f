"""Groups by SCIM: read, created, replaced, patched, deleted, and the roles that follow."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any
from uuid import UUID

from scim2_models import (
    Context,
    InvalidValueException,
    NotFoundException,
    TooManyException,
    UniquenessException,
)

from services._mesh.ids import uuid7
from services._mesh.uow import UnitOfWork
from services.identity.model.scim import documents
from services.identity.model.scim.answers import Answer, Request
from services.identity.model.scim.documents import Wanted
from services.identity.model.scim.groups import MemberChange, ScimGroup, patch_of, read_group
from services.identity.model.scim.queries import Query
from services.identity.model.scim.resources import MAX_GROUP_MEMBERS
from services.identity.store import scim_groups, scim_users
from services.identity.usecases.scim import membership
from services.identity.usecases.scim.events import emit_provision, told_ids

KIND = "Groups"
_MOST_MEMBERS = 20_000
Connection = Any


async def get_group(connection: Connection, group_id: UUID, asked: Wanted) -> tuple[ScimGroup, dict[str, Any]]:
    """A group and its resource. Raises NotFoundException."""
    group = await scim_groups.find_group(connection, group_id)
    if group is None:
        raise _unknown(group_id)
    (resource,) = await rendered(connection, [group], asked)
    return group, resource


async def list_groups(connection: Connection, query: Query) -> tuple[list[dict[str, Any]], int]:
    """A page of resources, and how many there are altogether."""
    total = await scim_groups.count_groups(connection, query.filter)
    page = await scim_groups.list_groups(
        connection, query.filter, query.sort_by, query.descending, query.start - 1, query.count
    )
    return await rendered(connection, page, query.wanted), total


async def rendered(connection: Connection, groups: Sequence[ScimGroup], asked: Wanted) -> list[dict[str, Any]]:
    """Groups as resources; the members of all of them are read at once."""
    members: Mapping[UUID, Sequence[UUID]] = {}
    if asked.has("members"):
        members = await scim_groups.list_members_of(connection, [each.group_id for each in groups], _MOST_MEMBERS + 1)
        if sum(len(each) for each in members.values()) > _MOST_MEMBERS:
            raise TooManyException(
                detail="These groups have too many members for one answer: ask for fewer groups (count), or without"
                " them (excludedAttributes=members)."
            )
    return [documents.projected(_resource(each, members.get(each.group_id, ())), asked) for each in groups]


def _resource(group: ScimGroup, members: Sequence[UUID]) -> dict[str, Any]:
    meta = documents.meta(KIND, group.group_id, group.version, group.created_at, group.modified_at)
    resource = {**group.document(), "id": str(group.group_id), "meta": meta}
    if members:
        resource["members"] = [
            {"value": str(each), "$ref": documents.location("Users", each), "type": "User"} for each in members
        ]
    return resource


async def create_group(work: UnitOfWork, payload: Mapping[str, Any]) -> ScimGroup:
    """A new group. Raises UniquenessException where the name is taken."""
    name, external_id, members = read_group(payload, Context.RESOURCE_CREATION_REQUEST)
    group = ScimGroup(work.organization_id, uuid7(), name, external_id, 1, work.now, work.now)
    await _require_free_name(work, group)
    await _require_users(work, members)
    before = await membership.mapped_roles(work, members)
    await scim_groups.insert_group(work.connection, group)
    await scim_groups.insert_members(work.connection, work.organization_id, group.group_id, members)
    await membership.apply_roles(work, before, await membership.mapped_roles(work, members))
    emit_provision(work, KIND, group.group_id, "create", {}, {"name": name, "added": told_ids(members)})
    return group


async def replace_group(work: UnitOfWork, group_id: UUID, payload: Mapping[str, Any], request: Request) -> ScimGroup:
    """A group as a PUT has it."""
    group = await _current(work, group_id, request)
    name, external_id, members = read_group(payload, Context.RESOURCE_REPLACEMENT_REQUEST)
    named = ScimGroup(
        group.organization_id, group_id, name, external_id, group.version, group.created_at, group.modified_at
    )
    return await _change(work, group, named, [MemberChange(clears=True, adds=members)], "replace")


async def patch_group(work: UnitOfWork, group_id: UUID, payload: Mapping[str, Any], request: Request) -> ScimGroup:
    """A group after a PATCH; one that changes nothing leaves no trace."""
    group = await _current(work, group_id, request)
    patch = patch_of(group, payload)
    return await _change(work, group, patch.group, patch.steps, "patch")


async def delete_group(work: UnitOfWork, group_id: UUID, request: Request) -> None:
    """Delete a group; its members lose the role that it stood for. Raises WrongState (the last Admin)."""
    group = await _current(work, group_id, request)
    members = await scim_groups.list_member_ids(work.connection, group_id)
    before = await membership.mapped_roles(work, members)
    await scim_groups.mark_group_deleted(work.connection, group, work.now)
    await membership.apply_roles(work, before, await membership.mapped_roles(work, members))
    told = {"name": group.display_name, "members": told_ids(members)}
    emit_provision(work, KIND, group_id, "delete", told, {"deleted": "true"})


async def _change(
    work: UnitOfWork, before: ScimGroup, named: ScimGroup, steps: Sequence[MemberChange], operation: str
) -> ScimGroup:
    adds, removes = await _difference(work, before.group_id, steps)
    is_renamed = named.key != before.key
    if named == before and not adds and not removes:
        return before
    if is_renamed:
        await _require_free_name(work, named)
    await _require_users(work, adds)
    size = await scim_groups.count_members(work.connection, before.group_id) + len(adds) - len(removes)
    if size > MAX_GROUP_MEMBERS:
        raise InvalidValueException(detail=f"A group may have at most {MAX_GROUP_MEMBERS} members.")
    touched = adds | removes
    if is_renamed:  # Its new name may stand for another role, for everybody in it.
        touched |= await scim_groups.list_member_ids(work.connection, before.group_id)
    roles = await membership.mapped_roles(work, touched)
    after = ScimGroup(
        before.organization_id,
        before.group_id,
        named.display_name,
        named.external_id,
        before.version + 1,
        before.created_at,
        work.now,
    )
    await scim_groups.mark_group(work.connection, after)
    await scim_groups.delete_members(work.connection, before.group_id, removes)
    await scim_groups.insert_members(work.connection, work.organization_id, before.group_id, adds)
    await membership.apply_roles(work, roles, await membership.mapped_roles(work, touched))
    was = {"name": before.display_name, "version": str(before.version)}
    told: dict[str, Any] = {"name": after.display_name, "version": str(after.version)}
    told |= {"added": told_ids(adds), "removed": told_ids(removes)}
    emit_provision(work, KIND, before.group_id, operation, was, told)
    return after


async def _difference(
    work: UnitOfWork, group_id: UUID, steps: Sequence[MemberChange]
) -> tuple[frozenset[UUID], frozenset[UUID]]:
    """Who comes and who goes by these steps, one after the other."""
    if not steps:
        return frozenset(), frozenset()
    named = frozenset().union(*(step.adds | step.removes for step in steps))
    candidates = None if any(step.clears for step in steps) else named
    before = await scim_groups.list_member_ids(work.connection, group_id, candidates)
    after = before
    for step in steps:
        after = ((frozenset() if step.clears else after) | step.adds) - step.removes
    return after - before, before - after


async def _require_users(work: UnitOfWork, ids: Collection[UUID]) -> None:
    """Raise InvalidValueException for a member that isn't a user of this organization, as far as it can know."""
    missing = set(ids) - await scim_users.list_there(work.connection, ids) if ids else set()
    if missing:
        raise InvalidValueException(detail=f"There is no user {min(missing)}.")


async def _current(work: UnitOfWork, group_id: UUID, request: Request) -> ScimGroup:
    group = await scim_groups.find_group(work.connection, group_id, lock=True)
    if group is None:
        raise _unknown(group_id)
    request.require_current(group.tag)
    return group


async def _require_free_name(work: UnitOfWork, group: ScimGroup) -> None:
    """The caller holds `lock_members`, so that nobody takes the name in between."""
    if await scim_groups.is_group_name_taken(work.connection, group.key, group.group_id):
        raise UniquenessException(attribute="displayName", detail="Another group has this displayName.")


def _unknown(group_id: UUID) -> NotFoundException:
    return NotFoundException(detail=f"There is no group {group_id}.")


def answer_of(status: int, group: ScimGroup, resource: Mapping[str, Any]) -> Answer:
    """A group's resource as an answer."""
    where = documents.location(KIND, group.group_id)
    headers = {"etag": group.tag, "location" if status == 201 else "content-location": where}
    return Answer(status, resource, headers)
