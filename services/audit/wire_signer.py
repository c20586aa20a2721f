"""Between the signer's messages and its model."""

from __future__ import annotations

from recoup.audit.v1 import signer_service_pb2
from services.audit.model.signing import OfferedHead, Opening


def offered_head(request: signer_service_pb2.SignCheckpointRequest) -> OfferedHead:
    """A head that the signer is asked to sign."""
    opening = None
    if request.HasField("opening"):
        shown = request.opening
        opening = Opening(shown.leaf, shown.payload, shown.salt, list(shown.proof))
    return OfferedHead(request.shard, request.size, request.root, request.from_size, list(request.proof), opening)
