"""What a rotation asks of the scanner's API, which keeps the credentials, and of the broker, which wraps them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from uuid import UUID

import grpc
import grpc.aio

from recoup.broker.v1 import broker_service_pb2, broker_service_pb2_grpc
from recoup.scanner.v1 import sealing_service_pb2, sealing_service_pb2_grpc
from services._mesh.errors import from_rpc_error
from services._mesh.grants import metadata
from services._mesh.kms.interface import Kek, KeyService
from services.scanner.clients.peers import PEER_SECONDS
from services.scanner.model.rewrapping import Moved, Sealed, SealedBatch

# A batch is 64 calls of a key service, two at a time.
_WRAP_SECONDS = 120.0


class Keeper:
    """The scanner's API, under a rotation's grant."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = sealing_service_pb2_grpc.SealingServiceStub(channel)

    async def fetch(self, grant: str) -> SealedBatch:
        """The next batch. Raises Problem."""
        request = sealing_service_pb2.FetchSealedBatchRequest()
        try:
            found = await self._stub.FetchSealedBatch(request, metadata=metadata(grant), timeout=PEER_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, "scanner") from None
        return SealedBatch(
            Kek(KeyService(found.kek_service), found.kek_reference),
            [Sealed(UUID(each.credential_id), each.envelope, each.purpose) for each in found.credentials],
            [UUID(each) for each in found.untold_credential_ids],
            found.stuck,
        )

    async def store(self, grant: str, moved: Sequence[Moved], told: Sequence[UUID]) -> None:
        """Give a batch back; `told` are those that the feed knows of. Raises Problem."""
        request = sealing_service_pb2.StoreRewrappedRequest(
            credentials=[
                sealing_service_pb2.Rewrapped(
                    credential_id=str(each.credential_id),
                    from_digest=each.from_digest,
                    envelope=each.envelope,
                    problem=each.problem,
                )
                for each in moved
            ],
            told_credential_ids=[str(each) for each in told],
        )
        try:
            await self._stub.StoreRewrapped(request, metadata=metadata(grant), timeout=PEER_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, "scanner") from None


class Wrapper:
    """The broker."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = broker_service_pb2_grpc.BrokerServiceStub(channel)

    async def prove(self, organization_id: UUID, probe_id: UUID, kek: Kek, wrapped: bytes, digest: bytes) -> None:
        """See that the broker may unwrap under a KEK. Raises Problem."""
        request = broker_service_pb2.ProveKekRequest(
            organization_id=str(organization_id), probe_id=str(probe_id), kek=_name(kek), wrapped=wrapped, digest=digest
        )
        try:
            await self._stub.ProveKek(request, timeout=PEER_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, "broker") from None

    async def moved(self, grant: str, batch: SealedBatch) -> list[Moved]:
        """The batch under its KEK. Raises Problem where the KEK can't be used, or a key service is away."""
        request = broker_service_pb2.RewrapCredentialsRequest(
            kek=_name(batch.kek),
            credentials=[
                broker_service_pb2.SealedCredential(
                    credential_id=str(each.credential_id), sealed_credential=each.envelope, purpose=each.purpose
                )
                for each in batch.credentials
            ],
        )
        try:
            answer = await self._stub.RewrapCredentials(request, metadata=metadata(grant), timeout=_WRAP_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, "broker") from None
        digests = {each.credential_id: hashlib.sha256(each.envelope).digest() for each in batch.credentials}
        return [
            Moved(UUID(e.credential_id), digests[UUID(e.credential_id)], e.sealed_credential, e.problem)
            for e in answer.credentials
        ]


def _name(kek: Kek) -> broker_service_pb2.KekName:
    return broker_service_pb2.KekName(service=kek.service.value, reference=kek.reference)
