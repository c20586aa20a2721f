"""Pricing's RPCs: decode, call, encode."""

from __future__ import annotations

import hashlib
from typing import Any
from uuid import UUID

from recoup.pricing.v1 import bill_service_pb2 as bill_pb
from recoup.pricing.v1 import bill_service_pb2_grpc, pricing_service_pb2_grpc
from recoup.pricing.v1 import pricing_service_pb2 as pb
from services._mesh.clock import Clock
from services._mesh.context import current
from services._mesh.jobs import Planner
from services._mesh.pages import PageTokens, size_of
from services._mesh.threads import BoundedThreads
from services._mesh.uow import Store, UnitOfWork
from services.pricing import wire
from services.pricing.clients.peers import Scanner
from services.pricing.model.catalogue import Catalogue
from services.pricing.store.costs import place_of
from services.pricing.usecases import bills, prices, savings

Context = Any


class PricingRpc(pricing_service_pb2_grpc.PricingServiceServicer):
    """recoup.pricing.v1.PricingService."""

    def __init__(self, catalogue: Catalogue, pages: PageTokens) -> None:
        self._catalogue, self._pages = catalogue, pages

    async def LookupPrices(self, request: pb.LookupPricesRequest, context: Context) -> pb.LookupPricesResponse:
        found = prices.lookup_prices(self._catalogue, map(wire.price_key, request.keys))
        version = self._catalogue.version
        return pb.LookupPricesResponse(prices=[wire.price(each, version) for each in found], price_version=version)

    async def ListPrices(self, request: pb.ListPricesRequest, context: Context) -> pb.ListPricesResponse:
        organization_id, limit = current().organization(), size_of(request)
        after = wire.after(self._pages.decode(organization_id, request))
        found = prices.list_prices(
            self._catalogue, region=request.region, sku_prefix=request.sku_prefix, after=after, limit=limit
        )
        more = len(found) > limit
        token = self._pages.encode(organization_id, request, wire.position(found[limit - 1])) if more else ""
        listed = [wire.price(each, self._catalogue.version) for each in found[:limit]]
        return pb.ListPricesResponse(prices=listed, next_page_token=token)


