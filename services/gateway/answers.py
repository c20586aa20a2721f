"""The HTTP answer of a call that succeeded: JSON, or a body as the service gives it (google.api.HttpBody). Pure.

An authenticated answer is never stored by whatever lies between (`no-store`, as all of the edge's answers), not even
one that can't change, such as a tile: whoever keeps a copy asks with `If-None-Match`, and gets 304 while it is good.
"""

from __future__ import annotations

import hashlib

from google.api.httpbody_pb2 import HttpBody
from google.protobuf.message import Message

from services.gateway import transcode
from services.gateway.exchange import Exchange
from services.gateway.routes import Route

_JSON = "application/json"
_OCTETS = "application/octet-stream"


def of(route: Route, response: Message, exchange: Exchange) -> tuple[int, str, bytes]:
    """Status, media type and body; whole responses as JSON, unless the route names the field to answer with."""
    content = getattr(response, route.response_body) if route.response_body else response
    if not isinstance(content, HttpBody):
        return 200, _JSON, transcode.render(route, response)
    tag = f'"{hashlib.sha256(content.data).hexdigest()[:32]}"'
    exchange.answer_headers.append((b"etag", tag.encode()))
    if exchange.method == "GET" and _is_known(tag, exchange.headers.get("if-none-match", "")):
        return 304, "", b""
    return 200, content.content_type or _OCTETS, content.data


def _is_known(tag: str, given: str) -> bool:
    """Whether `If-None-Match` names the tag (RFC 9110, 13.1.2: compared weakly; our tags hold no comma)."""
    return given.strip() == "*" or tag in (each.strip().removeprefix("W/") for each in given.split(","))
