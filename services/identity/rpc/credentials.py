"""The RPC of what became of cloud credentials: decode, call, encode."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from recoup.identity.v1 import credential_service_pb2 as pb
from recoup.identity.v1 import credential_service_pb2_grpc
from services._mesh.revocations import RevocationKind
from services._mesh.uow import Store
from services.identity.usecases import credentials

_KINDS = {
    pb.CREDENTIAL_CHANGE_REVOKED: RevocationKind.CREDENTIAL,
    pb.CREDENTIAL_CHANGE_RESEALED: RevocationKind.RESEALED,
}


class CredentialRpc(credential_service_pb2_grpc.CredentialServiceServicer):
    """recoup.identity.v1.CredentialService."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def PublishCredentials(
        self, request: pb.PublishCredentialsRequest, context: Any
    ) -> pb.PublishCredentialsResponse:
        ids = [UUID(each) for each in request.credential_ids]
        await credentials.publish_credentials(self._store, _KINDS[request.change], ids)
        return pb.PublishCredentialsResponse()
