"""The next page of a list as a link (RFC 8288), for who follows links instead of reading tokens."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any
from urllib.parse import quote, urlencode

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from services.gateway.exchange import Exchange

_TOKENS = ("page_token", "pageToken")
_MOST_BYTES = 4096


def add_link(exchange: Exchange, query: Sequence[tuple[str, str]], response: Message) -> None:
    """Say where the next page is, where there is one and its address isn't too long for a header."""
    held: Any = response
    token = held.next_page_token if _is_page(held.DESCRIPTOR) else ""
    if not token or exchange.method not in ("GET", "HEAD"):
        return
    others = [(name, value) for name, value in query if name not in _TOKENS]
    # What came is written anew: nothing of it can end the address, or the header.
    path = quote(exchange.raw_path, safe="/%:@!$&'()*+,;=-._~")
    link = f'<{path}?{urlencode([*others, (_TOKENS[0], token)])}>; rel="next"'
    if len(link) <= _MOST_BYTES:
        exchange.answer_headers.append((b"link", link.encode("ascii")))


@cache
def _is_page(response: Descriptor) -> bool:
    """Whether answers of that type say where the next page is."""
    return "next_page_token" in response.fields_by_name
