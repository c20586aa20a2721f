"""Passports for the calls of one session: asked of identity once, kept until shortly before they end, bounded."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

import grpc
import grpc.aio

from recoup.identity.v1 import identity_service_pb2, identity_service_pb2_grpc
from services._mesh.clock import Clock
from services._mesh.errors import from_rpc_error, invalid_field
from services._mesh.limits import BoundedCache

_CACHED = 10_000
_MARGIN_SECONDS = 30.0
_SEEN_SECONDS = 600.0
Key = tuple[str, str, str, str]


def elevation_of(headers: Mapping[str, str]) -> str:
    """The id of the break-glass access that the caller says to act under, or nothing. Raises Invalid."""
    given = headers.get("recoup-elevation", "")
    try:
        return given and str(UUID(given))
    except ValueError as error:
        raise invalid_field("Recoup-Elevation", "must be the id of a break-glass access, a UUID") from error


class PassportOffice:
    """The gateway's side of the exchange. It never reads a session: identity says what it is worth."""

    def __init__(self, channel: grpc.aio.Channel, clock: Clock) -> None:
        self._stub = identity_service_pb2_grpc.IdentityServiceStub(channel)
        self._clock = clock
        self._known: BoundedCache[Key, str] = BoundedCache(_CACHED)
        self._seen: BoundedCache[str, bool] = BoundedCache(_CACHED)

    def knows(self, session: str) -> bool:
        """Whether identity has accepted this session lately."""
        return self._seen.get(session) is not None

    async def passport(self, session: str, audience: str, organization_id: str, elevation_id: str = "") -> str:
        """A passport for `audience`, under break-glass access where its id is given. Raises Problem."""
        found = self._known.get((session, audience, organization_id, elevation_id))
        return found or await self._issue(session, audience, organization_id, elevation_id)

    async def renew(self, session: str, audience: str, organization_id: str, elevation_id: str = "") -> str:
        """A new passport, after the one that we had was refused."""
        return await self._issue(session, audience, organization_id, elevation_id)

    async def _issue(self, session: str, audience: str, organization_id: str, elevation_id: str) -> str:
        request = identity_service_pb2.IssuePassportRequest(
            session_token=session, audience=audience, organization_id=organization_id, elevation_id=elevation_id
        )
        try:
            answer = await self._stub.IssuePassport(request, timeout=10.0)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, "identity") from None
        self._seen.put(session, True, _SEEN_SECONDS)
        left = answer.expires_at.seconds - self._clock.wall_seconds() - _MARGIN_SECONDS
        if left > 0:
            self._known.put((session, audience, organization_id, elevation_id), answer.passport, left)
        return str(answer.passport)
