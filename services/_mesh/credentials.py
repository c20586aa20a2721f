"""The way to cloud credentials: an API asks which one is in use before it grants that; its worker gets that one sealed
from its keeper, and has it opened by the broker under the grant.

The worker never sees anything but the sealed bytes and the short-lived session; it must not keep either longer than
the job.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import grpc.aio

from recoup.broker.v1 import broker_service_pb2, broker_service_pb2_grpc
from recoup.scanner.v1 import (
    rotation_service_pb2,
    rotation_service_pb2_grpc,
    scanner_service_pb2,
    scanner_service_pb2_grpc,
)
from services._mesh.aws_settings import AwsCredentials
from services._mesh.clouds import CloudToken
from services._mesh.errors import from_rpc_error
from services._mesh.times import moment

GRANT_METADATA = "recoup-grant"
DEADLINE_SECONDS = 30.0
# A worker waits ten seconds for its lease: that the keeper doesn't answer must be known within them.
_RESOLVE_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class CredentialInUse:
    """A credential, and from when on it is too old to be opened; None where no limit holds."""

    credential_id: UUID
    refused_from: datetime | None


class CredentialKeeper:
    """Knows which credential is in use in the place of one that a plan or a bill source names."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = rotation_service_pb2_grpc.RotationServiceStub(channel)

    async def in_use(self, organization_id: UUID, credential_id: UUID) -> CredentialInUse:
        """The credential in use: itself, where it never gave way to another. Raises Problem."""
        request = rotation_service_pb2.ResolveCredentialRequest(
            organization_id=str(organization_id), credential_id=str(credential_id)
        )
        try:
            answer = await self._stub.ResolveCredential(request, timeout=_RESOLVE_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, "scanner") from None
        refused_from = moment(answer.refused_from) if answer.HasField("refused_from") else None
        return CredentialInUse(UUID(answer.credential_id), refused_from)


class CredentialDesk:
    """Opens the credential that a grant names. Holds the two channels, and nothing else."""

    def __init__(self, keeper: grpc.aio.Channel, broker: grpc.aio.Channel) -> None:
        self._keeper = scanner_service_pb2_grpc.ScannerServiceStub(keeper)
        self._broker = broker_service_pb2_grpc.BrokerServiceStub(broker)

    async def fetch_sealed(self, grant: str, credential_id: str) -> bytes:
        """The sealed bytes. Raises Problem."""
        request = scanner_service_pb2.FetchSealedCredentialRequest(credential_id=credential_id)
        try:
            answer = await self._keeper.FetchSealedCredential(
                request, metadata=((GRANT_METADATA, grant),), timeout=DEADLINE_SECONDS
            )
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, "scanner") from None
        return bytes(answer.sealed_credential)

    async def open(self, grant: str, credential_id: str) -> AwsCredentials:
        """A short-lived session with no more rights than the grant's statements. Raises Problem."""
        aws = (await self._opened(grant, credential_id)).aws
        return AwsCredentials(aws.access_key_id, aws.secret_access_key, aws.session_token)

    async def _opened(self, grant: str, credential_id: str) -> broker_service_pb2.OpenCredentialResponse:
        sealed = await self.fetch_sealed(grant, credential_id)
        request = broker_service_pb2.OpenCredentialRequest(sealed_credential=sealed)
        try:
            return await self._broker.OpenCredential(
                request, metadata=((GRANT_METADATA, grant),), timeout=DEADLINE_SECONDS
            )
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, "broker") from None

    async def open_token(self, grant: str, credential_id: str) -> CloudToken:
        """A short-lived token of Azure or Google Cloud, for the grant's scope alone. Raises Problem."""
        token = (await self._opened(grant, credential_id)).token
        return CloudToken(token.access_token, token.scope_id, token.source_identity, moment(token.expires_at))
