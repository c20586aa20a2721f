"""One HTTP exchange as ASGI carries it: what came, in our terms, and the answer under the edge's headers.

It decides nothing; what is wrong with a request is said by who reads that part of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from services._mesh import telemetry
from services._mesh.ids import uuid7

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_MAX_REQUEST_ID = 100
_POLICY = b"content-security-policy"
# An API answers nothing that a browser should run, frame, sniff, remember or refer from.
SECURITY_HEADERS = (
    (b"strict-transport-security", b"max-age=31536000; includeSubDomains"),
    (_POLICY, b"default-src 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    # For who reads neither frame-ancestors nor a content type, and for pages that would embed an answer as their own.
    (b"x-frame-options", b"DENY"),
    (b"x-permitted-cross-domain-policies", b"none"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
# Besides, of an answer with a policy of its own, which is a page for people: it shares no process with another origin's
# pages, embeds nothing of theirs, and may use no device.
PAGE_HEADERS = (
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-embedder-policy", b"require-corp"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
)


# What a caller may say to the edge itself, which hands it on in words of its own.
_FOR_THE_EDGE = frozenset({"recoup-organization", "recoup-csrf"})
_OVERRIDES = frozenset({"x-http-method-override", "x-http-method", "x-method-override"})
_FRAMES_BODY = frozenset({"content-length", "transfer-encoding"})
_LISTS = frozenset({"accept", "accept-encoding", "if-match", "if-none-match"})
_SINGLE = frozenset(
    {
        *("authorization", "content-type", "content-length", "content-encoding", "host", "idempotency-key"),
        *("recoup-organization", "elevation-id", "origin", "access-control-request-method", "cookie"),
        *("recoup-csrf", "sec-fetch-site"),
    }
)


@dataclass
class Exchange:
    """One request on its way, and what its answer will carry."""

    method: str
    raw_path: str
    query: bytes
    headers: Mapping[str, str]
    client: str
    request_id: str
    answer_headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    # Whose number of streams it counts to.
    streams_for: str = ""
    # Whether a body may follow: HTTP/1.1 says by its headers where none does (RFC 9112, 6.3).
    may_have_body: bool = True
    # Whether its coding was chosen already.
    is_coded: bool = False
    # Its Content-Security-Policy, where it is a page for people.
    policy: bytes = b""
    # The tag of what is answered, without quotes and coding.
    tag: str = ""
    # Of the headers that say one thing, the one that came twice: whoever stands before may have read the other.
    twice: str = ""
    # Whether an etag came by If-Match: then 412 says that it isn't the current one.
    is_conditional: bool = False
    # The span that it is served in, as W3C traceparent.
    trace_parent: str = ""
    # The method and the template that serve it, where any do.
    route: str = ""
    # The limit that was reached, where one refuses it.
    refused_by: str = ""


def read(scope: Mapping[str, Any]) -> Exchange:
    """What came; the query and the path stay as they are, since not every one can be decoded."""
    headers: dict[str, str] = {}
    twice = ""
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        if key in _LISTS and key in headers:
            headers[key] += f", {text}"
        elif key in _SINGLE and headers.get(key, text) != text:
            twice = twice or key
        # What the mesh says to itself is never taken from outside.
        elif (key in _FOR_THE_EDGE or not key.startswith("recoup-")) and key not in _OVERRIDES:
            headers.setdefault(key, text)
    given = headers.get("x-request-id", "")
    usable = 0 < len(given) <= _MAX_REQUEST_ID and given.isascii() and given.isprintable()
    raw_path = scope.get("raw_path") or scope["path"].encode()
    return Exchange(
        scope["method"],
        raw_path.decode("latin-1"),
        scope["query_string"],
        headers,
        scope["client"][0] if scope.get("client") else "",
        given if usable else str(uuid7()),
        twice=twice,
        may_have_body=scope.get("http_version") != "1.1" or not _FRAMES_BODY.isdisjoint(headers),
    )


class Outgoing:
    """The way back to the caller, which knows whether an answer has begun."""

    def __init__(self, send: Send) -> None:
        self._send, self.begun = send, False

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        self.begun = True
        await self._send(message)


async def answer(send: Send, exchange: Exchange, status: int, media_type: str, body: bytes) -> None:
    """Send the answer."""
    headers = head(exchange, media_type, body)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if exchange.method == "HEAD" else body})


def head(exchange: Exchange, media_type: str, body: bytes | None) -> list[tuple[bytes, bytes]]:
    """The headers of an answer; one without a media type says nothing of one (304), a stream not of its length."""
    content = [(b"content-type", media_type.encode())] if media_type else []
    if media_type and body is not None:
        content.append((b"content-length", str(len(body)).encode()))
    headers = [
        *content,
        (b"x-request-id", exchange.request_id.encode()),
        *(_page_headers(exchange.policy) if exchange.policy else SECURITY_HEADERS),
        *exchange.answer_headers,
    ]
    parent = exchange.trace_parent or telemetry.trace_parent()
    if parent:
        headers.append((b"traceresponse", parent.encode()))
    return headers


def _page_headers(policy: bytes) -> Iterator[tuple[bytes, bytes]]:
    yield from ((name, policy if name == _POLICY else value) for name, value in SECURITY_HEADERS)
    yield from PAGE_HEADERS


def blank(method: str) -> Exchange:
    """The exchange of a request that can't be read."""
    return Exchange(method, "", b"", {}, "", str(uuid7()))
