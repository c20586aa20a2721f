"""SCIM's endpoint: which request means what. A change commits with its event, or leaves nothing behind."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from scim2_models import (
    ForbiddenException,
    InvalidValueException,
    NotFoundException,
    NotImplementedException,
    Resource,
)

from services._mesh.context import CallContext, current
from services._mesh.uow import Store, UnitOfWork
from services.identity.model.scim import documents, queries
from services.identity.model.scim.answers import Answer, MethodNotAllowed, Request
from services.identity.model.scim.bodies import read_object
from services.identity.model.scim.documents import Wanted, matches
from services.identity.model.scim.queries import Query
from services.identity.model.scim.resources import BASE, CONFIG, Group, ProvisionedUser, resource_types, schemas
from services.identity.model.scim.tokens import ScimToken
from services.identity.store.members import lock_members
from services.identity.store.scim_tokens import mark_token_used
from services.identity.usecases.scim import groups, users

_SEARCH = ".search"
_BULK = "Bulk"
MODELS: Mapping[str, type[Resource[Any]]] = {users.KIND: ProvisionedUser, groups.KIND: Group}
Decision = Callable[[UnitOfWork], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Caller:
    """The directory that asks: the database under its organization, and the context its events are under."""

    store: Store
    token: ScimToken
    context: CallContext


def caller_of(store: Store, token: ScimToken) -> Caller:
    """The caller that a token stands for: whoever made it is responsible for what is done with it."""
    name = f"scim:{token.token_id}"
    context = replace(
        current(),
        actor=name,
        organization_id=token.organization_id,
        responsible_person=token.created_by,
        authority=name,
    )
    return Caller(store, token, context)


async def read_scim(caller: Caller, request: Request) -> Answer:
    """The answer to a GET. Raises SCIMException."""
    match request.path:
        case ("ServiceProviderConfig" | "Schemas" | "ResourceTypes", *_):
            return _described(request)
        case (kind,) if kind in MODELS:
            return await _listed(caller, kind, queries.read_query(queries.from_url(request.query), MODELS[kind]))
        case (kind, identifier) if kind in MODELS:
            return await _found(caller, kind, identifier, request)
        case ("Bulk",):
            raise MethodNotAllowed("POST")
        case ("Me",):
            raise NotImplementedException(detail="/Me isn't served: a token stands for a directory, and for nobody.")
    raise _nothing()


async def write_scim(caller: Caller, request: Request) -> Answer:
    """The answer to everything else than a GET and a bulk job. Raises SCIMException."""
    match request.path:
        case ("ServiceProviderConfig" | "Schemas" | "ResourceTypes", *_):
            raise MethodNotAllowed("GET")
        case (*kinds, ".search") if len(kinds) < 2 and all(kind in MODELS for kind in kinds):
            if request.method != "POST":
                raise MethodNotAllowed("POST")
            return await _searched(caller, kinds[0] if kinds else "", read_object(request.body))
        case (kind, *identifiers) if kind in MODELS and len(identifiers) < 2:
            payload = read_object(request.body) if request.method != "DELETE" else {}
            return await change(caller, kind, identifiers[0] if identifiers else "", payload, request)
        case ("Me",):
            raise NotImplementedException(detail="/Me isn't served: a token stands for a directory, and for nobody.")
    raise _nothing()


async def change(caller: Caller, kind: str, identifier: str, payload: Mapping[str, Any], request: Request) -> Answer:
    """One change in a transaction of its own."""
    decide = _decision(kind, identifier, payload, request)
    # Interim: a request that changes nothing owes nothing. What does change owes the event, by the row's own trigger
    # and by the rule of the RPC.
    async with caller.store.begin(caller.token.organization_id, caller.context, interim=True) as work:
        await lock_members(work.connection, work.organization_id)
        answer = await decide(work)
        if work.emitted():
            work.require_owed(caller.context)
            await mark_token_used(work.connection, caller.token, work.now, wrote=True)
    return answer


def _decision(kind: str, identifier: str, payload: Mapping[str, Any], request: Request) -> Decision:
    is_user = kind == users.KIND
    if not identifier:
        if request.method != "POST":
            raise MethodNotAllowed("GET, POST")
        return lambda work: (_create_user if is_user else _create_group)(work, payload, request)
    if request.method not in ("PUT", "PATCH", "DELETE"):
        raise MethodNotAllowed("DELETE, GET, PATCH, PUT")
    found = _id(identifier)
    if request.method == "DELETE":
        return lambda work: _delete(work, kind, found, request)
    return lambda work: (_change_user if is_user else _change_group)(work, found, payload, request)


async def _create_user(work: UnitOfWork, payload: Mapping[str, Any], request: Request) -> Answer:
    user = await users.create_user(work, payload)
    (resource,) = await users.rendered(work.connection, [user], _asked(request, users.KIND))
    return users.answer_of(201, user, resource)


async def _create_group(work: UnitOfWork, payload: Mapping[str, Any], request: Request) -> Answer:
    group = await groups.create_group(work, payload)
    (resource,) = await groups.rendered(work.connection, [group], _asked(request, groups.KIND))
    return groups.answer_of(201, group, resource)


async def _change_user(work: UnitOfWork, scim_id: UUID, payload: Mapping[str, Any], request: Request) -> Answer:
    change_it = users.replace_user if request.method == "PUT" else users.patch_user
    user = await change_it(work, scim_id, payload, request)
    (resource,) = await users.rendered(work.connection, [user], _asked(request, users.KIND))
    return users.answer_of(200, user, resource)


async def _change_group(work: UnitOfWork, group_id: UUID, payload: Mapping[str, Any], request: Request) -> Answer:
    change_it = groups.replace_group if request.method == "PUT" else groups.patch_group
    group = await change_it(work, group_id, payload, request)
    asked = _asked(request, groups.KIND)
    if request.method == "PATCH" and asked == Wanted():
        # Directories add members one by one to groups of thousands: nobody needs all of them in each answer.
        return Answer(204, None, {"etag": group.tag})
    (resource,) = await groups.rendered(work.connection, [group], asked)
    return groups.answer_of(200, group, resource)


async def _delete(work: UnitOfWork, kind: str, identifier: UUID, request: Request) -> Answer:
    delete = users.delete_user if kind == users.KIND else groups.delete_group
    await delete(work, identifier, request)
    return Answer(204)


async def _found(caller: Caller, kind: str, identifier: str, request: Request) -> Answer:
    found = _id(identifier)
    asked = _asked(request, kind)
    async with caller.store.read(caller.token.organization_id) as connection:
        if kind == users.KIND:
            user, resource = await users.get_user(connection, found, asked)
            answer = users.answer_of(200, user, resource)
        else:
            group, resource = await groups.get_group(connection, found, asked)
            answer = groups.answer_of(200, group, resource)
    if matches(answer.headers["etag"], request.headers.get("if-none-match", "-")):
        return Answer(304, None, {"etag": answer.headers["etag"]})
    return answer


async def _listed(caller: Caller, kind: str, query: Query) -> Answer:
    read = users.list_users if kind == users.KIND else groups.list_groups
    async with caller.store.read(caller.token.organization_id) as connection:
        resources, total = await read(connection, query)
    return Answer(200, documents.page(resources, total, query.start))


async def _searched(caller: Caller, kind: str, body: Mapping[str, Any]) -> Answer:
    given = queries.from_search(body)
    if kind:
        return await _listed(caller, kind, queries.read_query(given, MODELS[kind]))
    if given.get("filter") or given.get("sortby"):
        raise NotImplementedException(detail="Filter and sort at /Users/.search or /Groups/.search.")
    # Users first, then groups, as one list.
    query = queries.read_query(given, ProvisionedUser)
    of_groups = replace(query, wanted=queries.read_wanted(given, Group))
    async with caller.store.read(caller.token.organization_id) as connection:
        found, total = await users.list_users(connection, query)
        rest = replace(of_groups, start=max(1, query.start - total), count=query.count - len(found))
        more, count = await groups.list_groups(connection, rest)
    return Answer(200, documents.page([*found, *more], total + count, query.start))


def _described(request: Request) -> Answer:
    """What describes the service (RFC 7644, 4); a filter there is forbidden by it."""
    kind, *names = request.path
    if "filter" in queries.from_url(request.query):
        raise ForbiddenException(detail="What describes the service can't be filtered.")
    if kind == "ServiceProviderConfig":
        if names:
            raise _nothing()
        return Answer(200, _with_meta(CONFIG.model_dump(), kind, ""))
    every = {
        str(each.id): _with_meta(each.model_dump(), kind, str(each.id))
        for each in (schemas() if kind == "Schemas" else resource_types())
    }
    if not names:
        return Answer(200, documents.page(list(every.values()), len(every), 1))
    if len(names) > 1 or names[0] not in every:
        raise _nothing()
    return Answer(200, every[names[0]])


def _with_meta(document: dict[str, Any], kind: str, name: str) -> dict[str, Any]:
    where = f"{BASE}/{kind}/{name}" if name else f"{BASE}/{kind}"
    kinds = {"Schemas": "Schema", "ResourceTypes": "ResourceType"}
    return {**document, "meta": {"resourceType": kinds.get(kind, kind), "location": where}}


def _asked(request: Request, kind: str) -> Wanted:
    given = queries.from_url(request.query)
    for name in given:
        if name not in ("attributes", "excludedattributes"):
            raise InvalidValueException(detail=f"There is no parameter {name[:100]!r} here.")
    return queries.read_wanted(given, MODELS[kind])


def _id(text: str) -> UUID:
    """An id in its one spelling; whatever can't be one isn't there."""
    try:
        found = UUID(text)
    except ValueError:
        raise _nothing() from None
    if str(found) != text:
        raise _nothing()
    return found


def _nothing() -> NotFoundException:
    return NotFoundException(detail="Nothing is served at this path.")
