"""TokenService: decode, call, encode."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from recoup.identity.v1 import token_service_pb2 as pb
from recoup.identity.v1 import token_service_pb2_grpc
from services._mesh.clock import Clock
from services._mesh.context import current
from services._mesh.pages import PageTokens, size_of
from services._mesh.uow import Store, UnitOfWork
from services.identity.model.api_tokens import new_text
from services.identity.model.permissions import PermissionTable
from services.identity.usecases import service_accounts, tokens
from services.identity.wire import tokens as wire

Context = Any


class TokenRpc(token_service_pb2_grpc.TokenServiceServicer):
    """recoup.identity.v1.TokenService.

    A token's text is put into the answer after that was kept for repeated requests: it is nowhere else.
    """

    def __init__(self, store: Store, clock: Clock, pages: PageTokens, table: PermissionTable) -> None:
        self._store, self._clock, self._pages, self._table = store, clock, pages, table

    async def CreateServiceAccount(
        self, request: pb.CreateServiceAccountRequest, context: Context
    ) -> pb.CreateServiceAccountResponse:
        async def decide(work: UnitOfWork) -> pb.CreateServiceAccountResponse:
            made = await service_accounts.create_service_account(
                work, request.display_name, _optional(request.owner_user_id)
            )
            return pb.CreateServiceAccountResponse(service_account=wire.service_account(made))

        return await self._store.write(request, pb.CreateServiceAccountResponse, decide)

    async def ListServiceAccounts(
        self, request: pb.ListServiceAccountsRequest, context: Context
    ) -> pb.ListServiceAccountsResponse:
        organization_id, limit = current().organization(), size_of(request)
        position = self._pages.decode(organization_id, request)
        found = await service_accounts.list_service_accounts(self._store, _optional(position), limit)
        more = len(found) > limit
        token = self._pages.encode(organization_id, request, str(found[limit - 1].service_account_id)) if more else ""
        shown = [wire.service_account(each) for each in found[:limit]]
        return pb.ListServiceAccountsResponse(service_accounts=shown, next_page_token=token)

    async def UpdateServiceAccount(
        self, request: pb.UpdateServiceAccountRequest, context: Context
    ) -> pb.UpdateServiceAccountResponse:
        async def decide(work: UnitOfWork) -> pb.UpdateServiceAccountResponse:
            changed = await service_accounts.update_service_account(
                work,
                UUID(request.service_account_id),
                request.display_name,
                _optional(request.owner_user_id),
                request.etag,
            )
            return pb.UpdateServiceAccountResponse(service_account=wire.service_account(changed))

        return await self._store.write(request, pb.UpdateServiceAccountResponse, decide)

    async def DisableServiceAccount(
        self, request: pb.DisableServiceAccountRequest, context: Context
    ) -> pb.DisableServiceAccountResponse:
        async def decide(work: UnitOfWork) -> pb.DisableServiceAccountResponse:
            ended = await service_accounts.disable_service_account(work, UUID(request.service_account_id))
            return pb.DisableServiceAccountResponse(service_account=wire.service_account(ended))

        return await self._store.write(request, pb.DisableServiceAccountResponse, decide)

    async def CreateToken(self, request: pb.CreateTokenRequest, context: Context) -> pb.CreateTokenResponse:
        text, made = new_text(), list[str]()

        async def decide(work: UnitOfWork) -> pb.CreateTokenResponse:
            token = await tokens.create_token(work, self._table, wire.new_token(request), text)
            made.append(text)
            return pb.CreateTokenResponse(token=wire.token(token, work.wall_now))

        answer = await self._store.write(request, pb.CreateTokenResponse, decide)
        answer.secret = "".join(made)
        return answer

    async def ListTokens(self, request: pb.ListTokensRequest, context: Context) -> pb.ListTokensResponse:
        organization_id, limit = current().organization(), size_of(request)
        position = self._pages.decode(organization_id, request)
        account = _optional(request.service_account_id)
        found = await tokens.list_tokens(self._store, _optional(position), limit, account)
        more, now = len(found) > limit, self._clock.wall_now()
        token = self._pages.encode(organization_id, request, str(found[limit - 1].token_id)) if more else ""
        return pb.ListTokensResponse(tokens=[wire.token(each, now) for each in found[:limit]], next_page_token=token)

    async def RotateToken(self, request: pb.RotateTokenRequest, context: Context) -> pb.RotateTokenResponse:
        text, made = new_text(), list[str]()
        expires_at = wire.moment(request.expires_at) if request.HasField("expires_at") else None

        async def decide(work: UnitOfWork) -> pb.RotateTokenResponse:
            new, old = await tokens.rotate_token(
                work, self._table, UUID(request.token_id), request.overlap_hours, expires_at, text
            )
            made.append(text)
            now = work.wall_now
            return pb.RotateTokenResponse(token=wire.token(new, now), replaced=wire.token(old, now))

        answer = await self._store.write(request, pb.RotateTokenResponse, decide)
        answer.secret = "".join(made)
        return answer

    async def RevokeToken(self, request: pb.RevokeTokenRequest, context: Context) -> pb.RevokeTokenResponse:
        async def decide(work: UnitOfWork) -> pb.RevokeTokenResponse:
            ended = await tokens.revoke_token(work, UUID(request.token_id))
            return pb.RevokeTokenResponse(token=wire.token(ended, work.wall_now))

        return await self._store.write(request, pb.RevokeTokenResponse, decide)


def _optional(identifier: str) -> UUID | None:
    return UUID(identifier) if identifier else None
