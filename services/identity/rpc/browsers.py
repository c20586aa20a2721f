"""Browser sessions' RPCs: decode, call, encode."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

from recoup.identity.v1 import browser_service_pb2 as pb
from recoup.identity.v1 import browser_service_pb2_grpc
from services._mesh.clock import Clock
from services._mesh.context import current, entered
from services._mesh.uow import Store, UnitOfWork
from services.identity.usecases import browser_sessions
from services.identity.wire import browser_sessions as wire

Context = Any


class BrowserRpc(browser_service_pb2_grpc.BrowserServiceServicer):
    """recoup.identity.v1.BrowserService."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store, self._clock = store, clock

    async def CreateBrowserSession(
        self, request: pb.CreateBrowserSessionRequest, context: Context
    ) -> pb.CreateBrowserSessionResponse:
        async def decide(work: UnitOfWork) -> pb.CreateBrowserSessionResponse:
            token, made = await browser_sessions.create_browser_session(work)
            return pb.CreateBrowserSessionResponse(session=wire.session(made), cookie=wire.cookie(token))

        return await self._store.write(request, pb.CreateBrowserSessionResponse, decide)

    async def ListBrowserSessions(
        self, request: pb.ListBrowserSessionsRequest, context: Context
    ) -> pb.ListBrowserSessionsResponse:
        found = await browser_sessions.list_browser_sessions(self._store, self._clock.wall_now())
        return pb.ListBrowserSessionsResponse(sessions=[wire.session(each) for each in found])

    async def EndBrowserSession(
        self, request: pb.EndBrowserSessionRequest, context: Context
    ) -> pb.EndBrowserSessionResponse:
        async def decide(work: UnitOfWork) -> pb.EndBrowserSessionResponse:
            is_own = await browser_sessions.end_browser_session(work, UUID(request.session_id))
            return pb.EndBrowserSessionResponse(cookie=wire.no_cookie() if is_own else None)

        return await self._store.write(request, pb.EndBrowserSessionResponse, decide)

    async def GetMyBrowserSession(
        self, request: pb.GetMyBrowserSessionRequest, context: Context
    ) -> pb.GetMyBrowserSessionResponse:
        found = await browser_sessions.get_my_browser_session(self._store, self._clock.wall_now())
        return pb.GetMyBrowserSessionResponse(session=wire.session(found))

    async def EndMyBrowserSession(
        self, request: pb.EndMyBrowserSessionRequest, context: Context
    ) -> pb.EndMyBrowserSessionResponse:
        organization_id, session_id = browser_sessions.shown_session()

        async def decide(work: UnitOfWork) -> pb.EndMyBrowserSessionResponse:
            await browser_sessions.end_browser_session(work, session_id)
            return pb.EndMyBrowserSessionResponse(cookie=wire.no_cookie())

        # Its event lies where it was made, also where the person isn't a member any more.
        with entered(replace(current(), organization_id=organization_id)):
            return await self._store.write(request, pb.EndMyBrowserSessionResponse, decide, organization_id)
