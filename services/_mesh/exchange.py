"""Calls another service on behalf of the current caller: exchanges the passport at identity, never forwards it."""

from __future__ import annotations

from collections.abc import Callable

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
    one organization, the target, and our certificate, which they are bound to; `generation` says which one it is.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        revocations: Revocations,
        clock: Clock,
        generation: Callable[[], int] = lambda: 0,
    ) -> None:
        self._generation = generation
        self._stub = identity_service_pb2_grpc.IdentityServiceStub(channel)
        self._known: PassportCache[tuple[str, str, int]] = PassportCache(_CACHED, revocations, clock)

    async def on_behalf(self, target: str) -> Metadata:
        """Metadata with a passport of the current caller for `target`. Raises Problem."""
        token = current().passport_token
        key = (token, target, self._generation())
        found = self._known.get(key)
        if found is None:
            found = await self._exchange(key)
        return bearer(found)

    async def _exchange(self, key: tuple[str, str, int]) -> str:
        token, target, _ = key
        request = identity_service_pb2.ExchangePassportRequest(passport=token, audience=target)
        try:
            answer = await self._stub.ExchangePassport(request)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, "identity") from None
        self._known.put(key, answer.passport)
        return str(answer.passport)
