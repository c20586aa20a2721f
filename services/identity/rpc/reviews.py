"""The RPCs of reviews: decode, call, encode."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from recoup.identity.v1 import review_service_pb2 as pb
from recoup.identity.v1 import review_service_pb2_grpc
from services._mesh.clock import Clock
from services._mesh.context import current
from services._mesh.pages import PageTokens, size_of
from services._mesh.uow import Store, UnitOfWork
from services.identity.usecases import reviews
from services.identity.wire import reviews as wire

Context = Any


class ReviewRpc(review_service_pb2_grpc.ReviewServiceServicer):
    """recoup.identity.v1.ReviewService."""

    def __init__(self, store: Store, clock: Clock, pages: PageTokens) -> None:
        self._store, self._clock, self._pages = store, clock, pages

    async def GetReview(self, request: pb.GetReviewRequest, context: Context) -> pb.GetReviewResponse:
        found = await reviews.get_review(self._store, UUID(request.review_id))
        return pb.GetReviewResponse(review=wire.review(found, self._clock.now()))

    async def ListReviews(self, request: pb.ListReviewsRequest, context: Context) -> pb.ListReviewsResponse:
        organization_id, limit, now = current().organization(), size_of(request), self._clock.now()
        position = self._pages.decode(organization_id, request)
        before = UUID(position) if position else None
        found = await reviews.list_reviews(self._store, before, limit, wire.state(request.state), now)
        more = len(found) > limit
        token = self._pages.encode(organization_id, request, str(found[limit - 1].review_id)) if more else ""
        return pb.ListReviewsResponse(reviews=[wire.review(each, now) for each in found[:limit]], next_page_token=token)

    async def DecideReview(self, request: pb.DecideReviewRequest, context: Context) -> pb.DecideReviewResponse:
        async def decide(work: UnitOfWork) -> pb.DecideReviewResponse:
            decided = await reviews.decide_review(work, UUID(request.review_id), wire.decision(request))
            return pb.DecideReviewResponse(review=wire.review(decided, work.now))

        return await self._store.write(request, pb.DecideReviewResponse, decide)
