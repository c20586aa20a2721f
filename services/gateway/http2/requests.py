"""Who answers a request, and what they are told of it: the `Gateway`, or words of ours where it is none."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from h2.events import RequestReceived

from services._mesh.errors import Problem
from services.gateway.app import Gateway
from services.gateway.bodies import too_large_head, unreadable
from services.gateway.exchange import Receive, Send
from services.gateway.http2 import heads
from services.gateway.newcomers import busy

App = Callable[[Mapping[str, Any], Receive, Send], Awaitable[None]]
_NONE = heads.Head(b"GET", b"/", b"", [])


@dataclass(frozen=True)
class Asked:
    """A request, or what is none, and who answers it; `length` is what it says that its body has."""

    app: App
    scope: dict[str, Any]
    length: int | None = None
    is_none: bool = False


def asked(gateway: Gateway, event: RequestReceived, about: Mapping[str, Any], *, is_full: bool) -> Asked:
    """What came on a stream. `about` is what the scope says of the connection."""
    most_bytes, most_headers = gateway.settings.header_bytes, gateway.settings.header_count
    has_body = event.stream_ended is None
    try:
        head = heads.read(event.headers, has_body=has_body, most_bytes=most_bytes, most_headers=most_headers)
    except heads.TooLarge:
        return Asked(_answering(gateway, too_large_head(most_bytes, most_headers)), _scope(_NONE, about), is_none=True)
    except heads.Malformed:
        return Asked(_answering(gateway, unreadable()), _scope(_NONE, about), is_none=True)
    return Asked(_answering(gateway, busy()) if is_full else gateway, _scope(head, about), head.length)


def _scope(head: heads.Head, about: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "2",
        **about,
        "scheme": "https",
        "root_path": "",
        "method": head.method.decode(),
        "raw_path": head.path,
        "path": unquote_to_bytes(head.path).decode("utf-8", "replace"),
        "query_string": head.query,
        "headers": head.headers,
    }


def _answering(gateway: Gateway, problem: Problem) -> App:
    """Says what is wrong, in the place of an answer."""

    async def app(_scope: Any, _receive: Receive, send: Send) -> None:
        status, headers, body = gateway.refused(problem)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app
