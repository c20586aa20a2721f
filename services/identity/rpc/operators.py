"""OperatorService: decode, call, encode."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from recoup.identity.v1 import operator_service_pb2 as pb
from recoup.identity.v1 import operator_service_pb2_grpc
from services._mesh.clock import Clock
from services._mesh.context import current
from services._mesh.ids import PLATFORM
from services._mesh.pages import PageTokens, size_of
from services._mesh.uow import Store, UnitOfWork
from services.identity.usecases import installation, operators
from services.identity.wire import members
from services.identity.wire import operators as wire

Context = Any


class OperatorRpc(operator_service_pb2_grpc.OperatorServiceServicer):
    """recoup.identity.v1.OperatorService."""

    def __init__(self, store: Store, clock: Clock, pages: PageTokens) -> None:
        self._store, self._clock, self._pages = store, clock, pages

    async def ClaimInstallation(
        self, request: pb.ClaimInstallationRequest, context: Context
    ) -> pb.ClaimInstallationResponse:
        async def decide(work: UnitOfWork) -> pb.ClaimInstallationResponse:
            made = await installation.claim_installation(work, request.token, request.email)
            return pb.ClaimInstallationResponse(organization=members.organization(made))

        return await self._store.write(request, pb.ClaimInstallationResponse, decide, PLATFORM)

    async def RequestOperatorAccess(
        self, request: pb.RequestOperatorAccessRequest, context: Context
    ) -> pb.RequestOperatorAccessResponse:
        async def decide(work: UnitOfWork) -> pb.RequestOperatorAccessResponse:
            asked = await operators.request_operator_access(
                work, members.role(request.role), request.reason, request.hours
            )
            return pb.RequestOperatorAccessResponse(access=wire.operator_access(asked, work.now))

        customer = UUID(request.organization_id)
        return await self._store.write(request, pb.RequestOperatorAccessResponse, decide, customer)

    async def ListOperatorAccesses(
        self, request: pb.ListOperatorAccessesRequest, context: Context
    ) -> pb.ListOperatorAccessesResponse:
        organization_id, limit = current().organization(), size_of(request)
        position = self._pages.decode(organization_id, request)
        found = await operators.list_operator_accesses(self._store, UUID(position) if position else None, limit)
        more, now = len(found) > limit, self._clock.now()
        token = self._pages.encode(organization_id, request, str(found[limit - 1].access_id)) if more else ""
        shown = [wire.operator_access(each, now) for each in found[:limit]]
        return pb.ListOperatorAccessesResponse(accesses=shown, next_page_token=token)

    async def GrantOperatorAccess(
        self, request: pb.GrantOperatorAccessRequest, context: Context
    ) -> pb.GrantOperatorAccessResponse:
        async def decide(work: UnitOfWork) -> pb.GrantOperatorAccessResponse:
            granted = await operators.grant_operator_access(work, UUID(request.access_id), request.hours)
            return pb.GrantOperatorAccessResponse(access=wire.operator_access(granted, work.now))

        return await self._store.write(request, pb.GrantOperatorAccessResponse, decide)

    async def RefuseOperatorAccess(
        self, request: pb.RefuseOperatorAccessRequest, context: Context
    ) -> pb.RefuseOperatorAccessResponse:
        async def decide(work: UnitOfWork) -> pb.RefuseOperatorAccessResponse:
            refused = await operators.refuse_operator_access(work, UUID(request.access_id))
            return pb.RefuseOperatorAccessResponse(access=wire.operator_access(refused, work.now))

        return await self._store.write(request, pb.RefuseOperatorAccessResponse, decide)

    async def RevokeOperatorAccess(
        self, request: pb.RevokeOperatorAccessRequest, context: Context
    ) -> pb.RevokeOperatorAccessResponse:
        async def decide(work: UnitOfWork) -> pb.RevokeOperatorAccessResponse:
            revoked = await operators.revoke_operator_access(work, UUID(request.access_id))
            return pb.RevokeOperatorAccessResponse(access=wire.operator_access(revoked, work.now))

        return await self._store.write(request, pb.RevokeOperatorAccessResponse, decide)
