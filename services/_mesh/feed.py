"""Keeps a process's knowledge of revocations fresh by holding identity's feed open."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import grpc
import grpc.aio

from recoup.identity.v1 import identity_pb2, identity_service_pb2, identity_service_pb2_grpc
from services._mesh.clock import monotonic
from services._mesh.errors import from_rpc_error
from services._mesh.revocations import FeedGap, Revocation, RevocationKind, Revocations

log = logging.getLogger(__name__)

_PAUSE_SECONDS = 0.3
# The feed beats each second; a stream that is silent for longer is dead, whatever TCP thinks.
_SILENCE_SECONDS = 4.0
_PREFIX = "REVOCATION_KIND_"


async def follow(channel: grpc.aio.Channel, revocations: Revocations) -> None:
    """Follow the feed until cancelled, and come back after every interruption."""
    stub = identity_service_pb2_grpc.IdentityServiceStub(channel)
    known = ""
    while True:
        began = monotonic()
        try:
            await _follow_once(stub, revocations)
        except FeedGap as gap:
            log.warning("the revocation feed had a gap and is read again: %s", gap)
        except (grpc.aio.AioRpcError, TimeoutError) as error:
            heard = revocations.age_seconds() < monotonic() - began
            known = _note(error, "" if heard else known)
        await asyncio.sleep(_PAUSE_SECONDS)


def _note(error: grpc.aio.AioRpcError | TimeoutError, known: str) -> str:
    """Log why the feed was interrupted, unless it is `known`: an outage is one line, not three a second."""
    why = from_rpc_error(error, "identity").message if isinstance(error, grpc.aio.AioRpcError) else "it fell silent"
    if why != known:
        log.info("the revocation feed was interrupted, and is tried until it is back: %s", why)
    return why


async def _follow_once(stub: identity_service_pb2_grpc.IdentityServiceStub, revocations: Revocations) -> None:
    request = identity_service_pb2.WatchRevocationsRequest(after_seq=revocations.resume(), knows_resealed=True)
    call: Any = stub.WatchRevocations(request)
    try:
        while True:
            async with asyncio.timeout(_SILENCE_SECONDS):
                piece = await call.read()
            if piece is grpc.aio.EOF:
                return
            revocations.apply([_entry(each) for each in piece.revocations], piece.latest_seq)
    finally:
        call.cancel()


def _entry(message: identity_pb2.Revocation) -> Revocation:
    name = identity_pb2.RevocationKind.Name(message.kind).removeprefix(_PREFIX)
    return Revocation(
        message.seq, RevocationKind[name], message.key, message.revoked_at.ToNanoseconds() / 1_000_000_000
    )
