"""SCIM's RPCs: decode, call, encode."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

from recoup.identity.v1 import scim_service_pb2 as pb
from recoup.identity.v1 import scim_service_pb2_grpc
from recoup.mesh.v1 import forward_pb2
from services._mesh.clock import Clock
from services._mesh.context import current, entered
from services._mesh.pages import PageTokens, size_of
from services._mesh.times import stamp
from services._mesh.uow import Store, UnitOfWork
from services.identity.model.permissions import PermissionTable
from services.identity.model.scim.answers import Answer, Request, not_served, refusal
from services.identity.usecases.scim import bulk, endpoint, settings, tokens
from services.identity.wire import scim as wire

Context = Any
Serve = Callable[[endpoint.Caller, Request], Awaitable[Answer]]


class ScimRpc(scim_service_pb2_grpc.ScimServiceServicer):
    """recoup.identity.v1.ScimService."""

    def __init__(self, store: Store, clock: Clock, pages: PageTokens, table: PermissionTable) -> None:
        self._store, self._pages, self._table = store, pages, table
        self._door = tokens.Doorkeeper(store, clock)

    async def CreateScimToken(self, request: pb.CreateScimTokenRequest, context: Context) -> pb.CreateScimTokenResponse:
        shown = ""

        async def decide(work: UnitOfWork) -> pb.CreateScimTokenResponse:
            nonlocal shown
            shown, token = await tokens.create_scim_token(work, request.name, request.lifetime_days)
            # The answer that is kept for a repeated request holds no token.
            return pb.CreateScimTokenResponse(scim_token=wire.token(token))

        answer = await self._store.write(request, pb.CreateScimTokenResponse, decide)
        answer.token = shown
        return answer

    async def ListScimTokens(self, request: pb.ListScimTokensRequest, context: Context) -> pb.ListScimTokensResponse:
        organization_id, limit = current().organization(), size_of(request)
        position = self._pages.decode(organization_id, request)
        found = await tokens.list_scim_tokens(self._store, UUID(position) if position else None, limit)
        more = len(found) > limit
        token = self._pages.encode(organization_id, request, str(found[limit - 1].token_id)) if more else ""
        return pb.ListScimTokensResponse(
            scim_tokens=[wire.token(each) for each in found[:limit]], next_page_token=token
        )

    async def RevokeScimToken(self, request: pb.RevokeScimTokenRequest, context: Context) -> pb.RevokeScimTokenResponse:
        async def decide(work: UnitOfWork) -> pb.RevokeScimTokenResponse:
            revoked = await tokens.revoke_scim_token(work, UUID(request.token_id))
            return pb.RevokeScimTokenResponse(scim_token=wire.token(revoked))

        return await self._store.write(request, pb.RevokeScimTokenResponse, decide)

    async def UpdateScimRoles(self, request: pb.UpdateScimRolesRequest, context: Context) -> pb.UpdateScimRolesResponse:
        async def decide(work: UnitOfWork) -> pb.UpdateScimRolesResponse:
            changed = await settings.update_scim_roles(work, self._table, wire.roles(request.roles))
            return pb.UpdateScimRolesResponse(roles=request.roles, changed_members=changed)

        return await self._store.write(request, pb.UpdateScimRolesResponse, decide)

    async def GetScimStatus(self, request: pb.GetScimStatusRequest, context: Context) -> pb.GetScimStatusResponse:
        found = await settings.get_scim_status(self._store)
        return pb.GetScimStatusResponse(
            users=found.users,
            active_users=found.active_users,
            linked_users=found.linked_users,
            groups=found.groups,
            last_seen_at=stamp(found.last_seen_at) if found.last_seen_at else None,
            last_sync_at=stamp(found.last_sync_at) if found.last_sync_at else None,
            roles=wire.role_messages(found.roles),
        )

    async def ReadScim(self, request: pb.ReadScimRequest, context: Context) -> pb.ReadScimResponse:
        return pb.ReadScimResponse(http=await self._served(request.http, endpoint.read_scim))

    async def WriteScim(self, request: pb.WriteScimRequest, context: Context) -> pb.WriteScimResponse:
        return pb.WriteScimResponse(http=await self._served(request.http, _write))

    async def _served(self, message: forward_pb2.HttpRequest, serve: Serve) -> forward_pb2.HttpResponse:
        token = await self._door.admit(message.bearer_token)
        await self._door.note_use(token)
        asked = wire.request(message)
        if asked is None:
            return wire.response(not_served())
        caller = endpoint.caller_of(self._store, token)
        try:
            with entered(caller.context):
                return wire.response(await serve(caller, asked))
        except Exception as error:
            answer = refusal(error)
            if answer is None:
                raise
            return wire.response(answer)


async def _write(caller: endpoint.Caller, request: Request) -> Answer:
    if request.path == ("Bulk",):
        return await bulk.run_bulk(caller, request)
    return await endpoint.write_scim(caller, request)
