"""Identity's revocation feed, for what the scanner's worker has to tell it."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import grpc
import grpc.aio

from recoup.identity.v1 import credential_service_pb2 as pb
from recoup.identity.v1 import credential_service_pb2_grpc
from services._mesh.errors import from_rpc_error
from services._mesh.grants import metadata, read_own_grant
from services.scanner.clients.peers import PEER_SECONDS


class Feed:
    """Takes what became of credentials to identity."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = credential_service_pb2_grpc.CredentialServiceStub(channel)

    async def revoked(self, grant: str, credential_id: UUID) -> None:
        """One may not be used any more. Raises Problem."""
        await self._publish(grant, [credential_id], pb.CREDENTIAL_CHANGE_REVOKED)

    async def resealed(self, grant: str, credential_ids: Sequence[UUID]) -> None:
        """These, 500 at most, stand in other envelopes. Raises Problem."""
        await self._publish(grant, credential_ids, pb.CREDENTIAL_CHANGE_RESEALED)

    async def _publish(self, grant: str, ids: Sequence[UUID], change: pb.CredentialChange.ValueType) -> None:
        organization_id = str(read_own_grant(grant).organization_id)
        request = pb.PublishCredentialsRequest(
            organization_id=organization_id, credential_ids=[str(each) for each in ids], change=change
        )
        try:
            await self._stub.PublishCredentials(request, metadata=metadata(grant), timeout=PEER_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, "identity") from None
