"""Which pages of other origins a browser lets call here (CORS): those that the path's organization allows, no others.

A page shows its own bearer token. Cookies go with a call of the installation's own dashboard alone, if that has an
origin of its own. What isn't allowed gets no header, whether there is such an organization or not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

import grpc
import grpc.aio

from recoup.identity.v1 import origin_service_pb2, origin_service_pb2_grpc
from services._mesh.descriptors import Scope
from services._mesh.errors import Unavailable
from services._mesh.limits import BoundedCache
from services.gateway.bindings import Route
from services.gateway.exchange import Exchange
from services.gateway.limiting import place_of
from services.gateway.newcomers import Lane
from services.gateway.ratelimit import Limiter
from services.gateway.routes import Router

_KEPT, _KEPT_SECONDS = 10_000, 30.0
# While identity can't say it, nobody is allowed: asked again after this.
_FAILED_SECONDS = 1.0
_CALL_SECONDS = 2.0
# Of organizations that weren't asked about lately: what one address asks a second, and how many ask at a time.
_ASKED_A_SECOND, _ASKED_AT_ONCE = 10.0, 50
_ASKING, _WAITING = 2, 256
_MOST_ORIGIN = 300
# How long a browser goes by an answer to OPTIONS: no longer than what was allowed stays in force here by much.
_PREFLIGHT_SECONDS = 60
# What scripts may read of an answer besides what every script may.
_SHOWN = (
    "deprecation, etag, link, ratelimit, ratelimit-policy, recoup-csrf, retry-after, sunset, traceresponse,"
    " www-authenticate, x-request-id"
)
_VARY = (b"vary", b"origin")
_VARY_PREFLIGHT = (b"vary", b"origin, access-control-request-method, access-control-request-headers")


class Origins:
    """What identity says of organizations' origins, for half a minute; `dashboard` are those of the installation."""

    def __init__(self, channel: grpc.aio.Channel | None = None, dashboard: Sequence[str] = ()) -> None:
        self._stub = None if channel is None else origin_service_pb2_grpc.OriginServiceStub(channel)
        self._dashboard = frozenset(dashboard)
        self._known: BoundedCache[str, frozenset[str]] = BoundedCache(_KEPT)
        self._lane = Lane(_ASKING, _WAITING, _CALL_SECONDS)
        self._askers = Limiter(_ASKED_A_SECOND, _ASKED_AT_ONCE)

    async def admit(self, exchange: Exchange, variables: Mapping[str, str]) -> None:
        """Let a page of another origin read the answer, if it may."""
        exchange.answer_headers.append(_VARY)
        origin = exchange.headers.get("origin", "")
        if await self._is_allowed(exchange, origin, variables):
            exchange.answer_headers += [*self._granted(origin), (b"access-control-expose-headers", _SHOWN.encode())]

    async def answer_preflight(self, exchange: Exchange, router: Router, methods: Sequence[str]) -> None:
        """Say what a page of another origin may send, where `methods` are those that the path knows. It carries no
        credential, so that whoever knows an organization and one of its origins is told so; nobody else anything.
        """
        exchange.answer_headers.append(_VARY_PREFLIGHT)
        origin = exchange.headers.get("origin", "")
        found = router.find(exchange.headers.get("access-control-request-method", ""), exchange.raw_path)
        if isinstance(found, list) or not await self._is_allowed(exchange, origin, found[1]):
            return
        exchange.answer_headers += [
            *self._granted(origin),
            (b"access-control-allow-methods", ", ".join(methods).encode()),
            (b"access-control-allow-headers", ", ".join(_taken(found[0])).encode()),
            (b"access-control-max-age", str(_PREFLIGHT_SECONDS).encode()),
        ]

    def is_own(self, exchange: Exchange) -> bool:
        """Whether the page that calls is of this very host, or the installation's dashboard."""
        origin = exchange.headers.get("origin", "")
        return origin in self._dashboard or _is_here(exchange, origin)

    async def _is_allowed(self, exchange: Exchange, origin: str, variables: Mapping[str, str]) -> bool:
        if not origin or len(origin) > _MOST_ORIGIN or _is_here(exchange, origin):
            return False  # A page of this host needs no header.
        return origin in self._dashboard or origin in await self._of(exchange, variables.get("organization_id", ""))

    def _granted(self, origin: str) -> list[tuple[bytes, bytes]]:
        said = [(b"access-control-allow-origin", origin.encode("latin-1"))]
        return [*said, (b"access-control-allow-credentials", b"true")] if origin in self._dashboard else said

    async def _of(self, exchange: Exchange, organization_id: str) -> frozenset[str]:
        """Of what can't be an organization's id, "-" too, none; nor where identity isn't there to say it."""
        found = self._known.get(organization_id)
        if found is not None or self._stub is None or not _is_id(organization_id):
            return found or frozenset()
        if not self._askers.take(place_of(exchange.client)).allowed:
            return frozenset()
        request = origin_service_pb2.CheckAllowedOriginsRequest(organization_id=organization_id)
        try:
            async with self._lane.place():
                answer = await self._stub.CheckAllowedOrigins(request, timeout=_CALL_SECONDS)
        except (grpc.aio.AioRpcError, Unavailable):
            self._known.put(organization_id, frozenset(), _FAILED_SECONDS)
            return frozenset()
        allowed = frozenset(answer.origins)
        self._known.put(organization_id, allowed, _KEPT_SECONDS)
        return allowed


def _is_here(exchange: Exchange, origin: str) -> bool:
    """Of this very host, by the name that the browser connected to."""
    host = exchange.headers.get("host", "").lower()
    return bool(host) and origin == f"https://{host.removesuffix(':443')}"


def _is_id(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


def _taken(route: Route) -> list[str]:
    """The headers that mean something to a route."""
    fields = route.rule.descriptor.input_type.fields_by_name
    found = ["accept", "traceparent", "x-request-id"]
    if route.rule.scope is not Scope.PUBLIC:
        found += ["authorization", "elevation-id", "recoup-csrf", "recoup-organization"]
    if route.http_method == "GET":
        return sorted([*found, "if-none-match"])
    found += ["content-encoding", "content-type"] if route.body else []
    found += ["idempotency-key"] if "request_id" in fields else []
    return sorted([*found, "if-match"] if "etag" in fields else found)
