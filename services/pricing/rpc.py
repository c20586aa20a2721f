"""Pricing's RPCs: decode, call, encode."""

from __future__ import annotations

from typing import Any

from recoup.pricing.v1 import pricing_service_pb2 as pb
from recoup.pricing.v1 import pricing_service_pb2_grpc
from services._mesh.context import current
from services._mesh.pages import PageTokens, size_of
from services.pricing import usecases, wire
from services.pricing.model.catalogue import Catalogue

Context = Any


class PricingRpc(pricing_service_pb2_grpc.PricingServiceServicer):
    """recoup.pricing.v1.PricingService."""

    def __init__(self, catalogue: Catalogue, pages: PageTokens) -> None:
        self._catalogue, self._pages = catalogue, pages

    async def LookupPrices(self, request: pb.LookupPricesRequest, context: Context) -> pb.LookupPricesResponse:
        found = usecases.lookup_prices(self._catalogue, map(wire.price_key, request.keys))
        version = self._catalogue.version
        return pb.LookupPricesResponse(prices=[wire.price(each, version) for each in found], price_version=version)

    async def ListPrices(self, request: pb.ListPricesRequest, context: Context) -> pb.ListPricesResponse:
        organization_id, limit = current().organization(), size_of(request)
        after = wire.after(self._pages.decode(organization_id, request))
        found = usecases.list_prices(
            self._catalogue, region=request.region, sku_prefix=request.sku_prefix, after=after, limit=limit
        )
        more = len(found) > limit
        token = self._pages.encode(organization_id, request, wire.position(found[limit - 1])) if more else ""
        prices = [wire.price(each, self._catalogue.version) for each in found[:limit]]
        return pb.ListPricesResponse(prices=prices, next_page_token=token)
