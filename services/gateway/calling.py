"""Makes the call of a route: under a passport, within its deadline, once more where the passport was refused."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from services._mesh import passports as mesh_passports
from services._mesh import telemetry
from services._mesh.channel import REQUEST_ID_KEY, TRACE_KEY
from services._mesh.descriptors import Effect, Scope
from services._mesh.errors import NotFound, Reason, Unauthenticated, from_rpc_error
from services.gateway.bindings import Route
from services.gateway.config import EdgeSettings
from services.gateway.exchange import Exchange
from services.gateway.limiting import Limits
from services.gateway.passports import Issued, PassportOffice, elevation_of
from services.gateway.session import Session

Channel = Callable[[str], grpc.aio.Channel]
T = TypeVar("T")
# What makes a call, given the metadata that says on whose behalf.
_Made = Callable[[Iterable[tuple[str, str]]], Awaitable[T]]

# Of a passport that identity has issued: its key is trusted no more, or our certificate is another one by now.
_STALE_PASSPORT = frozenset(
    {
        Reason.ERROR_REASON_CREDENTIAL_REVOKED,
        Reason.ERROR_REASON_CREDENTIAL_EXPIRED,
        Reason.ERROR_REASON_CREDENTIAL_INVALID,
        Reason.ERROR_REASON_PRESENTER_MISMATCH,
    }
)


class Admitted(NamedTuple):
    """Who calls, for which organization, and the passport for it; nobody, where none is needed."""

    session: Session
    organization_id: str
    elevation_id: str = ""
    issued: Issued | None = None


class Caller:
    """The calls of one edge."""

    def __init__(
        self,
        routes: Sequence[Route],
        office: PassportOffice,
        channel: Channel,
        limits: Limits,
        settings: EdgeSettings,
    ) -> None:
        self._office, self._limits, self._settings = office, limits, settings
        self._calls = {route.rule.name: _callable(channel(route.service), route) for route in routes}

    async def admit(self, exchange: Exchange, route: Route, session: Session, organization_id: str) -> Admitted:
        """Whoever identity says it is, counted. Raises Problem. What they send is read afterwards: who makes up a
        credential has us work on nothing of theirs, and is a stranger to be counted whatever they sent with it.
        """
        if not session.token:
            return Admitted(session, organization_id)
        elevation_id = elevation_of(exchange.headers) if organization_id else ""
        issued = await self._passport(exchange, route, session, organization_id, elevation_id)
        if organization_id:  # From here on it is more than what the caller says.
            telemetry.belongs_to(organization_id)
        await self._limits.count_verified(exchange, issued.passport, reads=route.rule.effect is Effect.READ)
        return Admitted(session, organization_id, elevation_id, issued)

    async def call(self, exchange: Exchange, route: Route, admitted: Admitted, request: Message) -> Message:
        """The answer. Raises Problem."""

        async def make(bearer: Iterable[tuple[str, str]]) -> Message:
            try:
                answer: Message = await self._begin(exchange, route, bearer, request, self._settings.call_seconds)
            except grpc.aio.AioRpcError as error:
                raise from_rpc_error(error, route.service) from None
            return answer

        return await self._made(exchange, route, admitted, make)

    async def stream(
        self, exchange: Exchange, route: Route, admitted: Admitted, request: Message
    ) -> AsyncGenerator[Message, None]:
        """The answers, one after the other, once the first is there. Raises Problem, then and on the way."""

        async def make(bearer: Iterable[tuple[str, str]]) -> AsyncGenerator[Message, None]:
            call = self._begin(exchange, route, bearer, request, self._settings.stream_seconds)
            answers = _answers(call, route.service)
            # The first one is waited for: what refuses the call is said in the place of it.
            return _with_first(await anext(answers, None), answers)

        return await self._made(exchange, route, admitted, make)

    async def _made(self, exchange: Exchange, route: Route, admitted: Admitted, make: _Made[T]) -> T:
        """What `make` makes, under a passport; one that was revoked or ran out meanwhile is asked for anew, once."""
        session, organization_id, elevation_id, issued = admitted
        if issued is None:
            return await make(())
        try:
            return await make(mesh_passports.bearer(issued.token))
        except Unauthenticated as problem:
            if problem.reason not in _STALE_PASSPORT:
                raise
        # The call was refused before it reached its handler, so making it again is safe.
        renewed = self._office.renew(session, route.service, organization_id, elevation_id)
        issued = await self.counted(exchange, session, renewed)
        return await make(mesh_passports.bearer(issued.token))

    async def counted(self, exchange: Exchange, session: Session, asked: Awaitable[T]) -> T:
        """What identity says; an organization that there isn't for whoever asks is a stranger's attempt."""
        try:
            return await asked
        except NotFound:
            self._limits.count_stranger(exchange, session)
            raise

    async def _passport(
        self, exchange: Exchange, route: Route, session: Session, organization_id: str, elevation_id: str
    ) -> Issued:
        asked = self._office.passport(session, route.service, organization_id, elevation_id)
        if route.rule.scope is not Scope.PLATFORM:
            return await self.counted(exchange, session, asked)
        try:
            return await asked
        except NotFound:
            # Not a member of the platform: who it is, is shown all the same. The service refuses by permission, and
            # counts.
            return await self._office.passport(session, route.service, "")

    def _begin(
        self, exchange: Exchange, route: Route, bearer: Iterable[tuple[str, str]], request: Message, seconds: float
    ) -> Any:
        # The span of what is asked here is about this call and little else, so that it needs none of its own.
        metadata = (*bearer, (REQUEST_ID_KEY, exchange.request_id), (TRACE_KEY, exchange.trace_parent))
        return self._calls[route.rule.name](request, metadata=metadata, timeout=seconds)


async def _answers(call: Any, service: str) -> AsyncGenerator[Message, None]:
    """The answers of a stream, which is ended with the iteration."""
    try:
        async for answer in call:
            yield answer
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error, service) from None
    finally:
        call.cancel()


async def _with_first(first: Message | None, others: AsyncGenerator[Message, None]) -> AsyncGenerator[Message, None]:
    try:
        if first is not None:
            yield first
            async for each in others:
                yield each
    finally:
        await others.aclose()


def _callable(channel: grpc.aio.Channel, route: Route) -> Any:
    kind = channel.unary_stream if route.rule.response_streaming else channel.unary_unary
    return kind(
        f"/{route.rule.name}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=route.rule.response.FromString,
    )
