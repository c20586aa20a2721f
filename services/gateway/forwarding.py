"""Hands HTTP of other protocols to the service that speaks them, by the `forward` option of its RPCs.

It limits and authenticates nothing but the shape: what a token is worth is said by the service, and counted here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import grpc
import grpc.aio

from recoup.mesh.v1 import forward_pb2
from services._mesh.channel import REQUEST_ID_KEY
from services._mesh.descriptors import Effect
from services._mesh.errors import Internal, Reason, Unauthenticated, from_rpc_error, invalid_field
from services._mesh.limits import BoundedCache
from services._mesh.telemetry import trace_id
from services.gateway import cookies
from services.gateway.bodies import read_body, require_media_type, require_utf8
from services.gateway.exchange import Exchange, Receive
from services.gateway.limiting import Limits
from services.gateway.routes import Forwarded
from services.gateway.session import Session

_KNOWN, _KNOWN_SECONDS = 10_000, 600.0
_MOST_TOKEN_BYTES = 8192
_MOST_PATH_BYTES, _MOST_QUERY_BYTES, _MOST_HEADER_BYTES = 8192, 65536, 8192


class Forwarder:
    """The forwarded part of the edge."""

    def __init__(
        self,
        forwards: Sequence[Forwarded],
        channel: Callable[[str], grpc.aio.Channel],
        limits: Limits,
        call_seconds: float,
    ) -> None:
        self._limits, self._call_seconds = limits, call_seconds
        self._known: BoundedCache[str, bool] = BoundedCache(_KNOWN)
        self._calls = {each.rule.name: _callable(channel(each.service), each) for each in forwards}

    async def serve(self, forwarded: Forwarded, exchange: Exchange, receive: Receive) -> tuple[int, str, bytes]:
        """The service's answer: status, media type and body. Raises Problem where it wasn't reached, or said one."""
        token = self._token(forwarded, exchange)
        reads = forwarded.rule.effect is Effect.READ
        session = Session.of(token)
        self._limits.require_patience(exchange, session, known=bool(token) and bool(self._known.get(session.digest)))
        if token:
            self._limits.count_credential(exchange, session, reads=reads)
        else:
            self._limits.count_address(exchange, reads=reads, prefix=forwarded.forward.prefix)
        request = _request(forwarded, exchange, token)
        request.body = await self._body(forwarded, exchange, receive)
        answer = await self._call(forwarded, exchange, request)
        if token:
            self._known.put(session.digest, True, _KNOWN_SECONDS)
        elif answer.status >= 400:
            self._limits.count_stranger(exchange)
        return _answer(forwarded, exchange, answer)

    def _token(self, forwarded: Forwarded, exchange: Exchange) -> str:
        if not forwarded.forward.needs_bearer:
            return ""
        header = exchange.headers.get("authorization", "")
        if not header:
            raise Unauthenticated(
                Reason.ERROR_REASON_CREDENTIAL_MISSING, "Send a token: Authorization: Bearer <token>."
            )
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or not token or len(token) > _MOST_TOKEN_BYTES or not token.isascii():
            raise Unauthenticated(Reason.ERROR_REASON_CREDENTIAL_INVALID, "The token can't be accepted.")
        return token

    async def _body(self, forwarded: Forwarded, exchange: Exchange, receive: Receive) -> bytes:
        rule = forwarded.forward
        body = await read_body(exchange, receive, rule.max_body_bytes, self._call_seconds)
        if body:
            require_media_type(exchange, rule.media_types)
            require_utf8(exchange)
        return body

    async def _call(
        self, forwarded: Forwarded, exchange: Exchange, request: forward_pb2.HttpRequest
    ) -> forward_pb2.HttpResponse:
        try:
            answer: Any = await self._calls[forwarded.rule.name](
                forwarded.rule.request(http=request),
                metadata=((REQUEST_ID_KEY, exchange.request_id),),
                timeout=self._call_seconds,
            )
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, forwarded.service) from None
        held: forward_pb2.HttpResponse = answer.http
        return held


def _callable(channel: grpc.aio.Channel, forwarded: Forwarded) -> Any:
    return channel.unary_unary(
        f"/{forwarded.rule.name}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=forwarded.rule.response.FromString,
    )


def _request(forwarded: Forwarded, exchange: Exchange, token: str) -> forward_pb2.HttpRequest:
    path = exchange.raw_path.removeprefix(forwarded.forward.prefix)
    if not path.isascii() or len(path) > _MOST_PATH_BYTES:
        raise invalid_field("(path)", f"must be percent-encoded, with at most {_MOST_PATH_BYTES} bytes.")
    if len(exchange.query) > _MOST_QUERY_BYTES:
        raise invalid_field("(query)", f"must have at most {_MOST_QUERY_BYTES} bytes.")
    request = forward_pb2.HttpRequest(
        method=exchange.method,
        path=path,
        query=exchange.query.decode("ascii"),  # parse_query has refused any other.
        client_address=exchange.client,
        bearer_token=token,
        cookie=cookies.value_of(exchange, forwarded.forward.cookie),
    )
    for name in forwarded.forward.request_headers:
        value = exchange.headers.get(name)
        if value is None:
            continue
        if len(value.encode()) > _MOST_HEADER_BYTES:
            raise invalid_field(name, f"must have at most {_MOST_HEADER_BYTES} bytes.")
        request.headers.add(name=name, value=value)
    return request


def _answer(forwarded: Forwarded, exchange: Exchange, answer: forward_pb2.HttpResponse) -> tuple[int, str, bytes]:
    if not 200 <= answer.status <= 599:
        raise Internal(trace_id())
    for header in answer.headers:
        name, value = header.name.lower(), header.value
        # A line break in a value would begin another header.
        if name in forwarded.forward.response_headers and value.isascii() and value.isprintable():
            exchange.answer_headers.append((name.encode(), value.encode()))
    name, cookie = forwarded.forward.cookie, answer.cookie
    if name and answer.HasField("cookie"):
        kept = cookies.written(name, cookie.value, cookie.max_age_seconds, "None")
        exchange.answer_headers.append((b"set-cookie", kept))
    return answer.status, answer.media_type, answer.body
