"""The RPCs of exceptions: decode, call, encode."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from recoup.identity.v1 import exception_service_pb2 as pb
from recoup.identity.v1 import exception_service_pb2_grpc
from services._mesh.clock import Clock
from services._mesh.context import current
from services._mesh.pages import PageTokens, size_of
from services._mesh.times import moment
from services._mesh.uow import Store, UnitOfWork
from services.identity.usecases import exceptions
from services.identity.wire import exceptions as wire

Context = Any


class ExceptionRpc(exception_service_pb2_grpc.ExceptionServiceServicer):
    """recoup.identity.v1.ExceptionService."""

    def __init__(self, store: Store, clock: Clock, pages: PageTokens) -> None:
        self._store, self._clock, self._pages = store, clock, pages

    async def CreateException(self, request: pb.CreateExceptionRequest, context: Context) -> pb.CreateExceptionResponse:
        wanted = exceptions.Wanted(
            wire.kind(request.kind),
            request.target,
            request.reason,
            moment(request.expires_at),
            tuple(UUID(each) for each in request.reviewers),
        )

        async def decide(work: UnitOfWork) -> pb.CreateExceptionResponse:
            made = await exceptions.create_exception(work, wanted)
            return pb.CreateExceptionResponse(exception=wire.exception(made, work.now))

        return await self._store.write(request, pb.CreateExceptionResponse, decide)

    async def EndException(self, request: pb.EndExceptionRequest, context: Context) -> pb.EndExceptionResponse:
        async def decide(work: UnitOfWork) -> pb.EndExceptionResponse:
            ended = await exceptions.end_exception(work, UUID(request.exception_id), request.reason)
            return pb.EndExceptionResponse(exception=wire.exception(ended, work.now))

        return await self._store.write(request, pb.EndExceptionResponse, decide)

    async def GetException(self, request: pb.GetExceptionRequest, context: Context) -> pb.GetExceptionResponse:
        found = await exceptions.get_exception(self._store, UUID(request.exception_id))
        return pb.GetExceptionResponse(exception=wire.exception(found, self._clock.now()))

    async def ListExceptions(self, request: pb.ListExceptionsRequest, context: Context) -> pb.ListExceptionsResponse:
        organization_id, limit, now = current().organization(), size_of(request), self._clock.now()
        position = self._pages.decode(organization_id, request)
        before = UUID(position) if position else None
        state, about = wire.state(request.state), request.target
        found = await exceptions.list_exceptions(self._store, before, limit, state, about, now)
        more = len(found) > limit
        token = self._pages.encode(organization_id, request, str(found[limit - 1].exception_id)) if more else ""
        return pb.ListExceptionsResponse(
            exceptions=[wire.exception(each, now) for each in found[:limit]], next_page_token=token
        )

    async def CheckExceptions(self, request: pb.CheckExceptionsRequest, context: Context) -> pb.CheckExceptionsResponse:
        found = await exceptions.check_exceptions(
            self._store, UUID(request.organization_id), wire.kind(request.kind), self._clock.now()
        )
        return pb.CheckExceptionsResponse(in_force=[wire.in_force(each) for each in found])
