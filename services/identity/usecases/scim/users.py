"""Users by SCIM: read, created, replaced, patched, deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from scim2_models import NotFoundException, UniquenessException

from services._mesh.ids import uuid7
from services._mesh.uow import UnitOfWork
from services.identity.model.scim import documents
from services.identity.model.scim.answers import Answer, Request
from services.identity.model.scim.documents import Wanted
from services.identity.model.scim.queries import Query
from services.identity.model.scim.users import ScimUser, created_document, patched_user, replaced_document
from services.identity.store import scim_groups, scim_users
from services.identity.usecases.scim import membership
from services.identity.usecases.scim.events import emit_provision, facts

KIND = "Users"
Connection = Any


async def get_user(connection: Connection, scim_id: UUID, asked: Wanted) -> tuple[ScimUser, dict[str, Any]]:
    """A user and their resource. Raises NotFoundException."""
    user = await scim_users.find_user(connection, scim_id)
    if user is None:
        raise _unknown(scim_id)
    (resource,) = await rendered(connection, [user], asked)
    return user, resource


async def list_users(connection: Connection, query: Query) -> tuple[list[dict[str, Any]], int]:
    """A page of resources, and how many there are altogether."""
    total = await scim_users.count_users(connection, query.filter)
    page = await scim_users.list_users(
        connection, query.filter, query.sort_by, query.descending, query.start - 1, query.count
    )
    return await rendered(connection, page, query.wanted), total


async def rendered(connection: Connection, users: Sequence[ScimUser], asked: Wanted) -> list[dict[str, Any]]:
    """Users as resources; the groups of all of them are read at once."""
    groups = {}
    if asked.has("groups"):
        groups = await scim_groups.list_groups_of(connection, [user.scim_id for user in users])
    return [documents.projected(_resource(user, groups.get(user.scim_id, ())), asked) for user in users]


def _resource(user: ScimUser, groups: Sequence[Any]) -> dict[str, Any]:
    meta = documents.meta(KIND, user.scim_id, user.version, user.created_at, user.modified_at)
    resource = {**user.document, "id": str(user.scim_id), "meta": meta}
    if groups:
        resource["groups"] = [
            {
                "value": str(group.group_id),
                "$ref": documents.location("Groups", group.group_id),
                "display": group.display_name,
                "type": "direct",
            }
            for group in groups
        ]
    return resource


async def create_user(work: UnitOfWork, payload: Mapping[str, Any]) -> ScimUser:
    """A new user. Raises UniquenessException where the name is taken."""
    document = created_document(payload)
    user = ScimUser(work.organization_id, uuid7(), document, None, 1, work.now, work.now)
    await _require_free_name(work, user)
    await scim_users.insert_user(work.connection, user)
    emit_provision(work, KIND, user.scim_id, "create", {}, facts(user))
    return user


async def replace_user(work: UnitOfWork, scim_id: UUID, payload: Mapping[str, Any], request: Request) -> ScimUser:
    """A user as a PUT has them."""
    user = await _current(work, scim_id, request)
    document = replaced_document(user, payload)
    return user if document == user.document else await _change(work, user, document, "replace")


async def patch_user(work: UnitOfWork, scim_id: UUID, payload: Mapping[str, Any], request: Request) -> ScimUser:
    """A user after a PATCH; one that changes nothing leaves no trace."""
    user = await _current(work, scim_id, request)
    document = patched_user(user, payload)
    return user if document is None else await _change(work, user, document, "patch")


async def delete_user(work: UnitOfWork, scim_id: UUID, request: Request) -> None:
    """Delete a user, and end their membership with all that rests on it. Raises WrongState (the last Admin)."""
    user = await _current(work, scim_id, request)
    await membership.forget(work, user)
    await scim_groups.delete_memberships(work.connection, scim_id)
    await scim_users.mark_user_deleted(work.connection, user, work.now)
    emit_provision(work, KIND, scim_id, "delete", facts(user), {"deleted": "true"})


async def _change(work: UnitOfWork, user: ScimUser, document: Mapping[str, Any], operation: str) -> ScimUser:
    after = user.changed(document, work.now)
    await _require_free_name(work, after)
    await scim_users.mark_user(work.connection, after)
    if user.active and not after.active:
        await membership.deactivate(work, user)
    elif after.active and not user.active:
        await membership.reactivate(work, after)
    changed = sorted(name for name in {*user.document, *document} if user.document.get(name) != document.get(name))
    told = {**facts(after), "changed": changed}
    emit_provision(work, KIND, user.scim_id, operation, facts(user), told)
    return after


async def _current(work: UnitOfWork, scim_id: UUID, request: Request) -> ScimUser:
    user = await scim_users.find_user(work.connection, scim_id, lock=True)
    if user is None:
        raise _unknown(scim_id)
    request.require_current(user.tag)
    return user


async def _require_free_name(work: UnitOfWork, user: ScimUser) -> None:
    """The caller holds `lock_members`, so that nobody takes the name in between."""
    if await scim_users.is_name_taken(work.connection, user.columns()["user_name_key"], user.scim_id):
        raise UniquenessException(attribute="userName", detail="Another user has this userName.")


def _unknown(scim_id: UUID) -> NotFoundException:
    return NotFoundException(detail=f"There is no user {scim_id}.")


def answer_of(status: int, user: ScimUser, resource: Mapping[str, Any]) -> Answer:
    """A user's resource as an answer."""
    where = documents.location(KIND, user.scim_id)
    headers = {"etag": user.tag, "location" if status == 201 else "content-location": where}
    return Answer(status, resource, headers)
