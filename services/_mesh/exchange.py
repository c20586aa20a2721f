"""Calls another service on behalf of the current caller: exchanges the passport at identity, never forwards it."""

from __future__ import annotations

import grpc
import grpc.aio

from recoup.identity.v1 import identity_service_pb2, identity_service_pb2_grpc
from services._mesh.clock import Clock
from services._mesh.context import current
from services._mesh.errors import from_rpc_error
from services._mesh.passport_cache import PassportCache
from services._mesh.passports import bearer
from services._mesh.revocations import Revocations

_CACHED = 4096
Metadata = tuple[tuple[str, str], ...]


class Exchange:
    """Exchanged passports, kept for as long as they may be used: by the passport received, which is one session's in
    one organization, and the target.
    """

    def __init__(self, channel: grpc.aio.Channel, revocations: Revocations, clock: Clock) -> None:
        self._stub = identity_service_pb2_grpc.IdentityServiceStub(channel)
        self._known: PassportCache[tuple[str, str]] = PassportCache(_CACHED, revocations, clock)

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
        self._known.put((token, target), answer.passport)
        return str(answer.passport)
