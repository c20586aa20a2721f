"""The RPCs of break-glass: decode, call, encode."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from recoup.identity.v1 import elevation_service_pb2 as pb
from recoup.identity.v1 import elevation_service_pb2_grpc
from services._mesh.clock import Clock
from services._mesh.context import current
from services._mesh.pages import PageTokens, size_of
from services._mesh.uow import Store, UnitOfWork
from services.identity.model.elevations import Reach
from services.identity.model.permissions import PermissionTable
from services.identity.usecases import elevations
from services.identity.wire import elevations as wire

Context = Any


class ElevationRpc(elevation_service_pb2_grpc.ElevationServiceServicer):
    """recoup.identity.v1.ElevationService."""

    def __init__(
        self, store: Store, clock: Clock, pages: PageTokens, permissions: PermissionTable, reach: Reach
    ) -> None:
        self._store, self._clock, self._pages = store, clock, pages
        self._permissions, self._reach = permissions, reach

    async def RequestElevation(
        self, request: pb.RequestElevationRequest, context: Context
    ) -> pb.RequestElevationResponse:
        call = current()
        organization_id = call.organization()
        held = [self._permissions.held(organization_id, call.role, each) for each in self._reach.of(organization_id)]
        wanted = elevations.Wanted(tuple(request.permissions), request.reason, request.minutes)

        async def decide(work: UnitOfWork) -> pb.RequestElevationResponse:
            made = await elevations.request_elevation(work, self._reach, frozenset().union(*held), wanted)
            return pb.RequestElevationResponse(elevation=wire.elevation(made, work.now))

        return await self._store.write(request, pb.RequestElevationResponse, decide)

    async def EndElevation(self, request: pb.EndElevationRequest, context: Context) -> pb.EndElevationResponse:
        async def decide(work: UnitOfWork) -> pb.EndElevationResponse:
            ended = await elevations.end_elevation(work, UUID(request.elevation_id))
            return pb.EndElevationResponse(elevation=wire.elevation(ended, work.now))

        return await self._store.write(request, pb.EndElevationResponse, decide)

    async def GetElevation(self, request: pb.GetElevationRequest, context: Context) -> pb.GetElevationResponse:
        found = await elevations.get_elevation(self._store, UUID(request.elevation_id))
        return pb.GetElevationResponse(elevation=wire.elevation(found, self._clock.now()))

    async def ListElevations(self, request: pb.ListElevationsRequest, context: Context) -> pb.ListElevationsResponse:
        organization_id, limit, now = current().organization(), size_of(request), self._clock.now()
        position = self._pages.decode(organization_id, request)
        before = UUID(position) if position else None
        found = await elevations.list_elevations(self._store, before, limit, wire.state(request.state), now)
        more = len(found) > limit
        token = self._pages.encode(organization_id, request, str(found[limit - 1].elevation_id)) if more else ""
        return pb.ListElevationsResponse(
            elevations=[wire.elevation(each, now) for each in found[:limit]], next_page_token=token
        )