class BillRpc(bill_service_pb2_grpc.BillServiceServicer):
    """recoup.pricing.v1.BillService."""

    def __init__(
        self,
        store: Store,
        planner: Planner,
        scanner: Scanner,
        pages: PageTokens,
        threads: BoundedThreads,
        clock: Clock,
    ) -> None:
        self._store, self._planner, self._scanner = store, planner, scanner
        self._pages, self._threads, self._clock = pages, threads, clock

    async def CreateBillSource(
        self, request: bill_pb.CreateBillSourceRequest, context: Context
    ) -> bill_pb.CreateBillSourceResponse:
        earlier = await self._store.replayed(request, bill_pb.CreateBillSourceResponse)
        if earlier is not None:
            return earlier
        given = wire.new_bill_source(request)
        connection = await self._scanner.get_connection(current().organization(), given.connection_id)

        async def decide(work: UnitOfWork) -> bill_pb.CreateBillSourceResponse:
            made = await bills.create_bill_source(work, self._planner, given, connection)
            return bill_pb.CreateBillSourceResponse(bill_source=wire.bill_source(made))

        return await self._store.write(request, bill_pb.CreateBillSourceResponse, decide)

    async def GetBillSource(
        self, request: bill_pb.GetBillSourceRequest, context: Context
    ) -> bill_pb.GetBillSourceResponse:
        found = await bills.get_bill_source(self._store, UUID(request.bill_source_id))
        return bill_pb.GetBillSourceResponse(bill_source=wire.bill_source(found))

    async def ListBillSources(
        self, request: bill_pb.ListBillSourcesRequest, context: Context
    ) -> bill_pb.ListBillSourcesResponse:
        organization_id, limit = current().organization(), size_of(request)
        position = self._pages.decode(organization_id, request)
        found = await bills.list_bill_sources(self._store, UUID(position) if position else None, limit)
        more = len(found) > limit
        token = self._pages.encode(organization_id, request, str(found[limit - 1].bill_source_id)) if more else ""
        listed = [wire.bill_source(each) for each in found[:limit]]
        return bill_pb.ListBillSourcesResponse(bill_sources=listed, next_page_token=token)

    async def ImportBill(self, request: bill_pb.ImportBillRequest, context: Context) -> bill_pb.ImportBillResponse:
        async def decide(work: UnitOfWork) -> bill_pb.ImportBillResponse:
            made = await bills.import_bill(work, self._planner, UUID(request.bill_source_id))
            return bill_pb.ImportBillResponse(bill_import=wire.bill_import(made, ()))

        return await self._store.write(request, bill_pb.ImportBillResponse, decide)

    async def DisableBillSource(
        self, request: bill_pb.DisableBillSourceRequest, context: Context
    ) -> bill_pb.DisableBillSourceResponse:
        async def decide(work: UnitOfWork) -> bill_pb.DisableBillSourceResponse:
            found = await bills.disable_bill_source(work, UUID(request.bill_source_id), request.etag)
            return bill_pb.DisableBillSourceResponse(bill_source=wire.bill_source(found))

        return await self._store.write(request, bill_pb.DisableBillSourceResponse, decide)

    async def GetBillImport(
        self, request: bill_pb.GetBillImportRequest, context: Context
    ) -> bill_pb.GetBillImportResponse:
        found, batches = await bills.get_bill_import(self._store, UUID(request.bill_import_id))
        return bill_pb.GetBillImportResponse(bill_import=wire.bill_import(found, batches))

    async def ListBillImports(
        self, request: bill_pb.ListBillImportsRequest, context: Context
    ) -> bill_pb.ListBillImportsResponse:
        organization_id, limit = current().organization(), size_of(request)
        position = self._pages.decode(organization_id, request)
        source_id = UUID(request.bill_source_id) if request.bill_source_id else None
        found = await bills.list_bill_imports(self._store, UUID(position) if position else None, limit, source_id)
        more = len(found) > limit
        token = self._pages.encode(organization_id, request, str(found[limit - 1][0].bill_import_id)) if more else ""
        listed = [wire.bill_import(each, batches) for each, batches in found[:limit]]
        return bill_pb.ListBillImportsResponse(bill_imports=listed, next_page_token=token)

    async def ListDailyCosts(
        self, request: bill_pb.ListDailyCostsRequest, context: Context
    ) -> bill_pb.ListDailyCostsResponse:
        organization_id, limit = current().organization(), size_of(request)
        after = wire.after_daily(self._pages.decode(organization_id, request))
        rows, through = await bills.list_daily_costs(
            self._store, request.account, request.resource_id, wire.span(request), after, limit
        )
        more = len(rows) > limit
        position = wire.daily_position(place_of(rows[limit - 1])) if more else ""
        return bill_pb.ListDailyCostsResponse(
            daily_costs=[wire.daily_cost(row) for row in rows[:limit]],
            next_page_token=self._pages.encode(organization_id, request, position) if more else "",
            complete_through=through.isoformat() if through else "",
        )

    async def GetBaseline(self, request: bill_pb.GetBaselineRequest, context: Context) -> bill_pb.GetBaselineResponse:
        through_day = wire.day("through_day", request.through_day)
        found = await savings.get_baseline(self._store, wire.resource_key(request.resource), through_day)
        rows = [(each.row, each.batch_ids) for each in found.rows]
        baseline = wire.baseline(found.baseline, rows, found.batches, found.document, found.digest)
        return bill_pb.GetBaselineResponse(baseline=baseline)

    async def MeasureSavings(
        self, request: bill_pb.MeasureSavingsRequest, context: Context
    ) -> bill_pb.MeasureSavingsResponse:
        question = wire.question(request, hashlib.sha256(request.baseline_document).hexdigest())
        leakage = [wire.resource_key(each) for each in request.leakage]
        found = await savings.measure_savings(
            self._store, self._threads, UUID(request.organization_id), question, leakage, self._clock.now().date()
        )
        return bill_pb.MeasureSavingsResponse(measurement=wire.measurement(found))
