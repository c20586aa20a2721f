"""What the scanner asks of its peers: whether an organization is in use, what things cost, how a role behaves."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from uuid import UUID

import grpc
import grpc.aio

from recoup.broker.v1 import broker_service_pb2, broker_service_pb2_grpc
from recoup.identity.v1 import (
    exception_service_pb2,
    exception_service_pb2_grpc,
    identity_pb2,
    identity_service_pb2,
    identity_service_pb2_grpc,
)
from recoup.pricing.v1 import pricing_pb2, pricing_service_pb2, pricing_service_pb2_grpc
from recoup.scanner.v1 import connecting_service_pb2, connecting_service_pb2_grpc
from services._mesh.errors import from_rpc_error
from services._mesh.exchange import Exchange
from services._mesh.grants import metadata
from services._mesh.times import moment, stamp
from services.scanner.model.connection import RoleCheck
from services.scanner.model.finding import PriceBook
from services.scanner.model.suppression import Suppression, target_of

PEER_SECONDS = 10.0
PROBE_SECONDS = 60.0
_KEYS_A_CALL = 500
CURRENCY = "USD"


class Identity:
    """The identity service."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = identity_service_pb2_grpc.IdentityServiceStub(channel)

    async def is_active(self, organization_id: UUID) -> bool:
        """Whether an organization may have work done. Raises Problem."""
        request = identity_service_pb2.CheckOrganizationRequest(organization_id=str(organization_id))
        try:
            answer = await self._stub.CheckOrganization(request, timeout=PEER_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, "identity") from None
        return bool(answer.state == identity_pb2.ORGANIZATION_STATE_ACTIVE)


class Exceptions:
    """Identity's exceptions, as far as they leave findings alone."""

    def __init__(self, channel: grpc.aio.Channel, exchange: Exchange) -> None:
        self._stub = exception_service_pb2_grpc.ExceptionServiceStub(channel)
        self._exchange = exchange

    async def in_force(self, organization_id: UUID) -> dict[UUID, tuple[str, datetime]]:
        """What each suppression that is in force now is about, and when it ends, by its id. Raises Problem."""
        request = exception_service_pb2.CheckExceptionsRequest(
            organization_id=str(organization_id), kind=exception_service_pb2.EXCEPTION_KIND_SUPPRESSION
        )
        try:
            answer = await self._stub.CheckExceptions(request, timeout=PEER_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, "identity") from None
        return {UUID(each.exception_id): (each.target, moment(each.expires_at)) for each in answer.in_force}

    async def create(self, organization_id: UUID, wanted: Suppression) -> tuple[UUID, datetime]:
        """Make one on behalf of the caller; its id and its end. Raises AlreadyExists, and any other Problem."""
        request = exception_service_pb2.CreateExceptionRequest(
            organization_id=str(organization_id),
            kind=exception_service_pb2.EXCEPTION_KIND_SUPPRESSION,
            target=target_of(wanted.finding_id),
            reason=wanted.reason,
            expires_at=stamp(wanted.expires_at),
            reviewers=wanted.reviewers,
            request_id=wanted.request_id,
        )
        try:
            metadata = await self._exchange.on_behalf("identity")
            answer = await self._stub.CreateException(request, metadata=metadata, timeout=PEER_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, "identity") from None
        return UUID(answer.exception.exception_id), moment(answer.exception.expires_at)


class Pricing:
    """The pricing service's catalogue."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = pricing_service_pb2_grpc.PricingServiceStub(channel)

    async def books(self, regions: Iterable[str], wanted: Iterable[tuple[str, str]]) -> dict[str, PriceBook]:
        """A price book for each region, with the wanted (region, sku) that the catalogue knows. Raises Problem."""
        keys = sorted(wanted)
        prices: dict[str, dict[str, Decimal]] = {region: {} for region in regions}
        version = ""
        for start in range(0, len(keys), _KEYS_A_CALL):
            answer = await self._lookup(keys[start : start + _KEYS_A_CALL])
            version = answer.price_version
            for price in answer.prices:
                if price.unit_price.currency == CURRENCY:
                    prices[price.region][price.sku] = Decimal(price.unit_price.amount)
        return {region: PriceBook(known, CURRENCY, version) for region, known in prices.items()}

    async def _lookup(self, keys: list[tuple[str, str]]) -> pricing_service_pb2.LookupPricesResponse:
        request = pricing_service_pb2.LookupPricesRequest(
            keys=[pricing_pb2.PriceKey(provider="aws", region=region, sku=sku) for region, sku in keys]
        )
        try:
            return await self._stub.LookupPrices(request, timeout=PEER_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, "pricing") from None


class Registry:
    """The scanner's API, which keeps the connections."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = connecting_service_pb2_grpc.ConnectingServiceStub(channel)

    async def expire(self, grant: str) -> None:
        """Have the grant's connection given up. Raises Problem."""
        request = connecting_service_pb2.ExpireConnectionRequest()
        try:
            await self._stub.ExpireConnection(request, metadata=metadata(grant), timeout=PEER_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, "scanner") from None


class Broker:
    """The broker's probe."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = broker_service_pb2_grpc.BrokerServiceStub(channel)

    async def probe(self, grant: str, sealed: bytes) -> RoleCheck:
        """How the grant's role answers without, with a wrong, and with the right external id. Raises Problem."""
        request = broker_service_pb2.ProbeCredentialRequest(sealed_credential=sealed)
        try:
            answer = await self._stub.ProbeCredential(request, metadata=metadata(grant), timeout=PROBE_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, "broker") from None
        return RoleCheck(
            answer.role_arn,
            _outcome(answer.without_external_id),
            _outcome(answer.with_wrong_external_id),
            _outcome(answer.with_external_id),
            answer.error_code,
        )


def _outcome(value: broker_service_pb2.ProbeOutcome.ValueType) -> str:
    return broker_service_pb2.ProbeOutcome.Name(value).removeprefix("PROBE_OUTCOME_")
