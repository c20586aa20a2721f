"""Allowed origins' RPCs: decode, call, encode."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from recoup.identity.v1 import origin_service_pb2 as pb
from recoup.identity.v1 import origin_service_pb2_grpc
from services._mesh.uow import Store, UnitOfWork
from services.identity.model.origins import AllowedOrigins
from services.identity.usecases import origins

Context = Any


class OriginRpc(origin_service_pb2_grpc.OriginServiceServicer):
    """recoup.identity.v1.OriginService. In the local profile, pages of one's own machine may be allowed."""

    def __init__(self, store: Store, *, is_local: bool) -> None:
        self._store, self._is_local = store, is_local

    async def GetAllowedOrigins(
        self, request: pb.GetAllowedOriginsRequest, context: Context
    ) -> pb.GetAllowedOriginsResponse:
        return pb.GetAllowedOriginsResponse(allowed=_shown(await origins.get_allowed_origins(self._store)))

    async def SetAllowedOrigins(
        self, request: pb.SetAllowedOriginsRequest, context: Context
    ) -> pb.SetAllowedOriginsResponse:
        async def decide(work: UnitOfWork) -> pb.SetAllowedOriginsResponse:
            found = await origins.set_allowed_origins(work, request.origins, request.etag, is_local=self._is_local)
            return pb.SetAllowedOriginsResponse(allowed=_shown(found))

        return await self._store.write(request, pb.SetAllowedOriginsResponse, decide)

    async def CheckAllowedOrigins(
        self, request: pb.CheckAllowedOriginsRequest, context: Context
    ) -> pb.CheckAllowedOriginsResponse:
        found = await origins.check_allowed_origins(self._store, UUID(request.organization_id))
        return pb.CheckAllowedOriginsResponse(origins=found)


def _shown(found: AllowedOrigins) -> pb.AllowedOrigins:
    return pb.AllowedOrigins(origins=found.origins, etag=found.etag)
