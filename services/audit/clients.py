"""What the audit process asks of its signer."""

from __future__ import annotations

import grpc
import grpc.aio

from recoup.audit.v1 import signer_service_pb2 as pb
from recoup.audit.v1 import signer_service_pb2_grpc
from services._mesh.errors import Problem, from_rpc_error
from services.audit.model.note_check import Held, log_keys
from services.audit.model.notes import VerifierKey
from services.audit.model.signing import OfferedHead, SignedHead

SIGN_SECONDS = 5.0


class SignerClient:
    """The signer process, over mTLS."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = signer_service_pb2_grpc.SignerServiceStub(channel)
        self._manifest = ""

    async def last_signed(self, shard: int = 0) -> SignedHead:
        """The last head of a shard that it signed. Raises Problem."""
        head = await self._head(shard)
        return SignedHead(head.size, head.root, head.note)

    async def key_manifest(self) -> str:
        """The manifest of keys that it hands out; the last one while it is away. Raises Problem before the first."""
        try:
            self._manifest = str((await self._head()).key_manifest)
        except Problem:
            # Whoever reads the log needs no signer: a manifest holds until the root signs another.
            if not self._manifest:
                raise
        return self._manifest

    async def held(self, shard: int) -> Held:
        """The public keys that checkpoints are signed with, and what was signed last of a shard. Raises Problem."""
        head = await self._head(shard)
        return Held(log_keys(head.key_manifest, VerifierKey.parse(head.verifier_key)), head.note)

    async def _head(self, shard: int = 0) -> pb.GetSignedHeadResponse:
        try:
            return await self._stub.GetSignedHead(pb.GetSignedHeadRequest(shard=shard), timeout=SIGN_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, "audit-signer") from None

    async def sign(self, head: OfferedHead) -> str:
        """The signed note of a head. Raises Problem, also when the signer refuses."""
        request = pb.SignCheckpointRequest(
            size=head.size, root=head.root, from_size=head.from_size, proof=list(head.proof), shard=head.shard
        )
        if head.opening is not None:
            shown = head.opening
            request.opening.CopyFrom(
                pb.ShardOpening(leaf=shown.leaf, payload=shown.payload, salt=shown.salt, proof=list(shown.proof))
            )
        try:
            return str((await self._stub.SignCheckpoint(request, timeout=SIGN_SECONDS)).note)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, "audit-signer") from None
