"""The RPCs of erasures and legal holds: decode, call, encode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from recoup.audit.v1 import erasure_service_pb2 as pb
from recoup.audit.v1 import erasure_service_pb2_grpc
from services._mesh.context import current
from services._mesh.database import Database
from services._mesh.pages import PageTokens, size_of
from services._mesh.uow import Store, UnitOfWork
from services.audit import erasing, wire_erasures
from services.audit.model.actors import ActorHash
from services.audit.store import erasures as store

Context = Any


class ErasureRpc(erasure_service_pb2_grpc.ErasureServiceServicer):
    """recoup.audit.v1.ErasureService. `keys` reads the database of keys; `wake` has what was approved executed."""

    def __init__(
        self, log_store: Store, keys: Database, hashed: ActorHash, pages: PageTokens, wake: Callable[[], None]
    ) -> None:
        self._store, self._keys, self._hashed, self._pages, self._wake = log_store, keys, hashed, pages, wake

    async def RequestErasure(self, request: pb.RequestErasureRequest, context: Context) -> pb.RequestErasureResponse:
        earlier = await self._store.replayed(request, pb.RequestErasureResponse)
        if earlier is not None:
            return earlier
        await erasing.require_subject(self._keys, current().organization(), self._hashed, request.subject)

        async def decide(work: UnitOfWork) -> pb.RequestErasureResponse:
            made = await erasing.request_erasure(work, self._hashed, request.subject, request.reason)
            return pb.RequestErasureResponse(erasure=wire_erasures.erasure(made))

        return await self._store.write(request, pb.RequestErasureResponse, decide)

    async def ApproveErasure(self, request: pb.ApproveErasureRequest, context: Context) -> pb.ApproveErasureResponse:
        async def decide(work: UnitOfWork) -> pb.ApproveErasureResponse:
            erasure_id = UUID(request.erasure_id)
            made = await erasing.approve_erasure(work, self._hashed, erasure_id, request.subject, request.comment)
            return pb.ApproveErasureResponse(erasure=wire_erasures.erasure(made))

        answer = await self._store.write(request, pb.ApproveErasureResponse, decide)
        self._wake()
        return answer

    async def RejectErasure(self, request: pb.RejectErasureRequest, context: Context) -> pb.RejectErasureResponse:
        async def decide(work: UnitOfWork) -> pb.RejectErasureResponse:
            made = await erasing.reject_erasure(work, self._hashed, UUID(request.erasure_id), request.comment)
            return pb.RejectErasureResponse(erasure=wire_erasures.erasure(made))

        return await self._store.write(request, pb.RejectErasureResponse, decide)

    async def ListErasures(self, request: pb.ListErasuresRequest, context: Context) -> pb.ListErasuresResponse:
        organization_id, limit = current().organization(), size_of(request)
        before = self._pages.decode(organization_id, request)
        async with self._store.read() as connection:
            found = await store.list_erasures(connection, UUID(before) if before else None, limit + 1)
        more = len(found) > limit
        token = self._pages.encode(organization_id, request, str(found[limit - 1].erasure_id)) if more else ""
        shown = [wire_erasures.erasure(each) for each in found[:limit]]
        return pb.ListErasuresResponse(erasures=shown, next_page_token=token)

    async def PlaceLegalHold(self, request: pb.PlaceLegalHoldRequest, context: Context) -> pb.PlaceLegalHoldResponse:
        async def decide(work: UnitOfWork) -> pb.PlaceLegalHoldResponse:
            made = await erasing.place_legal_hold(work, self._hashed, request.subject, request.reason)
            return pb.PlaceLegalHoldResponse(legal_hold=wire_erasures.legal_hold(made))

        return await self._store.write(request, pb.PlaceLegalHoldResponse, decide)

    async def ReleaseLegalHold(
        self, request: pb.ReleaseLegalHoldRequest, context: Context
    ) -> pb.ReleaseLegalHoldResponse:
        async def decide(work: UnitOfWork) -> pb.ReleaseLegalHoldResponse:
            made = await erasing.release_legal_hold(work, self._hashed, UUID(request.hold_id), request.reason)
            return pb.ReleaseLegalHoldResponse(legal_hold=wire_erasures.legal_hold(made))

        answer = await self._store.write(request, pb.ReleaseLegalHoldResponse, decide)
        self._wake()
        return answer

    async def ListLegalHolds(self, request: pb.ListLegalHoldsRequest, context: Context) -> pb.ListLegalHoldsResponse:
        organization_id, limit = current().organization(), size_of(request)
        before = self._pages.decode(organization_id, request)
        async with self._store.read() as connection:
            found = await store.list_holds(connection, UUID(before) if before else None, limit + 1)
        more = len(found) > limit
        token = self._pages.encode(organization_id, request, str(found[limit - 1].hold_id)) if more else ""
        shown = [wire_erasures.legal_hold(each) for each in found[:limit]]
        return pb.ListLegalHoldsResponse(legal_holds=shown, next_page_token=token)
