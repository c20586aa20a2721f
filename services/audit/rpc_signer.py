"""The signer's RPCs: decode, call, encode."""

from __future__ import annotations

from typing import Any

from recoup.audit.v1 import signer_service_pb2, signer_service_pb2_grpc
from services.audit import wire_signer
from services.audit.shard_signing import ShardSigner
from services.audit.signing_keys import SigningKeys

Context = Any


class SignerRpc(signer_service_pb2_grpc.SignerServiceServicer):
    """recoup.audit.v1.SignerService, served by the signer's own process."""

    def __init__(self, keys: SigningKeys, signer: ShardSigner) -> None:
        self._keys, self._signer = keys, signer

    async def SignCheckpoint(
        self, request: signer_service_pb2.SignCheckpointRequest, context: Context
    ) -> signer_service_pb2.SignCheckpointResponse:
        return signer_service_pb2.SignCheckpointResponse(note=self._signer.sign(wire_signer.offered_head(request)))

    async def GetSignedHead(
        self, request: signer_service_pb2.GetSignedHeadRequest, context: Context
    ) -> signer_service_pb2.GetSignedHeadResponse:
        head = self._signer.memory.of(request.shard).head
        return signer_service_pb2.GetSignedHeadResponse(
            size=head.size,
            root=head.root,
            note=head.note,
            verifier_key=self._keys.verifier_key.text(),
            key_manifest=self._keys.manifest(),
        )
