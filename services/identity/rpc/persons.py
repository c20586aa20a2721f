"""The RPCs of persons: decode, call, encode."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from recoup.identity.v1 import person_service_pb2 as pb
from recoup.identity.v1 import person_service_pb2_grpc
from services._mesh.context import current
from services._mesh.pages import PageTokens, size_of
from services._mesh.uow import Store, UnitOfWork
from services.identity.model.permissions import PermissionTable
from services.identity.usecases import persons, roles
from services.identity.wire import persons as wire

Context = Any


class PersonRpc(person_service_pb2_grpc.PersonServiceServicer):
    """recoup.identity.v1.PersonService."""

    def __init__(self, store: Store, table: PermissionTable, pages: PageTokens) -> None:
        self._store, self._table, self._pages = store, table, pages

    async def LinkMember(self, request: pb.LinkMemberRequest, context: Context) -> pb.LinkMemberResponse:
        async def decide(work: UnitOfWork) -> pb.LinkMemberResponse:
            member_id, same_as = UUID(request.member_id), UUID(request.same_as_member_id)
            await roles.require_may_change(work, self._table, member_id, same_as)
            person = await persons.link_member(work, member_id, same_as)
            return pb.LinkMemberResponse(person_id=str(person))

        return await self._store.write(request, pb.LinkMemberResponse, decide)

    async def UnlinkMember(self, request: pb.UnlinkMemberRequest, context: Context) -> pb.UnlinkMemberResponse:
        async def decide(work: UnitOfWork) -> pb.UnlinkMemberResponse:
            await roles.require_may_change(work, self._table, UUID(request.member_id))
            await persons.unlink_member(work, UUID(request.member_id))
            return pb.UnlinkMemberResponse()

        return await self._store.write(request, pb.UnlinkMemberResponse, decide)

    async def ListLinkedIdentities(
        self, request: pb.ListLinkedIdentitiesRequest, context: Context
    ) -> pb.ListLinkedIdentitiesResponse:
        organization_id, limit = current().organization(), size_of(request)
        position = self._pages.decode(organization_id, request)
        found = await persons.list_linked_identities(self._store, UUID(position) if position else None, limit)
        more = len(found) > limit
        token = self._pages.encode(organization_id, request, str(found[limit - 1].identity_id)) if more else ""
        shown = [wire.linked_identity(each) for each in found[:limit]]
        return pb.ListLinkedIdentitiesResponse(linked_identities=shown, next_page_token=token)
