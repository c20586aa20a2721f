"""The HTTP answer of a call that succeeded: JSON, or a body as the service gives it (google.api.HttpBody). Pure.

An authenticated answer is never stored by whatever lies between (`no-store`, as all of the edge's answers), not even
one that can't change, such as a tile: whoever keeps a copy asks with `If-None-Match`, and gets 304 while it is good.
"""

from __future__ import annotations

from collections.abc import Sequence

from google.api.httpbody_pb2 import HttpBody
from google.protobuf.message import Message

from services.gateway import coding, conditions, paging, transcode
from services.gateway.exchange import Exchange
from services.gateway.pages import Page
from services.gateway.routes import Route

_JSON = "application/json"
_OCTETS = "application/octet-stream"


def of(
    route: Route, response: Message, exchange: Exchange, query: Sequence[tuple[str, str]] = ()
) -> tuple[int, str, bytes]:
    """Status, media type and body; whole responses as JSON, unless the route names the field to answer with. A list
    links to its next page.
    """
    content = getattr(response, route.response_body) if route.response_body else response
    if isinstance(content, HttpBody):
        media_type, body = content.content_type or _OCTETS, content.data
        if not (media_type.isascii() and media_type.isprintable()):
            raise ValueError("a service's media type can't be a header")
        shown = conditions.tag(body)
    else:
        media_type, body = _JSON, transcode.render(route, response)
        shown = conditions.tag(body, response)
        paging.add_link(exchange, query, response)
    if exchange.method in ("GET", "HEAD") or shown.count("."):  # Of a change, the tag of what it made.
        exchange.tag = shown
    if conditions.is_known(exchange, shown):
        return _unchanged(exchange, is_worth=coding.is_worth(media_type, body))
    return 200, media_type, body


def of_page(page: Page, exchange: Exchange) -> tuple[int, str, bytes]:
    """A page, in the coding that its caller prefers."""
    exchange.policy, exchange.tag = page.policy, page.tag
    if conditions.is_known(exchange, page.tag):
        return _unchanged(exchange, is_worth=bool(page.coded))
    exchange.is_coded = bool(page.coded)
    name = _say_coding(exchange) if page.coded else ""
    return 200, page.media_type, page.coded[name] if name else page.body


async def coded(exchange: Exchange, media_type: str, body: bytes) -> bytes:
    """The body in the coding that its caller prefers, where that makes it smaller by much; headers say which."""
    if media_type and not exchange.is_coded and coding.is_worth(media_type, body):
        exchange.is_coded = True
        name = _say_coding(exchange)
        body = await coding.encoded(body, name) if name else body
    if exchange.is_coded:
        exchange.answer_headers.append((b"vary", b"accept-encoding"))
    if exchange.tag:
        exchange.answer_headers.append((b"etag", f'"{exchange.tag}"'.encode()))
    return body


def _unchanged(exchange: Exchange, *, is_worth: bool) -> tuple[int, str, bytes]:
    """304, with the tag that the answer would have had, and what that depends on (RFC 9110, 15.4.5)."""
    if is_worth:
        exchange.is_coded = True
        _choose_coding(exchange)
    return 304, "", b""


def _say_coding(exchange: Exchange) -> str:
    name = _choose_coding(exchange)
    if name:
        exchange.answer_headers.append((b"content-encoding", name.encode()))
    return name


def _choose_coding(exchange: Exchange) -> str:
    """Another coding is another representation, whose strong tag is another one (RFC 9110, 8.8.3.3)."""
    name = coding.chosen(exchange.headers.get("accept-encoding", ""))
    if name:
        exchange.tag = exchange.tag and f"{exchange.tag}-{name}"
    return name
