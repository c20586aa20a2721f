"""What pricing asks of its peers: whether an organization is in use, and what a connection may read."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

import grpc
import grpc.aio

from recoup.identity.v1 import identity_pb2, identity_service_pb2, identity_service_pb2_grpc
from recoup.scanner.v1 import scanner_pb2, scanner_service_pb2, scanner_service_pb2_grpc
from services._mesh.errors import from_rpc_error
from services._mesh.exchange import Exchange

PEER_SECONDS = 10.0


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


@dataclass(frozen=True, slots=True)
class ConnectionFacts:
    """What a bill source needs to know of the connection that reads it."""

    credential_id: UUID
    accounts: frozenset[str]
    is_disabled: bool


class Scanner:
    """The scanner's connections, seen on behalf of whoever asks us."""

    def __init__(self, channel: grpc.aio.Channel, exchange: Exchange) -> None:
        self._stub = scanner_service_pb2_grpc.ScannerServiceStub(channel)
        self._exchange = exchange

    async def get_connection(self, organization_id: UUID, connection_id: UUID) -> ConnectionFacts:
        """A connection. Raises Problem, NotFound among others."""
        request = scanner_service_pb2.GetConnectionRequest(
            organization_id=str(organization_id), connection_id=str(connection_id)
        )
        authority = await self._exchange.on_behalf("scanner")
        try:
            answer = await self._stub.GetConnection(request, metadata=authority, timeout=PEER_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, "scanner") from None
        found = answer.connection
        return ConnectionFacts(
            UUID(found.credential_id),
            frozenset(account.account_id for account in found.aws_accounts),
            found.state == scanner_pb2.CONNECTION_STATE_DISABLED,
        )
