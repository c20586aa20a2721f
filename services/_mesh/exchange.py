"""Calls another service on behalf of the current caller: exchanges the passport at identity, never forwards it."""

from __future__ import annotations

import grpc
import grpc.aio

from recoup.identity.v1 import identity_service_pb2, identity_service_pb2_grpc
from services._mesh.clock import Clock
from services._mesh.context import current
from services._mesh.errors import from_rpc_error
from services._mesh.limits import BoundedCache
from services._mesh.passports import bearer

_CACHED = 4096
# A passport isn't used in its last seconds: it must still be good when the other side looks at it.
_MARGIN_SECONDS = 30.0
Metadata = tuple[tuple[str, str], ...]


class Exchange:
    """Exchanged passports, kept for as long as they may be used: by the passport received and the target."""

    def __init__(self, channel: grpc.aio.Channel, clock: Clock) -> None:
        self._stub = identity_service_pb2_grpc.IdentityServiceStub(channel)
        self._clock = clock
        self._known: BoundedCache[tuple[str, str], str] = BoundedCache(_CACHED)

    async def on_behalf(self, target: str) -> Metadata:
        """Metadata with a passport of the current caller for `target`. Raises Problem."""
        token = current().passport_token
        found = self._known.get((token, target))
        if found is None:
            found = await self._exchange(token, target)
        return bearer(found)

    async def _exchange(self, token: str, target: str) -> str:
        request = identity_service_pb2.ExchangePassportRequest(passport=token, audience=target)
        try:
            answer = await self._stub.ExchangePassport(request)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, "identity") from None
        left = answer.expires_at.ToNanoseconds() / 1e9 - self._clock.wall_seconds() - _MARGIN_SECONDS
        if left > 0:
            self._known.put((token, target), answer.passport, left)
        return str(answer.passport)
