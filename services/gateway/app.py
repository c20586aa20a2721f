"""The ASGI application: one HTTP request into one RPC, with the edge's limits and headers around it.

It authenticates and limits; whether a caller may do what they ask is the called service's decision.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any

from google.protobuf.message import Message
from opentelemetry.trace import SpanKind

from services._mesh import telemetry
from services._mesh.descriptors import Scope
from services._mesh.errors import (
    Internal,
    Invalid,
    NotFound,
    Problem,
    Reason,
    Unauthenticated,
    invalid_field,
)
from services._mesh.ids import PLATFORM
from services._mesh.metrics import Metrics
from services.gateway import (
    answers,
    conditions,
    cookies,
    credentials,
    problems,
    repeating,
    streaming,
    templates,
    transcode,
)
from services.gateway.arriving import Arriving
from services.gateway.bodies import read_body, require_media_type, require_utf8
from services.gateway.bucket import Bucket
from services.gateway.calling import Admitted, Caller, Channel
from services.gateway.config import EdgeSettings
from services.gateway.credentials import Credentials
from services.gateway.exchange import Exchange, Outgoing, Receive, Send, answer, blank, head, read
from services.gateway.forwarding import Forwarder
from services.gateway.limiting import Limits, place_of
from services.gateway.newcomers import busy
from services.gateway.origins import Origins
from services.gateway.pages import Page
from services.gateway.passports import PassportOffice, organization_of
from services.gateway.routes import FIXED_PATHS, Forwarded, Route, Router
from services.gateway.session import Session
from services.gateway.watching import Watch

log = logging.getLogger(__name__)

Pieces = AsyncGenerator[bytes, None]

_JSON = "application/json"
# For the problem that says that a stream's time is over.
_LAST_WORDS_SECONDS = 5.0


class Gateway:
    """The application. `pages` are fixed documents by path, served to anybody."""

    def __init__(
        self,
        router: Router,
        office: PassportOffice,
        channel: Channel,
        settings: EdgeSettings,
        metrics: Metrics,
        ready: Callable[[], bool],
        pages: Mapping[str, Page],
        origins: Origins | None = None,
        bucket: Bucket | None = None,
    ) -> None:
        self._router, self._office, self._settings = router, office, settings
        self._ready, self._pages = ready, pages
        self._watch = Watch(metrics, {route.name for route in router.routes})
        self._limits = Limits(settings, bucket)
        self._origins = origins or Origins()
        self._credentials = Credentials(office, self._limits, self._origins)
        self.leaving = asyncio.Event()
        self._running, self._arriving = 0, Arriving(settings.concurrent_requests)
        self._streams: Counter[str] = Counter()
        self._caller = Caller(router.routes, office, channel, self._limits, settings)
        self._forwarder = Forwarder(router.forwards, channel, self._limits, settings.call_seconds)

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one request; whatever goes wrong, the answer is a problem document under the edge's headers."""
        if scope["type"] != "http":
            return
        outgoing = Outgoing(send)
        try:
            await self._serve_traced(scope, receive, outgoing)
        except Exception as error:
            if outgoing.begun:
                raise
            await self._last_resort(scope, outgoing, error)

    async def _serve_traced(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        exchange = read(scope)
        with self._watch.request(exchange) as seen:
            status, media_type, body = await self._answer(exchange, receive)
            seen.answered(status, is_stream=not isinstance(body, bytes))
            if isinstance(body, bytes):
                body = await answers.coded(exchange, media_type, body)
                await answer(send, exchange, status, media_type, body)
            else:
                await self._stream(exchange, receive, send, body)

    async def _stream(self, exchange: Exchange, receive: Receive, send: Send, body: Pieces) -> None:
        """Send what `_opened` opened, and count it no more."""
        try:
            seconds = self._settings.stream_seconds + _LAST_WORDS_SECONDS
            await streaming.answer(send, receive, exchange, body, seconds, self.leaving)
        finally:
            self._closed(exchange)

    async def _last_resort(self, scope: Mapping[str, Any], send: Send, error: Exception) -> None:
        """INTERNAL under a trace of its own, from nothing that the request holds but its method."""
        with telemetry.active().span("unforeseen (edge)", kind=SpanKind.SERVER):
            exchange = blank(str(scope.get("method", "")))
            trace_id = telemetry.trace_id()
            log.error("a request failed at the edge", exc_info=error, extra={"failed_trace_id": trace_id})
            status, body = problems.render(Internal(trace_id), exchange.request_id, trace_id)
            self._watch.count(status)
            await answer(send, exchange, status, problems.MEDIA_TYPE, body)

    @property
    def settings(self) -> EdgeSettings:
        """What bounds a request."""
        return self._settings

    def leave(self) -> None:
        """The process is to end: be unready, and end streams and connections, each with a whole answer."""
        self.leaving.set()

    @property
    def watch(self) -> Watch:
        """Where is counted what no request says."""
        return self._watch

    def refused(self, problem: Problem) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """Status, headers and document for what isn't read as a request, or isn't served at all."""
        with telemetry.active().span("refused (edge)", kind=SpanKind.SERVER):
            exchange = blank("")
            status, _, body = self._refusal(exchange, problem, telemetry.trace_id())
            self._watch.count(status)
            return status, head(exchange, problems.MEDIA_TYPE, body), body

    async def _answer(self, exchange: Exchange, receive: Receive) -> tuple[int, str, bytes | Pieces]:
        self._running += 1
        try:
            return await self._serve(exchange, self._arriving.counted(exchange, receive))
        except Problem as problem:
            if isinstance(problem, Unauthenticated):
                self._limits.count_stranger(exchange, credentials.shown(exchange))
            challenge = problems.challenge(problem)
            if challenge:
                exchange.answer_headers.append((b"www-authenticate", challenge.encode("ascii")))
            return self._refusal(exchange, problem, telemetry.trace_id())
        except Exception as error:
            log.error("%s failed", exchange.raw_path, exc_info=error)
            trace_id = telemetry.trace_id()
            return self._refusal(exchange, Internal(trace_id), trace_id)
        finally:
            self._running -= 1

    def _refusal(self, exchange: Exchange, problem: Problem, trace_id: str) -> tuple[int, str, bytes]:
        """The problem as the protocol has it that the path is for."""
        if self._router.has_scim_errors(exchange.raw_path):
            return problems.render_scim(problem)
        status, body = problems.render(problem, exchange.request_id, trace_id, is_conditional=exchange.is_conditional)
        seconds = problems.retry_after(problem, status)
        if seconds and not any(name == b"retry-after" for name, _ in exchange.answer_headers):
            exchange.answer_headers.append((b"retry-after", seconds.encode()))
        return status, problems.MEDIA_TYPE, body

    async def _serve(self, exchange: Exchange, receive: Receive) -> tuple[int, str, bytes | Pieces]:
        query = transcode.parse_query(exchange.query)
        if exchange.twice:
            raise invalid_field(exchange.twice, "must be sent once.")
        fixed = self._fixed(exchange)
        if fixed is not None:
            exchange.route = f"GET {exchange.raw_path}"  # One of a few.
            return fixed
        self._shed(exchange, "requests", is_full=self._running > self._settings.concurrent_requests)
        if exchange.method == "OPTIONS":
            return await self._options(exchange)
        forwarded = self._forwarded(exchange)
        if forwarded is not None:
            exchange.route = forwarded.forward.prefix
            return await self._forwarder.serve(forwarded, exchange, receive)
        route, variables = self._route(exchange)
        exchange.route = route.name
        exchange.answer_headers += route.notices
        await self._origins.admit(exchange, variables)
        session = self._credentials.of(exchange, route)
        organization_id = await self._organization(exchange, route, variables, session)
        admitted = await self._caller.admit(exchange, route, session, organization_id)
        body = await self._body(exchange, receive)
        request = _build(route, variables, query, exchange, body, self._settings.json_depth)
        if route.rule.response_streaming:
            return 200, "", await self._opened(exchange, route, admitted, request)
        response = await self._caller.call(exchange, route, admitted, request)
        cookies.keep(exchange, response)
        return answers.of(route, response, exchange, query)

    async def _opened(self, exchange: Exchange, route: Route, admitted: Admitted, request: Message) -> Pieces:
        """A stream whose first answer is there. Streams have a number of their own, and so has each organization; who
        needs none, each address.
        """
        exchange.streams_for = admitted.organization_id or place_of(exchange.client)
        of_theirs, settings = self._streams[exchange.streams_for], self._settings
        self._shed(exchange, "streams", is_full=self._streams.total() >= settings.concurrent_streams)
        self._shed(exchange, "organization_streams", is_full=of_theirs >= settings.organization_streams)
        self._streams[exchange.streams_for] += 1
        try:
            answered = await self._caller.stream(exchange, route, admitted, request)
        except BaseException:
            self._closed(exchange)
            raise
        return streaming.pieces(route, exchange, answered)

    def _closed(self, exchange: Exchange) -> None:
        self._streams[exchange.streams_for] -= 1
        self._streams += Counter()  # Keeps those that are open.

    @staticmethod
    def _shed(exchange: Exchange, limit: str, *, is_full: bool) -> None:
        """Refuse what would only wait."""
        if is_full:
            exchange.refused_by = limit
            raise busy()

    def _fixed(self, exchange: Exchange) -> tuple[int, str, bytes] | None:
        """Health, and documents that anybody may read."""
        if exchange.method not in ("GET", "HEAD"):
            return None
        if exchange.raw_path == "/healthz":
            return 200, _JSON, b'{"status":"ok"}'
        if exchange.raw_path == "/readyz":
            is_ready = self._ready() and not self.leaving.is_set()
            return (200, _JSON, b'{"status":"ready"}') if is_ready else (503, _JSON, b'{"status":"not ready"}')
        page = self._pages.get(exchange.raw_path)
        if page is None:
            return None
        self._limits.count_address(exchange, reads=True, prefix="pages")
        return answers.of_page(page, exchange)

    async def _options(self, exchange: Exchange) -> tuple[int, str, bytes]:
        """What the path is for, and who may ask it from another origin; to nobody where HTTP is handed on as it is."""
        self._limits.count_address(exchange, reads=True)
        _require_path(exchange)
        handed = self._router.find_forward("OPTIONS", exchange.raw_path)
        methods = handed or self._found(exchange)
        if not isinstance(methods, list) or not methods:
            raise _nowhere()
        if not handed:
            await self._origins.answer_preflight(exchange, self._router, methods)
        exchange.answer_headers.append((b"allow", ", ".join([*methods, "OPTIONS"]).encode()))
        return 204, "", b""

    def _forwarded(self, exchange: Exchange) -> Forwarded | None:
        found = self._router.find_forward(exchange.method, exchange.raw_path)
        if found is not None:
            _require_path(exchange)
        if isinstance(found, list):
            raise _not_allowed(exchange, found)
        return found

    def _route(self, exchange: Exchange) -> tuple[Route, dict[str, str]]:
        found = self._found(exchange)
        if isinstance(found, tuple):
            return found
        raise _not_allowed(exchange, found) if found else _nowhere()

    def _found(self, exchange: Exchange) -> tuple[Route, dict[str, str]] | list[str]:
        try:
            found = self._router.find(exchange.method, exchange.raw_path)
        except ValueError as error:
            raise invalid_field("(path)", str(error)) from error
        return found or (["GET", "HEAD"] if exchange.raw_path in FIXED_PATHS else [])

    async def _organization(self, exchange: Exchange, route: Route, variables: dict[str, str], session: Session) -> str:
        """The organization that the call is about, as path or header names it, else as identity chooses."""
        if route.rule.scope is Scope.PLATFORM:
            return str(PLATFORM)
        if "organization_id" not in variables:
            return ""
        found = organization_of(variables["organization_id"], exchange.headers)
        if not found and session.token:
            found = await self._caller.counted(exchange, session, self._office.choose(session, route.service))
        variables["organization_id"] = found
        return found

    async def _body(self, exchange: Exchange, receive: Receive) -> bytes:
        body = await read_body(exchange, receive, self._settings.body_bytes, self._settings.call_seconds)
        if body:
            require_media_type(exchange, (_JSON,))
            require_utf8(exchange)
        return body


def _require_path(exchange: Exchange) -> None:
    """Raise Invalid for a path that somebody on the way may have read as another one."""
    try:
        templates.split(exchange.raw_path)
    except ValueError as error:
        raise invalid_field("(path)", str(error)) from error


def _nowhere() -> NotFound:
    return NotFound(message="Nothing is served at this path.", reason=Reason.ERROR_REASON_ROUTE_NOT_FOUND, metadata={})


def _not_allowed(exchange: Exchange, methods: Sequence[str]) -> Invalid:
    allow = ", ".join(methods)
    exchange.answer_headers.append((b"allow", allow.encode()))
    return Invalid(Reason.ERROR_REASON_METHOD_NOT_ALLOWED, f"This path is for {allow}.", {"allow": allow})


def _build(
    route: Route,
    variables: Mapping[str, str],
    query: Sequence[tuple[str, str]],
    exchange: Exchange,
    body: bytes,
    depth: int,
) -> Message:
    request = transcode.build_request(route, variables, query, body, depth)
    conditions.require_match(exchange, request)
    repeating.put_key(exchange, route, request)
    return request
