"""The RPCs of credentials on their way to another KEK: decode, call, encode."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from recoup.scanner.v1 import sealing_service_pb2 as pb
from recoup.scanner.v1 import sealing_service_pb2_grpc
from services._mesh.uow import Store
from services.scanner.model.rewrapping import Moved
from services.scanner.usecases.rewrapping import Rewrapping


class SealingRpc(sealing_service_pb2_grpc.SealingServiceServicer):
    """recoup.scanner.v1.SealingService."""

    def __init__(self, store: Store, rewrapping: Rewrapping) -> None:
        self._store, self._rewrapping = store, rewrapping

    async def FetchSealedBatch(self, request: pb.FetchSealedBatchRequest, context: Any) -> pb.FetchSealedBatchResponse:
        found = await self._rewrapping.fetch_batch()
        return pb.FetchSealedBatchResponse(
            kek_service=found.kek.service.value,
            kek_reference=found.kek.reference,
            credentials=[
                pb.Sealed(credential_id=str(each.credential_id), envelope=each.envelope, purpose=each.purpose)
                for each in found.credentials
            ],
            untold_credential_ids=[str(each) for each in found.untold],
            stuck=found.stuck,
        )

    async def StoreRewrapped(self, request: pb.StoreRewrappedRequest, context: Any) -> pb.StoreRewrappedResponse:
        given = [Moved(UUID(e.credential_id), e.from_digest, e.envelope, e.problem) for e in request.credentials]
        told = [UUID(each) for each in request.told_credential_ids]
        async with self._store.begin() as work:
            return pb.StoreRewrappedResponse(moved=await self._rewrapping.store_batch(work, given, told))
